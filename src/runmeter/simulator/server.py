"""The simulator's life: a server in a thread of its own, so that callers on asyncio and on trio can both talk to it."""

import importlib.util
import math
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from runmeter.engine import PriceBook, Tokenizer, stand_in, stop_standing_in

from .faults import Fault
from .model.replies import Reply, Script
from .service import Service
from .statistics import SimulatorStatistics

if TYPE_CHECKING:
    from .http.thread import ServerThread

USUAL_MODEL = "gpt-6-luna"
SIMULATED_NOW = 1_795_305_600.0
"""2026-11-22T00:00:00Z: the time by the default clock, which stands still so that answers repeat to the byte."""


def _stopped_clock() -> float:
    return SIMULATED_NOW


class Simulator:
    """An OpenAI-compatible service on this machine's loopback: for demos, tests and benchmarks.

    Use it as an async context manager, on asyncio or trio; it gives the base URL for the client:

        async with Simulator() as url:
            client = AsyncOpenAI(base_url=url, api_key="sk-simulated")

    The same requests in the same order get the same answers from every new simulator, ids and times included. Any API
    key is accepted, but there must be one. It can be entered again after it was left, and remembers what it had seen.
    """

    def __init__(
        self,
        *,
        script: Script | Iterable[Reply] | None = None,
        faults: Iterable[Fault] = (),
        port: int = 0,
        clock: Callable[[], float] = _stopped_clock,
        billing_delay: float = 0,
        prices: PriceBook | None = None,
    ) -> None:
        """Prepare a simulator without starting it.

        Args:
            script: What the model says: replies, used up one a request, or a function from the prompt to a reply.
                Where there is none (any more), the simulator makes one up from the request.
            faults: Misbehaviour, as by `inject`.
            port: Where to listen; 0 lets the system choose.
            clock: Gives the time of answers, in seconds since the Unix epoch.
            billing_delay: Seconds after which a request shows in the organization's usage and costs.
            prices: What it bills; by default what genai-prices and the shipped file say.

        Raises:
            ImportError: The `simulator` extra is not installed.
            ValueError: The port is not between 0 and 65535, or the delay is negative or infinite.
        """
        _require_extra()
        if not 0 <= port <= 65_535:
            raise ValueError(f"port must be between 0 and 65535, not {port}")
        if not 0 <= billing_delay < math.inf:
            raise ValueError(f"billing_delay must be finite and cannot be negative, not {billing_delay}")
        self._port = port
        self._service = Service(script, faults, clock, billing_delay=billing_delay, prices=prices)
        self._thread: ServerThread | None = None
        self._entered = threading.Lock()
        """Held from entering to leaving, so that of two that enter at once one is refused."""

    async def __aenter__(self) -> str:
        """Start the server, and give the base URL once requests are answered.

        Raises:
            OSError: The port is in use, or may not be used.
            RuntimeError: It is running already.
        """
        if not self._entered.acquire(blocking=False):
            raise RuntimeError("this simulator is running already: make another one")
        try:
            with anyio.CancelScope(shield=True):  # half a start cannot be undone, and it takes less than a second
                self._thread = await anyio.to_thread.run_sync(_start, self._service, self._port)
        except BaseException:
            self._entered.release()
            raise
        url = self.url
        stand_in(*_address(url), "openai")
        return url

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Stop the simulator's server. Open connections are broken, and nothing is left behind.

        A script that is busy is waited for a second at most: its thread, and the port, end when it returns.
        """
        thread, self._thread = self._thread, None
        if thread is None:
            return
        stop_standing_in("127.0.0.1", thread.port)
        try:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(thread.stop)
        finally:
            self._entered.release()

    @property
    def url(self) -> str:
        """The base URL, while the server runs.

        Raises:
            RuntimeError: It is not running.
        """
        if self._thread is None:
            raise RuntimeError("this simulator is not running: use it inside `async with`")
        return f"http://127.0.0.1:{self._thread.port}/v1"

    def script(self, *replies: Reply) -> None:
        """Queue replies, each for one request to `/responses` or `/chat/completions`. From any thread.

        A reply is used up by the request it answers, even if a fault ends its stream.
        """
        self._service.replies.add(replies)

    def inject(self, *faults: Fault) -> None:
        """Queue faults, each for the next requests it makes sense for. From any thread."""
        self._service.faults.add(faults)

    def recover(self) -> None:
        """Forget the faults that are still waiting for requests. From any thread."""
        self._service.faults.clear()

    def statistics(self, api_key: str | None = None) -> SimulatorStatistics:
        """Report what it has seen and billed since it was made, by its own count. From any thread.

        Args:
            api_key: The key whose requests are counted; None counts all. An empty one is for requests without a key.
        """
        return self._service.accounts.statistics(api_key)


def _address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").partition("/")[0].partition(":")
    return host, int(port)


def _require_extra() -> None:
    missing = [name for name in ("starlette", "uvicorn", "httptools") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"the simulator needs {', '.join(missing)}: pip install 'runmeter[simulator]'")


def _start(service: Service, port: int) -> "ServerThread":
    # Here, and not above: without the extra, `import runmeter.simulator` must still work.
    from .app import make_app
    from .http.thread import ServerThread

    Tokenizer(USUAL_MODEL).encode("")  # load the vocabulary now, so that the first request is as fast as any
    try:
        thread = ServerThread(make_app(service), port)
    except OSError as error:
        why = f"cannot listen on port {port} of 127.0.0.1: {error.strerror}. Choose another port, or 0 for any"
        raise OSError(error.errno, why) from error
    thread.start()
    return thread
