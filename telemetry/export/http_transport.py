"""Requests to a collector by OTLP over HTTP."""

import gzip
import zlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial

import requests

from ..environment import Destination
from .user_agent import USER_AGENT
from .verdict import Refused, Signal, Taken, Unavailable, Verdict, taken

RETRYABLE = frozenset({429, 502, 503, 504})
"""The answers after which a request may be sent again (OTLP specification 1.9, "Retryable Response Codes")."""
UNSUPPORTED = frozenset({404, 405, 501})
"""The answers of a server that has nothing at this signal's path. The OpenTelemetry Collector, and Jaeger 2, which is
built on it, serve the paths of those signals alone that have a pipeline (`otlpreceiver`, `otlp.go`)."""
CONTENT_TYPE = "application/x-protobuf"

_COMPRESS: Mapping[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}


class HttpTransport:
    """Sends requests of one signal to one collector.

    Args:
        signal: What the requests are about.
        to: Where they go.
        session: Sends them, and says who we are; by default one of its own.
    """

    def __init__(self, signal: Signal, to: Destination, session: requests.Session | None = None) -> None:
        self._signal: Signal = signal
        self._url = to.endpoint
        self._compress = _COMPRESS.get(to.compression)
        self._session = session or requests.Session()
        self._session.headers.update({"content-type": CONTENT_TYPE, "user-agent": USER_AGENT, **to.headers})
        if self._compress is not None:
            self._session.headers["content-encoding"] = to.compression
        # For each request, because REQUESTS_CA_BUNDLE would be preferred to what the session says.
        self._authorities = to.certificate
        if to.client_certificate is not None:
            self._session.cert = (to.client_certificate, to.client_key) if to.client_key else to.client_certificate

    def send(self, body: bytes, timeout: float) -> Verdict:
        """Send a request to the collector, by a new connection if the kept one was closed."""
        if self._compress is not None:
            body = self._compress(body)
        try:
            answer = self._post(body, timeout)
        except (requests.ConnectionError, requests.Timeout) as error:
            return Unavailable(_cause(error))
        except requests.RequestException as error:
            return Refused(_cause(error))
        return self._verdict(answer)

    def _post(self, body: bytes, timeout: float) -> requests.Response:
        post = partial(
            self._session.post,
            self._url,
            data=body,
            timeout=timeout,
            allow_redirects=False,
            verify=self._authorities,
        )
        try:
            return post()
        except requests.ConnectionError as error:
            if isinstance(error, requests.Timeout):
                raise
        return post()  # the collector may have closed the connection that was kept: by a new one

    def _verdict(self, answer: requests.Response) -> Verdict:
        said = f"{answer.status_code} {answer.reason}"
        if answer.status_code in RETRYABLE:
            return Unavailable(said, seconds(answer.headers.get("retry-after")))
        if not 200 <= answer.status_code < 300:
            return Refused(said, answer.status_code in UNSUPPORTED)
        return taken(self._signal, answer.content) if _is_protobuf(answer) else Taken()

    def close(self) -> None:
        """Close the connection pool. A request that is under way goes on until its time is up."""
        for adapter in self._session.adapters.values():
            _close_pools(adapter)
        self._session.close()


def _close_pools(adapter: requests.adapters.BaseAdapter) -> None:
    """Close the connections an adapter keeps.

    A session only forgets its pools, which close once they are collected. An error of an earlier request holds its pool
    in a reference cycle: the connection would stay open until the collector happens to run (urllib3 2.8, 2026-11).
    """
    if isinstance(adapter, requests.adapters.HTTPAdapter):
        pools = adapter.poolmanager.pools
        for key in pools.keys():  # noqa: SIM118 - the container refuses to be iterated over, for threads' sake
            if (pool := pools.get(key)) is not None:
                pool.close()


def _cause(error: BaseException) -> str:
    """Show an error's first cause. The error itself shows the URL, in which there may be a key."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return f"{type(error).__name__}: {error}"


def _is_protobuf(answer: requests.Response) -> bool:
    return answer.headers.get("content-type", "").partition(";")[0].strip().lower() == CONTENT_TYPE


def seconds(retry_after: str | None) -> float | None:
    """Read a `Retry-After` header, as seconds or as a date (RFC 9110, 10.2.3); None if it is neither."""
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        at = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    return max(0.0, ((at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds())
