"""An API key that a secrets manager gives out for a time. Needs OPENAI_API_KEY, which the secrets manager gives out.

`CachedKey` is what a pattern's `api_key` takes: an async function, which is asked before every request. It keeps the
key, has a new one fetched shortly before the old one expires, and fetches it once however many requests wait for it.
What it fetches from is any object with `async read()`: here `HttpSecrets`, a client of the little HTTP server at the
end of this file, which stands in for a secrets manager so that the example runs as it stands.
"""

import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple, Protocol

import anyio
import httpx2  # the OpenAI client's own HTTP library

from runmeter import Engine
from runmeter.patterns import OpenAIPatternConfig, PatternType, get_pattern_registry

QUESTIONS = ("Why is the sea salty?", "How deep is it?", "How cold?", "How old?")


class Secret(NamedTuple):
    """A secret, and how long it is good for."""

    value: str
    seconds: float
    """From when it was asked for."""


class Secrets(Protocol):
    """Where secrets are kept. Yours may be a cloud's secrets manager, a vault, or a file that is mounted anew."""

    async def read(self) -> Secret:
        """Read the secret. Whatever it raises is tried again if it may pass, such as a lost connection."""
        ...


class CachedKey:
    """An API key that is fetched when it is first needed, and again when it is about to expire.

    It belongs to one event loop, as an `anyio.Lock` does: have one for each loop.

    Args:
        secrets: Where it comes from.
        early: Seconds before it expires from which on a new one is fetched, or half its life if that is less. If this
            fails, the old one serves as long as it is good.
        pause: Seconds after a failure in which it is not tried again.
        monotonic: A clock, in seconds.
    """

    def __init__(
        self,
        secrets: Secrets,
        *,
        early: float = 60.0,
        pause: float = 1.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._secrets = secrets
        self._early = early
        self._pause = pause
        self._monotonic = monotonic
        self._lock = anyio.Lock()
        self._key = ""
        self._renew = self._expires = monotonic()
        self._error: Exception | None = None

    async def __call__(self) -> str:
        """The key. Requests that come while it is being fetched wait for that, and do not fetch it again.

        Raises:
            Exception: there is none that is good, and whatever `read` has raised.
        """
        now = self._monotonic()
        if now >= self._renew:
            async with self._lock:
                if now >= self._renew:  # else another one has seen to it meanwhile, well or not
                    await self._fetch()
        if self._error is not None and self._monotonic() >= self._expires:
            raise self._error
        return self._key

    async def _fetch(self) -> None:
        asked = self._monotonic()
        try:
            secret = await self._secrets.read()
        except Exception as error:
            self._error, self._renew = error, self._monotonic() + self._pause
        else:
            self._error, self._key, self._expires = None, secret.value, asked + secret.seconds
            self._renew = self._expires - min(self._early, secret.seconds / 2)


class HttpSecrets:
    """A client of a secrets manager that speaks JSON over HTTP.

    Args:
        url: Where the secret is.
        token: Says who asks.
    """

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._headers = {"authorization": f"Bearer {token}"}

    async def read(self) -> Secret:
        """Read the secret.

        Raises:
            ConnectionError: the secrets manager does not answer, or not in good order: it may, later.
            PermissionError: it does not give the secret to this token.
        """
        try:
            async with httpx2.AsyncClient(timeout=10) as client:
                answer = await client.get(self._url, headers=self._headers)
        except httpx2.TransportError as error:
            raise ConnectionError(f"no answer from the secrets manager: {type(error).__name__}") from error
        if answer.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND):
            raise PermissionError(f"the secrets manager gives no secret: it answers {answer.status_code}")
        if answer.status_code != HTTPStatus.OK:
            raise ConnectionError(f"the secrets manager answers {answer.status_code}")
        told = answer.json()
        return Secret(told["value"], float(told["expires_in"]))


async def main() -> None:
    """Ask some questions at once, on both frameworks, with one key between them."""
    with secrets_manager(os.environ["OPENAI_API_KEY"], expires_in=3600) as manager:
        key = CachedKey(HttpSecrets(manager.url, manager.token))
        config = OpenAIPatternConfig(api_key=key)
        registry = get_pattern_registry()
        kinds = (PatternType.OPENAI_FUNCTION_CALLING, PatternType.AUGMENTED_LLM)
        patterns = [registry.create_pattern(kind, config) for kind in kinds]
        async with Engine(usage=registry.usage) as engine:
            for pattern in patterns:
                results = await engine.map(pattern, QUESTIONS, timeout=60)
                print(f"{pattern.name}: {len(results)} answers")
        await registry.aclose()
        requests = registry.get_usage_stats()["openai_metrics"]["requests"]
        print(f"{requests} requests, and the key was read {manager.reads} time{'s' * (manager.reads != 1)}")


# A stand-in for a secrets manager: nothing below is needed where there is one.


class Manager:
    """Gives out one secret, for a time, to those with a token."""

    def __init__(self, value: str, expires_in: float) -> None:
        self.value = value
        self.expires_in = expires_in
        self.token = secrets.token_urlsafe()
        self.url = ""
        self.reads = 0


@contextmanager
def secrets_manager(value: str, *, expires_in: float) -> Iterator[Manager]:
    """Serve a secret on this machine."""
    manager = Manager(value, expires_in)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            allowed = secrets.compare_digest(self.headers.get("authorization", ""), f"Bearer {manager.token}")
            told = {"value": manager.value, "expires_in": manager.expires_in} if allowed else {"error": "forbidden"}
            manager.reads += allowed
            self.send_response(HTTPStatus.OK if allowed else HTTPStatus.FORBIDDEN)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(told).encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        manager.url = f"http://127.0.0.1:{server.server_port}/openai"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield manager
        finally:
            server.shutdown()
            thread.join()


if __name__ == "__main__":
    anyio.run(main)
