"""Answers of LangChain models: streamed to the run's delivery, in time, tried again after errors that pass."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import anyio
import msgspec
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, message_chunk_to_message

from runmeter.engine import ModelRequest, Usage, current_execution

from ..delivery import Delivery
from ..errors import ResponseFailed
from ..requests.retry import RetryPolicy, with_retries
from .metering.failures import as_failed
from .metering.handler import Asking, MeteringHandler, asking
from .metering.requests import UNKNOWN, Model, describe_question, with_limit
from .metering.usage import STREAM_CUT, Told, finish_reason_of, was_cut

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


@dataclass(frozen=True, slots=True)
class Answered:
    """The outcome of a question: the last answer, and all that was said on the way, the answer included."""

    answer: AIMessage
    new: list[BaseMessage]

    @property
    def text(self) -> str:
        """The text of the last answer."""
        return text_of(self.answer)

    @property
    def finish_reason(self) -> str:
        """The reason why the answer ended."""
        return finish_reason_of(self.answer) or "stop"

    @property
    def response_id(self) -> str | None:
        """The API's id of the answer."""
        return id_of(self.answer)


def text_of(message: BaseMessage) -> str:
    """Read a message's text. A refusal is what the model has to say, too; OpenAI puts it elsewhere."""
    if text := str(message.text):
        return text
    blocks = message.content if isinstance(message.content, list) else ()
    said = (block["refusal"] for block in blocks if isinstance(block, dict) and block.get("type") == "refusal")
    return "".join(said) or message.additional_kwargs.get("refusal") or ""


def id_of(answer: AIMessage) -> str | None:
    """Read the API's id of an answer."""
    response_id = answer.response_metadata.get("id")
    return response_id if isinstance(response_id, str) else None


async def ask(
    model: Model,
    messages: Sequence[BaseMessage],
    meter: MeteringHandler,
    policy: RetryPolicy,
    timeout: float,
    delivery: Delivery | None = None,
    *,
    estimate: bool = False,
    ready: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
) -> AIMessage:
    """Have a model answer. The answer is streamed if the delivery wants its pieces.

    Where a budget applies, each attempt is reserved before it leaves. A budget that may lower `max_output_tokens` does
    so for OpenAI's models, and for others that have a `max_tokens`.

    Args:
        model: A chat model, perhaps bound to tools.
        messages: The conversation.
        meter: The handler that the surrounding graph runs with.
        policy: When to try again.
        timeout: Seconds an attempt may take.
        delivery: Where the answer's pieces go; None if it is but a step on the way.
        estimate: Whether to count tokens where the model does not say what it used.
        ready: What an attempt is made in; what entering it takes is not metered.

    Raises:
        BudgetExceeded: a budget has no room for it. It is not tried again.
        UnboundedRequest: a budget applies, and the request has no known upper bound.
        ResponseFailed: the answer says that it failed, was not complete in time, or its stream was cut.
        Exception: whatever the model raises, for the last time.
    """
    question = _Question(model, messages, delivery)

    async def send(attempt: int) -> AIMessage:  # noqa: ARG001 - the handler reads it where LangChain calls it
        async with ready():
            return await attempt_within_budget()

    async def attempt_within_budget() -> AIMessage:
        execution = current_execution()
        if not execution.budgeted:
            return await answer(model)
        request = await question.describe()
        if request is None or (request.bound is None and request.model == UNKNOWN):
            return await answer(model)  # the handler reserves it, or says what it does not know
        async with execution.reserve(request, may_lower=with_limit(model, 1) is not None) as allowed:
            limit = allowed.max_output_tokens
            limited = None if limit is None or limit == request.max_output_tokens else with_limit(model, limit)
            return await answer(limited or model, allowed.bound)

    async def answer(model: Model, bound: Usage | None = None) -> AIMessage:
        run_id = uuid4()
        failure: BaseException | None = None
        try:
            with anyio.move_on_after(timeout):
                return await question.ask(model, Asking(run_id, question.streamed, bound))
            raise ResponseFailed("request_timeout", f"the answer was not complete within {timeout:g} s")
        except BaseException as error:
            failure = error
            raise
        finally:
            await meter.finish(run_id, failure, estimate=estimate)

    return await with_retries(send, policy, repeatable=lambda: not question.delivered)


class _Question:
    """One question to a model, over all attempts."""

    def __init__(self, model: Model, messages: Sequence[BaseMessage], delivery: Delivery | None) -> None:
        self._model = model
        self._messages = messages
        self._delivery = delivery
        self._described: ModelRequest | None = None
        self.delivered = False
        """Whether a piece of the answer was handed out: then another attempt would repeat it."""

    async def describe(self) -> ModelRequest | None:
        """Describe the request, with its bound; None if the model does not say."""
        if self._described is None:
            described = describe_question(self._model, self._messages)
            if described is None:
                return None
            request, sent = described
            self._described = msgspec.structs.replace(request, bound=await sent.bound())
        return self._described

    @property
    def streamed(self) -> bool:
        """True if the delivery wants the answer's pieces."""
        return self._delivery is not None and self._delivery.wanted

    async def ask(self, model: Model, about: Asking) -> AIMessage:
        """Ask a model, which is the question's own, perhaps with a limit."""
        config: Any = {"run_id": about.run_id}
        token = asking.set(about)
        try:
            if about.stream and self._delivery is not None:
                answer = await self._read_chunks(model, config, self._delivery)
            else:
                answer = cast("AIMessage", await model.ainvoke(self._messages, config))
        except Exception as error:
            if (failed := as_failed(error)) is None:
                raise
            raise failed from error
        finally:
            asking.reset(token)
        if was_cut(answer):
            raise ResponseFailed(*STREAM_CUT)
        return answer

    async def _read_chunks(self, model: Model, config: Any, delivery: Delivery) -> AIMessage:
        chunks: list[AIMessageChunk] = []
        told = Told()
        answer = cast("AsyncGenerator[BaseMessage]", model.astream(self._messages, config))
        async with aclosing(answer):
            async for chunk in answer:
                if text := text_of(chunk):
                    self.delivered = True
                    await delivery.delta(text)
                if not isinstance(chunk, AIMessageChunk):  # a model that cannot stream: this is all of it
                    return cast("AIMessage", chunk)
                told.take(chunk.response_metadata)
                chunks.append(chunk)
        whole = cast("AIMessage", message_chunk_to_message(chunks[0] + chunks[1:]))
        whole.response_metadata.update(told.metadata)
        return whole
