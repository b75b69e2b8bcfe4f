"""Hooks in the HTTP client of an OpenAI client, where every request of it and of its copies leaves."""

from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import Any

from runmeter.engine import BudgetExceeded, ConfigurationError, ModelRequest, UnboundedRequest

from ..hosts import HOOK, provider_of
from .asking import UsageAsking
from .background import background
from .bodies import AsyncBody, BodyReading, SyncBody, read_at_once, read_in_passing
from .exchange import MeteredExchange, Within, find_exchange
from .sent import APIS, Api, SentRequest
from .trouble import trouble
from .unmetered import tell_unmetered, unmetered_kind

_COUNTED_BY = "runmeter"
"""The extension of an HTTP request that says which hook counts it."""


class Hook:
    """The place where an HTTP client's requests leave.

    Others may put a way to send of their own above it, and `meter` another hook above that: a request that both see is
    counted by the upper, and what a server was found to do is known to both.

    Args:
        http: The HTTP client.
    """

    def __init__(self, http: Any) -> None:
        self.send: Callable[..., Any] = http.send
        """The HTTP client's own way to send a request, or what others have put in its place."""
        self.below = hook_of(http)
        """The hook that was there before, below what others have put above it."""
        self._stands_for_others = "send" in vars(http)
        self._is_off = False
        self._mark = object()
        self.providers: dict[tuple[str, int | None], str] = self.below.providers if self.below else {}
        """Whose prices a server has, by its address."""
        self.models: dict[str, str] = self.below.models if self.below else {}
        """Names of models, by those of deployments that stand for them."""
        self.asking: UsageAsking = self.below.asking if self.below else UsageAsking()
        """What is known of servers that are asked for the usage of streams."""

    def attach(self, http: Any) -> None:
        """Have the requests of an HTTP client leave here."""
        http.send = self
        setattr(http, HOOK, self)

    def detach(self, http: Any) -> None:
        """Count no more requests, and leave the place if no other has been put above."""
        self._is_off = True
        if vars(http).get("send") is self:
            if self._stands_for_others:
                http.send = self.send
            else:
                del http.send

    def settle(self, base_url: Any, provider: Any, models: Any) -> None:
        """Say whose prices a server has, and which models its deployments are.

        Raises:
            ConfigurationError: they are not names.
        """
        if not (provider is None or (isinstance(provider, str) and provider)):
            raise ConfigurationError(f"provider takes a name, such as 'openai', not {provider!r:.100}")
        if not (isinstance(models, Mapping) and all(isinstance(n, str) for each in models.items() for n in each)):
            raise ConfigurationError(f"models takes names of models by those of deployments, not {models!r:.100}")
        if provider is not None:
            self.providers[base_url.host, base_url.port] = provider
        self.models.update(models)

    def provider_and_model(self, base_url: Any, model: str) -> tuple[str, str]:
        """Name the provider whose prices a server has, and a model by its own name."""
        host, port = base_url.host, base_url.port
        return self.providers.get((host, port)) or provider_of(host, port), self.models.get(model, model)

    def _begin(self, request: Any) -> MeteredExchange | Within | None:
        """Begin to count a request, unless that has to wait, and have its stream tell its usage.

        Returns:
            What counts it; None if nobody does.
        """
        if request.method != "POST":
            return None
        url = request.url
        api = _api_of(url.path)
        if api is None:
            self._tell(url)
            return None
        if self._is_off or request.extensions.setdefault(_COUNTED_BY, self._mark) is not self._mark:
            return None
        exchange = None
        try:
            sent = SentRequest(api, request, self.providers, self.models)
            exchange = find_exchange(sent)
            if isinstance(exchange, Within):
                exchange.leave()
            elif exchange is not None:
                self.asking.ask(sent)
                execution = exchange.execution
                budgeted = execution.budgeted
                exchange.waits = budgeted or execution.runtime.recording is not None
                if not budgeted:
                    exchange.begin(sent.describe())
        except BaseException as error:
            if _is_for_caller(exchange, error):
                raise
            return None
        return exchange

    def _tell(self, url: Any) -> None:
        """Give notice of a request that is billed and not metered."""
        kind = unmetered_kind(url.path)
        if kind is not None and not self._is_off:
            try:
                tell_unmetered(kind, url.host)
            except Exception as error:
                trouble.note(error)


def hook_of(http: Any) -> Hook | None:
    """Find the latest hook of an HTTP client, whatever others have put above it; None if it is not metered."""
    hook: Hook | None = vars(http).get(HOOK)
    return hook


def detach(http: Any) -> None:
    """Have no hook of an HTTP client count any more."""
    hook = vars(http).pop(HOOK, None)
    while hook is not None:
        hook.detach(http)
        hook = hook.below


def _is_for_caller(exchange: MeteredExchange | Within | None, error: BaseException) -> bool:
    """Give up a request for which nothing could be begun. Tells whether it is not to leave, for that reason."""
    if isinstance(exchange, MeteredExchange):
        exchange.refuse(error)
    if not isinstance(error, Exception) or isinstance(error, BudgetExceeded | UnboundedRequest):
        return True
    trouble.note(error)
    return False


