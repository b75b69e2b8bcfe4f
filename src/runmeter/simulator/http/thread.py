"""The thread the simulator runs in, with an event loop of its own."""

import asyncio
import errno
import logging
import socket
import threading
from collections.abc import Callable
from functools import partial

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from .exchange import CUT

logger = logging.getLogger("runmeter")

HOST = "127.0.0.1"
KEEP_ALIVE = 3600
"""Seconds. A server that closes idle connections races with the client that is about to use one."""


PATIENCE = 1.0
"""Seconds to wait for the thread's end: a script that is busy in it cannot be interrupted."""


RETRY_ACCEPT = 1.0
"""Seconds to leave waiting connections alone where there is no handle for one more, as asyncio's own servers do."""
_OUT_OF_HANDLES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, except that it logs no requests and lets the app break the connection."""

    def on_message_begin(self) -> None:
        """Give a request that starts what `Exchange.cut` needs."""
        super().on_message_begin()
        self.access_log = False
        self.scope["extensions"] = {CUT: {"abort": self.transport.abort}}


class ServerThread:
    """Serves an app on a port of loopback, from `start` to `stop`. Both block: call them off any event loop."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        """Take the port of the server; 0 lets the system choose. Raises OSError."""
        self._app = app
        self._listener = socket.create_server((HOST, port), backlog=1024)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._error: BaseException | None = None
        # A daemon: a program that ends without leaving its `async with` must not hang on it.
        self._thread = threading.Thread(target=self._run, name="runmeter-simulator", daemon=True)

    def start(self) -> None:
        """Start the thread, and return once requests are answered. Raises what kept it from starting."""
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            self._thread.join()
            raise self._error

    def stop(self) -> None:
        """Break all connections, and return once the thread has ended, or after `PATIENCE`."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        try:
            # Selectors, as sockets are accepted by `add_reader`, which Windows' default loop does not have.
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(self._serve())
        except BaseException as error:  # `start` raises it in the caller's thread
            self._error = error
        finally:
            self._listener.close()
            self._ready.set()

    async def _serve(self) -> None:
        # uvicorn's protocol without its `Server`, which polls ten times a second, logs, and waits for open connections;
        # and without asyncio's, which in Python 3.11 fails on a connection that comes while it closes.
        self._loop = asyncio.get_running_loop()
        connections = _Connections(self._app, self._loop)
        connections.listen(self._listener)
        self._ready.set()
        await self._stop.wait()
        await connections.close()


class _Connections:
    """The open connections, each with its uvicorn protocol."""

    def __init__(self, app: ASGIApp, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._config = uvicorn.Config(
            app,
            http=Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE,
        )
        self._config.load()
        self._state = ServerState()
        self._opening: set[asyncio.Task[object]] = set()
        self._stop_listening: Callable[[], object] = bool

    def listen(self, listener: socket.socket) -> None:
        """Accept connections from now on, until `close`."""
        self._loop.add_reader(listener, self._accept, listener)
        self._stop_listening = partial(self._loop.remove_reader, listener)

    def _accept(self, listener: socket.socket) -> None:
        """Accept what is waiting: called whenever something is."""
        try:
            connection, _ = listener.accept()
        except OSError as error:
            if error.errno in _OUT_OF_HANDLES:  # what waits goes on waiting, and would call this again at once
                self._accept_later(listener, error)
            return  # or it left again
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # or each small answer waits 40 ms for an ACK
        opening = self._loop.create_task(self._loop.connect_accepted_socket(self._protocol, connection))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)

    def _accept_later(self, listener: socket.socket, error: OSError) -> None:
        logger.warning("the simulator accepts no connections for %g s: %s", RETRY_ACCEPT, error.strerror)
        self._stop_listening()
        self._stop_listening = self._loop.call_later(RETRY_ACCEPT, self.listen, listener).cancel

    async def close(self) -> None:
        """Accept none any more, break all, and wait until their requests have seen it and ended."""
        self._stop_listening()
        while self._opening or self._state.connections or self._state.tasks:
            for connection in list(self._state.connections):
                connection.transport.abort()
            await asyncio.sleep(0)

    def _protocol(self) -> Protocol:
        return Protocol(config=self._config, server_state=self._state, app_state={})
