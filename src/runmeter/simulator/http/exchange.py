"""One request and the way back to its client."""

import asyncio
from collections.abc import Mapping, Sequence

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

CUT = "runmeter.cut"
"""The ASGI extension that breaks the connection. The server provides it, as `{"abort": a function}`."""


class Exchange:
    """A request, and its answer as it goes out. What is sent to a client that has gone is lost without an error."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        self.id = request_id
        """The `x-request-id`."""
        self._request = Request(scope, receive)
        self._send = send
        self._gone = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None

    @property
    def gone(self) -> bool:
        """True if the client is known to have gone. Known only after a `pause`."""
        return self._gone.is_set()

    @property
    def path_ids(self) -> tuple[str, str]:
        """The ids in the path, in order; empty strings where it has fewer."""
        first, second, *_ = (*map(str, self._request.path_params.values()), "", "")
        return first, second

    @property
    def query(self) -> Mapping[str, str]:
        """The URL's parameters, the last where there are several of a name."""
        return self._request.query_params

    @property
    def lists(self) -> Mapping[str, Sequence[str]]:
        """The URL's parameters with all their values, those of `name` and of `name[]` together."""
        values: dict[str, list[str]] = {}
        for name, value in self._request.query_params.multi_items():
            values.setdefault(name.removesuffix("[]"), []).append(value)
        return values

    def header(self, name: str) -> str | None:
        """Read a header of the request."""
        return self._request.headers.get(name)

    @property
    def api_key(self) -> str:
        """The API key that the request came with; empty if with none."""
        scheme, _, key = (self.header("authorization") or "").partition(" ")
        return key.strip() if scheme.lower() == "bearer" else ""

    async def body(self) -> bytes:
        """Read the whole body of the request.

        Raises:
            starlette.requests.ClientDisconnect: The client left while sending it.
        """
        return await self._request.body()

    async def pause(self, seconds: float) -> None:
        """Wait so many seconds, or until the client has gone. Even no seconds give others their turn."""
        if self._watch is None:
            self._watch = asyncio.create_task(self._wait_until_gone())
        if not seconds:
            await asyncio.sleep(0)
            return
        try:
            await asyncio.wait_for(self._gone.wait(), seconds)
        except TimeoutError:
            pass

    async def send(self, body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Send JSON as the whole answer."""
        length = {"content-type": "application/json", "content-length": str(len(body))}
        await self._start(status, {**length, **(headers or {})})
        await self._send({"type": "http.response.body", "body": body})

    async def start_events(self) -> None:
        """Begin a stream of server-sent events."""
        await self._start(200, {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"})

    async def send_event(self, data: bytes) -> None:
        """Send one event of the stream."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end_events(self) -> None:
        """End the stream in good order."""
        await self._send({"type": "http.response.body", "body": b""})

    async def cut(self) -> None:
        """Break the connection to the client."""
        self._request.scope["extensions"][CUT]["abort"]()
        await self.pause(5)  # until the server has noticed: it must not take this for an answer forgotten

    def close(self) -> None:
        """Stop watching the client."""
        if self._watch is not None:
            self._watch.cancel()

    async def _start(self, status: int, headers: Mapping[str, str]) -> None:
        raw = [(name.encode(), value.encode()) for name, value in {"x-request-id": self.id, **headers}.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def _wait_until_gone(self) -> None:
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
        self._gone.set()
