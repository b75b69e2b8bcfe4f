"""Metering a client that exists already: one line, and its requests are those of runs."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from runmeter.engine import ConfigurationError

from .client_call import ClientCall, client_call
from .hooks import AsyncHook, Hook, SyncHook, detach, hook_of

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI

    ClientT = TypeVar("ClientT", bound=OpenAI | AsyncOpenAI)
else:
    ClientT = TypeVar("ClientT")


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
    hook = vars(http).get("send")
    if not isinstance(hook, Hook):
        hook = (AsyncHook if _is_async(http) else SyncHook)(http)
    hook.settle(client.base_url, provider, {} if models is None else models)
    hook.attach(http)
    _follow(client)
    return client


def unmeter(client: ClientT) -> ClientT:
    """Stop metering a client, and all that share its HTTP client: what is under way is still counted to its end.

    What others have put in the place of its methods, before it was metered or since, stays there.

    Raises:
        ConfigurationError: it is not a client that `meter` takes.
    """
    detach(_http_client(client))
    for method in [each for each in vars(client).values() if isinstance(each, _Method)]:
        method.take_back()
    return client


def _http_client(client: Any) -> Any:
    http = getattr(client, "_client", None)
    if not (callable(getattr(http, "send", None)) and hasattr(client, "base_url") and hasattr(client, "max_retries")):
        said = type(client).__name__  # its own words may have a key in them
        raise ConfigurationError(f"meter takes a client such as openai.AsyncOpenAI(), not one of the type {said}")
    return http


def _is_async(http: Any) -> bool:
    return hasattr(http, "aclose")


def _follow(client: Any) -> None:
    """See a client's calls, each of which may be several requests, and its copies."""
    request = _AsyncRequest if _is_async(client._client) else _SyncRequest  # noqa: SLF001
    for name, kind in {"request": request, "copy": _Copy, "with_options": _Copy}.items():
        if not isinstance(vars(client).get(name), _Method):
            setattr(client, name, kind(client, name))


class _Method:
    """Stands in the place of a client's method, and calls it.

    Args:
        client: The client.
        name: The method's.
    """

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self._name = name
        self._before = vars(client).get(name)
        """Whatever stood there in the place of the class's; None if nothing did."""

    def _call(self, *args: Any, **options: Any) -> Any:
        if self._before is not None:
            return self._before(*args, **options)
        return getattr(type(self._client), self._name)(self._client, *args, **options)

    def take_back(self) -> None:
        """Leave the place to what stood there."""
        if self._before is None:
            delattr(self._client, self._name)
        else:
            setattr(self._client, self._name, self._before)


class _Copy(_Method):
    def __call__(self, **options: Any) -> Any:
        """Copy the client, metered as it is."""
        other = self._call(**options)
        if hook_of(other._client) is not None:  # noqa: SLF001 - another HTTP client's, if it is given one
            _follow(other)
        return other


class _AsyncRequest(_Method):
    async def __call__(self, *args: Any, **options: Any) -> Any:
        """Send a request, and again if that failed: outside all runs, that is one run."""
        call = ClientCall()
        token = client_call.set(call)
        try:
            answer = await self._call(*args, **options)
        except BaseException as error:
            call.end(error)
            raise
        finally:
            client_call.reset(token)
        call.returned()
        return answer


class _SyncRequest(_Method):
    def __call__(self, *args: Any, **options: Any) -> Any:
        """Send a request, and again if that failed: outside all runs, that is one run."""
        call = ClientCall()
        token = client_call.set(call)
        try:
            answer = self._call(*args, **options)
        except BaseException as error:
            call.end(error)
            raise
        finally:
            client_call.reset(token)
        call.returned()
        return answer
