"""Requests to the Responses API, each attempt of which is a metered model call."""

from collections.abc import Mapping
from copy import copy
from typing import TYPE_CHECKING, Any

import anyio
from openai import APIError

from runmeter.engine import ModelCall, ModelRequest, Provenance, TokenCounter, Usage, current_execution

from ...delivery import Delivery
from ...errors import ResponseFailed
from ...openai_client.clients import Clients
from ...openai_client.models import SunsetGuard
from ...requests.bounds import UNKNOWN_INPUT, bound_late, sent_response, text_format_of
from ...requests.finish import is_complete
from ...requests.retry import RetryPolicy, used_nothing, with_retries
from .recovery import is_kept, recover_usage
from .stream import Deliver, read_stream
from .usage import completed, record_response

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types.responses import Response


class MeteredResponses:
    """Sends requests, and again after errors that may pass; records each attempt's usage, and its provenance.

    Args:
        clients: Where the client comes from.
        policy: When to try again.
        timeout: Seconds an attempt may take, its answer included.
        estimate: Whether to count locally where the API reports no usage.
        recover: Whether to ask the API what an answer used that was cut, if the API keeps it.
        delivery: Where the pieces of streamed answers go.
        guard: Keeps requests from models that have been shut down.
    """

    def __init__(
        self,
        clients: Clients,
        policy: RetryPolicy,
        *,
        timeout: float,
        estimate: bool,
        recover: bool = False,
        delivery: Delivery | None = None,
        guard: SunsetGuard | None = None,
    ) -> None:
        self._clients = clients
        self._policy = policy
        self._timeout = timeout
        self._estimate = estimate
        self._recover = recover
        self._delivery = delivery or Delivery()
        self._guard = guard or SunsetGuard()

    def to(self, delivery: Delivery) -> "MeteredResponses":
        """Make one like this whose streamed answers go elsewhere."""
        other = copy(self)
        other._delivery = delivery  # noqa: SLF001 - another of this class
        return other

    async def create(self, params: Mapping[str, Any], *, stream: bool = False, deliver: Deliver = True) -> "Response":
        """Ask for an answer, complete or cut off by a limit.

        Args:
            params: What `client.responses.create` takes.
            stream: Whether to stream.
            deliver: Which pieces of a streamed answer are handed out: none if it is but a step on the way.

        Raises:
            BudgetExceeded: a budget has no room for the request: it did not leave, and is not tried again.
            UnboundedRequest: a budget applies to a request without a known upper bound.
            RetiredModel: the model has been shut down.
            ResponseFailed: the answer ended in an error, or did not end.
            openai.APIError: the request was refused, or the connection failed.
        """
        client = self._clients.get()
        await self._guard.check(params["model"], client)
        execution = current_execution()
        sent = sent_response(params)
        # It takes time, so that it is worked out beforehand only where a budget needs it.
        bound = await sent.bound() if execution.budgeted else None
        request = _describe(client, params, self._clients, stream=stream, bound=bound)
        exchange = _Exchange(self._delivery, deliver, stream=stream)

        async def send(attempt: int) -> "Response":
            async with execution.reserve(request) as allowed, self._clients.key_at_hand():
                client = self._clients.get()  # not the one of before: the pattern may have been closed meanwhile
                async with execution.model_call(allowed, attempt=attempt) as call:
                    try:
                        return await self._attempt(client, _limited(params, allowed), exchange, call)
                    except BaseException:
                        if self._recover and is_kept(params):
                            await recover_usage(client, call)
                        raise
                    finally:
                        await bound_late(call, sent)

        return await with_retries(send, self._policy, repeatable=lambda: not exchange.delivered)

    async def _attempt(
        self, client: "AsyncOpenAI", params: Mapping[str, Any], exchange: "_Exchange", call: ModelCall
    ) -> "Response":
        try:
            with anyio.move_on_after(self._timeout) as scope:
                response = await exchange.ask(client, params, call)
        except APIError as error:
            if used_nothing(error):
                call.record(Usage())
            raise
        if scope.cancelled_caught:
            raise ResponseFailed("request_timeout", f"the answer was not complete within {self._timeout:g} s")
        record_response(call, response)
        unreported = call.is_metered and call.usage is None and response.status != "failed"
        if unreported and self._estimate and not params.keys() & UNKNOWN_INPUT:
            call.record(await _count(params, response), Provenance.ESTIMATED)
        if response.error is not None or not (is_complete(response) or response.status == "incomplete"):
            raise ResponseFailed.said(
                response.error or {"code": "response_failed"}, f"the answer ended with status {response.status!r}"
            )
        return response


class _Exchange:
    """One request and its answer, over all attempts."""

    def __init__(self, delivery: Delivery, which: Deliver, *, stream: bool) -> None:
        self._delivery = delivery
        self._which = which
        self._stream = stream
        self.delivered = False
        """Whether a piece of the answer was handed out: then another attempt would repeat it."""

    async def ask(self, client: "AsyncOpenAI", params: Mapping[str, Any], call: ModelCall) -> "Response":
        if not self._stream:
            return completed(await _send(client, params, call), call)
        stream = await _send(client, {**params, "stream": True}, call)
        return await read_stream(stream, call, self._deliver, self._which)

    async def _deliver(self, text: str) -> None:
        self.delivered = self.delivered or self._delivery.wanted
        await self._delivery.delta(text)  # also without a listener: it may count the pieces


async def _send(client: "AsyncOpenAI", params: Mapping[str, Any], call: ModelCall) -> Any:
    try:
        return await client.responses.create(**params)
    except RuntimeError as error:
        if not client.is_closed():
            raise
        call.record(Usage())  # it did not leave
        raise ResponseFailed("client_closed", "aclose() was called before the request left") from error


def _limited(params: Mapping[str, Any], allowed: ModelRequest) -> Mapping[str, Any]:
    """Limit the parameters to what a budget allows."""
    if allowed.max_output_tokens == params.get("max_output_tokens"):
        return params
    return {**params, "max_output_tokens": allowed.max_output_tokens}


def _describe(
    client: "AsyncOpenAI", params: Mapping[str, Any], clients: Clients, *, stream: bool, bound: Usage | None
) -> ModelRequest:
    url = client.base_url
    provider, model = clients.provider_and_model(params["model"])
    return ModelRequest(
        provider=provider,
        model=model,
        api="responses",
        stream=stream,
        service_tier=params.get("service_tier"),
        max_output_tokens=params.get("max_output_tokens"),
        temperature=params.get("temperature"),
        previous_response_id=params.get("previous_response_id"),
        server_address=url.host,
        server_port=url.port or (443 if url.scheme == "https" else 80),
        bound=bound,
    )


async def _count(params: Mapping[str, Any], response: "Response") -> Usage:
    """Count a request and its answer with the vocabularies that ship with the package."""
    counter, model = TokenCounter(), params["model"]
    read = await counter.count_messages(
        params["input"],
        model,
        instructions=params.get("instructions"),
        tools=params.get("tools") or (),
        text_format=text_format_of(params),
    )
    calls = (f"{item.name}{item.arguments}" for item in response.output if item.type == "function_call")
    written = await counter.count_text("".join((response.output_text, *calls)), model)
    return Usage(input_tokens=read.tokens, output_tokens=written.tokens)
