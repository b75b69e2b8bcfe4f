"""Having an answer from a LangChain model: streamed to whoever listens, in time, tried again after errors that pass."""

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast
from uuid import UUID, uuid4

import anyio
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, message_chunk_to_message

from ..delivery import Delivery
from ..errors import ResponseFailed
from ..retry import RetryPolicy, with_retries
from .callbacks import MeteringHandler, answer_is_streamed
from .usage import STREAM_CUT, finish_reason_of, was_cut

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from langchain_core.runnables import Runnable

    Model: TypeAlias = Runnable[Any, BaseMessage]


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of a question: the last answer, and all that was said on the way, the answer included."""

    answer: AIMessage
    new: list[BaseMessage]

    @property
    def text(self) -> str:
        """The answer's text."""
        return text_of(self.answer)

    @property
    def finish_reason(self) -> str:
        """Why the answer ended."""
        return finish_reason_of(self.answer) or "stop"

    @property
    def response_id(self) -> str | None:
        """The API's id of the answer."""
        return id_of(self.answer)


def text_of(message: BaseMessage) -> str:
    """A message's text. A refusal is what the model has to say, too; OpenAI puts it elsewhere."""
    if text := str(message.text):
        return text
    blocks = message.content if isinstance(message.content, list) else ()
    said = (block["refusal"] for block in blocks if isinstance(block, dict) and block.get("type") == "refusal")
    return "".join(said) or message.additional_kwargs.get("refusal") or ""


def id_of(answer: AIMessage) -> str | None:
    """The API's id of an answer."""
    response_id = answer.response_metadata.get("id")
    return response_id if isinstance(response_id, str) else None


async def ask(
    model: "Model",
    messages: Sequence[BaseMessage],
    meter: MeteringHandler,
    policy: RetryPolicy,
    timeout: float,
    delivery: Delivery | None = None,
) -> AIMessage:
    """Have a model answer. The answer is streamed if somebody listens.

    Args:
        model: A chat model, perhaps bound to tools.
        messages: The conversation.
        meter: The handler that the surrounding graph runs with.
        policy: When to try again.
        timeout: Seconds an attempt may take.
        delivery: Where the answer's pieces go; None if it is but a step on the way.

    Raises:
        ResponseFailed: the answer was not complete in time, or its stream was cut.
        Exception: whatever the model raises, for the last time.
    """
    asking = _Asking(model, messages, delivery)

    async def send(attempt: int) -> AIMessage:  # noqa: ARG001 - the handler reads it where LangChain calls it
        run_id = uuid4()
        try:
            with anyio.move_on_after(timeout):
                return await asking.answer(run_id)
            raise ResponseFailed("request_timeout", f"the answer was not complete within {timeout:g} s")
        except BaseException as error:
            meter.abandon(run_id, error)
            raise

    return await with_retries(send, policy, repeatable=lambda: not asking.delivered)


class _Asking:
    """One question to a model, over all attempts."""

    def __init__(self, model: "Model", messages: Sequence[BaseMessage], delivery: Delivery | None) -> None:
        self._model = model
        self._messages = messages
        self._delivery = delivery
        self.delivered = False
        """Whether a piece of the answer was handed out: then another attempt would repeat it."""

    async def answer(self, run_id: UUID) -> AIMessage:
        config: Any = {"run_id": run_id}
        if self._delivery is not None and self._delivery.wanted:
            answer = await self._stream(config, self._delivery)
        else:
            answer = cast("AIMessage", await self._model.ainvoke(self._messages, config))
        if was_cut(answer):
            raise ResponseFailed(*STREAM_CUT)
        return answer

    async def _stream(self, config: Any, delivery: Delivery) -> AIMessage:
        token = answer_is_streamed.set(True)
        try:
            return await self._read_chunks(config, delivery)
        finally:
            answer_is_streamed.reset(token)

    async def _read_chunks(self, config: Any, delivery: Delivery) -> AIMessage:
        chunks: list[AIMessageChunk] = []
        answer = cast("AsyncGenerator[BaseMessage]", self._model.astream(self._messages, config))
        async with aclosing(answer):
            async for chunk in answer:
                if text := text_of(chunk):
                    self.delivered = True
                    await delivery.delta(text)
                if not isinstance(chunk, AIMessageChunk):  # a model that cannot stream: this is all of it
                    return cast("AIMessage", chunk)
                chunks.append(chunk)
        return cast("AIMessage", message_chunk_to_message(chunks[0] + chunks[1:]))