def _begin_as_allowed(exchange: MeteredExchange, asked: ModelRequest, allowed: ModelRequest) -> None:
    if allowed.max_output_tokens != asked.max_output_tokens and allowed.max_output_tokens is not None:
        exchange.sent.limit(allowed.max_output_tokens)
    exchange.begin(allowed)


def _read(exchange: MeteredExchange | Within, response: Any, body: type[AsyncBody | SyncBody], *, stream: bool) -> None:
    """Read an answer, now or as it comes."""
    try:
        if stream and response.is_closed:  # it came at once, from a transport that makes answers up
            read_at_once(response, BodyReading(exchange, response, is_decoded=True))
        elif stream:
            read_in_passing(response, body, BodyReading(exchange, response))
        elif response.status_code >= 400:
            exchange.refused(response.status_code, response.content)
        elif isinstance(exchange, MeteredExchange):
            exchange.answered(response.content)
    except Exception as error:
        trouble.note(error)
        exchange.left()


def _settle(request: Any, response: Any) -> None:
    """Look whether what was retrieved is an answer that is waited for."""
    if background.knows(request.url.path) and response.is_closed and response.status_code == 200:
        try:
            background.retrieved(request.url.path, response.content)
        except Exception as error:
            trouble.note(error)


def _lose(exchange: MeteredExchange | Within, lost: BaseException) -> None:
    try:
        exchange.lost(lost)
    except Exception as error:
        trouble.note(error)
        exchange.left()


@lru_cache(maxsize=256)
def _api_of(path: str) -> Api | None:
    start = path.rfind("/")
    if path.endswith("/completions"):
        start = path.rfind("/", 0, start)
    return APIS.get(path[start:])


class AsyncHook(Hook):
    """The place where an async HTTP client's requests leave."""

    send: Callable[..., Awaitable[Any]]

    async def __call__(self, request: Any, *, stream: bool = False, **options: Any) -> Any:
        """Send a request, and count it.

        Raises:
            BudgetExceeded: a budget has no room for it, so that it did not leave.
            UnboundedRequest: it has no known upper bound, and a budget needs one.
            Exception: whatever the HTTP client raises.
        """
        exchange = self._begin(request)
        if exchange is not None and exchange.waits:
            exchange = await self._wait(exchange)
        if exchange is None:
            response = await self.send(request, stream=stream, **options)
            _settle(request, response)
            return response
        sent = exchange.sent
        try:
            response = await self.send(sent.http, stream=stream, **options)
            if self.asking.may_be_refused(sent, response.status_code) and self.asking.takes_back(
                sent, await _aread(response)
            ):
                response = await self.send(sent.http, stream=stream, **options)
                self.asking.learn(sent, response.status_code)
        except BaseException as error:
            await exchange.prepare(error)
            _lose(exchange, error)
            raise
        if response.status_code >= 500 and (not stream or response.is_closed):
            await exchange.prepare()
        _read(exchange, response, AsyncBody, stream=stream)
        return response

    async def _wait(self, exchange: MeteredExchange | Within) -> MeteredExchange | Within | None:
        """Wait for room in budgets, and for the ledger; gives None if that fails for a reason of ours."""
        try:
            if isinstance(exchange, MeteredExchange) and exchange.execution.budgeted:
                asked = exchange.sent.describe(await exchange.sent.sent.bound())
                async with exchange.execution.reserve(asked) as allowed:
                    _begin_as_allowed(exchange, asked, allowed)
                exchange.hold()
            await exchange.keep()
        except BaseException as error:
            if _is_for_caller(exchange, error):
                raise
            return None
        return exchange


class SyncHook(Hook):
    """The place where a sync HTTP client's requests leave."""

    def __call__(self, request: Any, *, stream: bool = False, **options: Any) -> Any:
        """Send a request, and count it. Raises what `AsyncHook` raises."""
        exchange = self._begin(request)
        if exchange is not None and exchange.waits:
            exchange = self._wait(exchange)
        if exchange is None:
            response = self.send(request, stream=stream, **options)
            _settle(request, response)
            return response
        sent = exchange.sent
        try:
            response = self.send(sent.http, stream=stream, **options)
            if self.asking.may_be_refused(sent, response.status_code) and self.asking.takes_back(
                sent, _read_all(response)
            ):
                response = self.send(sent.http, stream=stream, **options)
                self.asking.learn(sent, response.status_code)
        except BaseException as error:
            exchange.prepare_here(error)
            _lose(exchange, error)
            raise
        if response.status_code >= 500 and (not stream or response.is_closed):
            exchange.prepare_here()
        _read(exchange, response, SyncBody, stream=stream)
        return response

    def _wait(self, exchange: MeteredExchange | Within) -> MeteredExchange | Within | None:
        """Wait for room in budgets, and for the ledger; gives None if that fails for a reason of ours."""
        try:
            if isinstance(exchange, MeteredExchange) and exchange.execution.budgeted:
                asked = exchange.sent.describe(exchange.sent.sent.bound_here())
                with exchange.execution.reserve(asked) as allowed:
                    _begin_as_allowed(exchange, asked, allowed)
                exchange.hold()
            exchange.keep_now()
        except BaseException as error:
            if _is_for_caller(exchange, error):
                raise
            return None
        return exchange


async def _aread(response: Any) -> Any:
    await response.aread()
    return response


def _read_all(response: Any) -> Any:
    response.read()
    return response
