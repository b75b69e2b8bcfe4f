"""Metering a client that exists already: one line, and its requests are those of runs."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from runmeter.engine import ConfigurationError, metered_execution

from .exchange import ClientCall, client_call
from .hooks import AsyncHook, Hook, SyncHook

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI

    ClientT = TypeVar("ClientT", bound=OpenAI | AsyncOpenAI)
else:
    ClientT = TypeVar("ClientT")

_COPIES = ("copy", "with_options")


def meter(client: ClientT, *, provider: str | None = None, models: Mapping[str, str] | None = None) -> ClientT:
    """Meter a client: each request for an answer or for embeddings becomes part of a run, with its tokens and cost.

        client = meter(AsyncOpenAI())

    It is the same client, and what its methods take and return is what it was; copies by `with_options` are metered,
    too. A request belongs to the run that is current, else to a run of its own in the engine that is current, called
    `openai.responses`, `openai.chat` or `openai.embeddings`. Each attempt of the client's own retries is counted,
    streams are counted whichever way they end, and what a `model_call` or a `MeteringHandler` counts is not counted
    again. Metering a client twice changes nothing, but for what the second time says.

    Args:
        client: `AsyncOpenAI`, `OpenAI`, `AsyncAzureOpenAI` or `AzureOpenAI`.
        provider: Whose prices the client's server has, such as `openai`, by the name that events are to have. Without
            it, OpenAI's own hosts and the simulator have OpenAI's, Azure's hosts Azure's, and others those that a price
            file gives for the host.
        models: Names of models, by those of Azure's deployments or of a gateway's aliases that stand for them.

    Raises:
        ConfigurationError: it is not such a client, or what is said of it are not names.
    """
    http = _http_client(client)
    hook = http.__dict__.get("send")
    if not isinstance(hook, Hook):
        hook = (AsyncHook if _is_async(http) else SyncHook)(http.send)
    hook.settle(client.base_url, provider, {} if models is None else models)
    http.send = hook
    _follow(client)
    return client


def unmeter(client: ClientT) -> ClientT:
    """Stop metering a client, and all that share its HTTP client: what is under way is still counted to its end.

    Raises:
        ConfigurationError: it is not a client that `meter` takes.
    """
    http = _http_client(client)
    if isinstance(http.__dict__.get("send"), Hook):
        del http.send
    for name in ("request", *_COPIES):
        client.__dict__.pop(name, None)
    return client


def _http_client(client: Any) -> Any:
    http = getattr(client, "_client", None)
    if not (callable(getattr(http, "send", None)) and hasattr(client, "base_url") and hasattr(client, "max_retries")):
        raise ConfigurationError(f"meter takes a client such as openai.AsyncOpenAI(), not {client!r:.100}")
    return http


def _is_async(http: Any) -> bool:
    return hasattr(http, "aclose")


def _follow(client: Any) -> None:
    """See a client's calls, each of which may be several requests, and its copies."""
    if "request" in client.__dict__:
        return
    client.request = (_async_request if _is_async(client._client) else _sync_request)(client)  # noqa: SLF001
    for name in _COPIES:
        setattr(client, name, _copying(client, name))


def _copying(client: Any, name: str) -> Any:
    def copy(**options: Any) -> Any:
        """Copy the client, metered as it is."""
        other = getattr(type(client), name)(client, **options)
        if isinstance(other._client.__dict__.get("send"), Hook):  # noqa: SLF001 - another, if it is given one
            _follow(other)
        return other

    return copy


def _async_request(client: Any) -> Any:
    async def request(*args: Any, **options: Any) -> Any:
        """Send a request, and again if that failed: outside all runs, that is one run."""
        if metered_execution() is not None:
            return await type(client).request(client, *args, **options)
        call = ClientCall()
        token = client_call.set(call)
        try:
            answer = await type(client).request(client, *args, **options)
        except BaseException as error:
            call.end(error)
            raise
        finally:
            client_call.reset(token)
        call.returned()
        return answer

    return request


def _sync_request(client: Any) -> Any:
    def request(*args: Any, **options: Any) -> Any:
        """Send a request, and again if that failed: outside all runs, that is one run."""
        if metered_execution() is not None:
            return type(client).request(client, *args, **options)
        call = ClientCall()
        token = client_call.set(call)
        try:
            answer = type(client).request(client, *args, **options)
        except BaseException as error:
            call.end(error)
            raise
        finally:
            client_call.reset(token)
        call.returned()
        return answer

    return request
