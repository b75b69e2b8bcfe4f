"""Conversation: a model that remembers what was said, here or at OpenAI."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import uuid4

import anyio
import msgspec
from msgspec import Meta
from openai import APIError

from runmeter.engine import ConfigurationError, Tokenizer, current_execution

from ..base import PatternResult
from ..config import DEFAULT_MODEL, AtLeastOne, Name, PatternConfig, PatternType
from ..context import checked_id, instructions_of
from ..errors import ResponseFailed, UnknownConversation
from ..messages import Item, to_items
from ..requests.retry import RetryPolicy, status_code
from ..requests.turns import turn
from ..tools.tool import ToolLike
from .responses.tool_loop import LoopOutcome, given
from .threads.context_window import ContextWindow, Fitted, Summariser
from .threads.history import History, HistoryStore, InMemoryHistoryStore, checked_store, without_open_reasoning
from .threads.pattern import OpenAIThreadConfig, ThreadPattern
from .threads.threads import check_id

if TYPE_CHECKING:
    from openai import AsyncOpenAI

DEFAULT_CONTEXT_TOKENS = 128_000
_RELEASE_TIMEOUT = 5.0
"""Seconds a store may take to release a history, also while the run is being cancelled."""


@dataclass(frozen=True, kw_only=True)
class OpenAIConversationConfig(OpenAIThreadConfig):
    """Settings of a conversation, beyond those of every OpenAI pattern.

    Raises:
        ConfigurationError: besides the usual, a memory that has no limit is given one, or a summary has no room in it.
    """

    memory: Literal["local", "response", "conversation"] = "local"
    """Where what was said is kept. `local`: here, and sent whole each time; OpenAI keeps answers only if `store` says
    so. `response`: OpenAI keeps answers for 30 days, and each request refers to the last one; a copy is kept here, for
    when that is gone. `conversation`: in a conversation of OpenAI's, without an end. The last two have OpenAI store
    answers, whatever `store` says."""
    max_context_tokens: AtLeastOne | None = None
    """Tokens a turn's first request may have, as counted here; images and files are not. By default 128 000. Not for
    the memory `conversation`, which OpenAI keeps as it is."""
    context_policy: Literal["trim", "summarise"] = "trim"
    """What becomes of the oldest turns when the context is too long: they are left out, or summarised by the model. If
    a summary fails, they are left out."""
    summary_model: Name | None = None
    """By default the same model."""
    summary_tokens: Annotated[int, Meta(ge=16)] = 1000
    """About how many tokens a summary may have."""
    max_conversations: AtLeastOne = 1000
    """How many conversations are remembered here. Beyond that, those not used for the longest time are forgotten."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory == "conversation":
            if self.thread_id is not None:
                check_id("thread_id", self.thread_id)
            for name, default in (("max_context_tokens", None), ("context_policy", "trim")):
                if getattr(self, name) != default:
                    raise ConfigurationError(f"{name} is not for memory 'conversation': OpenAI keeps it as it is")
        if self.context_policy == "summarise" and self.summary_tokens >= self.context_limit // 2:
            raise ConfigurationError(
                f"summary_tokens is {self.summary_tokens}, but must be less than half of max_context_tokens, "
                f"{self.context_limit}"
            )

    @property
    def context_limit(self) -> int:
        """Upper bound on the tokens of a context that is kept here."""
        return self.max_context_tokens or DEFAULT_CONTEXT_TOKENS


class ConversationResult(PatternResult, frozen=True, kw_only=True):
    """Result of one turn of a conversation."""

    context_tokens: int | None = None
    """Tokens of the turn's first request, as counted here; None where OpenAI keeps the conversation."""
    trimmed_turns: int = 0
    """Turns that were left out for good, because the context was too long."""
    summarised_turns: int = 0
    """Turns that were replaced by a summary."""
    summary_error: str | None = None
    """Why there is no summary, though there should be one: an error's code or name."""
    restarted: bool = False
    """Whether OpenAI did not have the last answer any more, so that all was sent anew."""
    repaired_calls: int = 0
    """Calls of earlier turns that were never answered, and of which the model was told that they were interrupted."""
    thread_id: str | None = None
    """The conversation of OpenAI's, if there is one."""


@dataclass(frozen=True)
class _Answer:
    """A turn's outcome, if it went well."""

    outcome: LoopOutcome
    history: History
    fitted: Fitted | None = None
    restarted: bool = False
    repaired_calls: int = 0


class OpenAIConversationPattern(ThreadPattern):
    """A model with tools that remembers conversations: here, by the answer before, or in a conversation of OpenAI's.

    A run's conversation is the first of these: `conversation_id` or `thread_id` in its context, its conversation id
    (`engine.run(..., conversation_id=...)`), the config's `thread_id`. Runs without any share one conversation, that of
    the pattern. The id is the caller's own; with the memory `conversation` it may also be one of OpenAI's (`conv_…`).

    Turns of one conversation come one after the other within an event loop and store. A turn that fails or is cancelled
    leaves the history as it was. The memory `conversation` is the exception: OpenAI keeps what was said until then, and
    calls without outputs are answered as interrupted by the next turn.

    Conversations made at OpenAI are deleted when the pattern is closed, unless the config says `persistent_thread`; a
    store that outlives the pattern needs that. Answers stored there for the memory `response` go after 30 days.

    Of the context of a run it also reads `instructions`, in place of `system_prompt`.

    Args:
        config: An `OpenAIPatternConfig`, or an `OpenAIConversationConfig`.
        tools: What the model may call.
        ws_streaming: See `BasePattern`.
        store: Where histories are kept; by default in memory, as many as the config's `max_conversations`.
        retry: When to try a request again; by default what the config says.
        client: The client to ask with, such as `AsyncAzureOpenAI(...)` or one with proxies, certificates or headers of
            its own; by default one that the config describes. The pattern does not close it.

    Raises:
        ConfigurationError: the config is of another kind, or a tool or the store is not one.
    """

    pattern_type = PatternType.OPENAI_CONVERSATION
    config_type = OpenAIConversationConfig
    config: OpenAIConversationConfig

    def __init__(
        self,
        config: PatternConfig,
        tools: Iterable[ToolLike] | None = None,
        ws_streaming: Any = None,
        *,
        store: HistoryStore | None = None,
        retry: RetryPolicy | None = None,
        client: "AsyncOpenAI | None" = None,
    ) -> None:
        super().__init__(config, tools, ws_streaming, retry=retry, client=client)
        own = self.config
        self.store = InMemoryHistoryStore(own.max_conversations) if store is None else checked_store(store)
        self.conversation_id = uuid4().hex
        """The conversation of runs that do not say which they belong to."""
        summariser = None
        if own.context_policy == "summarise":
            model = own.summary_model or own.openai_model
            summariser = Summariser(self.responses, model, own.summary_tokens, service_tier=own.service_tier)
        self._window = ContextWindow(own.openai_model, own.context_limit, self.tool_loop.definitions, summariser)

    @classmethod
    def preload(cls) -> None:
        """Import the OpenAI client, and load the vocabulary that counts, now."""
        super().preload()
        Tokenizer(DEFAULT_MODEL).encode("")

    async def execute(self, messages: Any, context: Mapping[str, Any] | None = None) -> ConversationResult:
        """Answer in a conversation, and remember both.

        Args:
            messages: A string, OpenAI dicts or LangChain messages: what is new.
            context: `conversation_id` (or `thread_id`) and `instructions`, each optional.

        Raises:
            ConfigurationError: a message, an id or the instructions are not valid, or there is no API key.
            PatternError: it is part of a run of the same conversation.
            ContextTooLong: the new messages are longer than the limit by themselves.
            UnknownConversation: OpenAI does not have the conversation, or not any more.
            ConversationLocked: another process was at work on OpenAI's conversation for too long.
            RetiredModel: the model has been shut down.
            ResponseFailed: an answer ended in an error, or did not end.
            openai.APIError: a request was refused, or the connection failed, for the last time.
            Exception: whatever the store raises.
        """
        context = context or {}
        items = to_items(messages)
        params = given(instructions=instructions_of(context, self.config.system_prompt))
        conversation = self._conversation_of(context)
        async with turn(conversation, scope=id(self.store)), self._loaded(conversation) as history:
            if self.config.memory == "conversation":
                answer = await self._answer_in_thread(conversation, history, items, params)
            else:
                answer = await self._answer_here(conversation, history, items, params)
            await self.store.save(conversation, answer.history)
        return _result(conversation, answer)

    async def forget(self, conversation_id: str | None = None) -> None:
        """Forget a conversation, after its turn that is under way here. What a pattern made for it at OpenAI is
        deleted there too; a conversation that is called by OpenAI's own id stays there.

        Args:
            conversation_id: Which; by default the pattern's own.

        Raises:
            PatternError: it is part of a run of that conversation.
            openai.APIError: a request was refused, or the connection failed, for the last time.
            Exception: whatever the store raises.
        """
        conversation = conversation_id or self.conversation_id
        async with turn(conversation, scope=id(self.store)), self._loaded(conversation) as history:
            if history.thread_id not in (None, conversation):
                self._made.discard(history.thread_id)
                try:
                    await self.threads.delete(history.thread_id)
                except UnknownConversation:
                    pass
            await self.store.delete(conversation)

    def _conversation_of(self, context: Mapping[str, Any]) -> str:
        """Read the id of the conversation a run belongs to."""
        told = (context.get("conversation_id"), context.get("thread_id"), current_execution().info.conversation_id)
        chosen = next((each for each in told if each is not None), self.config.thread_id)
        if chosen is None:
            return self.conversation_id
        if self.config.memory == "conversation":
            return check_id("conversation_id", chosen)
        return checked_id("conversation_id", chosen)

    @asynccontextmanager
    async def _loaded(self, conversation: str) -> AsyncIterator[History]:
        history = await self.store.load(conversation)
        try:
            yield history or History()
        finally:
            with anyio.move_on_after(_RELEASE_TIMEOUT, shield=True):
                await self.store.release(conversation)

    async def _answer_in_thread(
        self, conversation: str, history: History, items: Sequence[Item], params: Mapping[str, Any]
    ) -> _Answer:
        if conversation.startswith("conv_"):
            thread_id = conversation
        elif history.thread_id is not None and (self.config.persistent_thread or history.thread_id in self._made):
            thread_id = history.thread_id
        else:
            thread_id = await self._make_thread()
            history = History(thread_id=thread_id)
            await self.store.save(conversation, history)  # whatever comes of the turn, the thread is there
        async with self._turn(thread_id):
            outcome, repaired = await self._run_on_thread(thread_id, items, params)
        return _Answer(outcome, History(thread_id=thread_id), repaired_calls=repaired)

    async def _answer_here(
        self, conversation: str, history: History, items: Sequence[Item], params: Mapping[str, Any]
    ) -> _Answer:
        fitted = await self._window.fit(history, items, params.get("instructions"))
        known, restarted = fitted.history, False
        if self.config.memory == "local":
            outcome = await self.tool_loop.run([*known.items, *items], params=params)
        else:
            outcome, restarted = await self._answer_after(conversation, known, items, params)
        said = without_open_reasoning(outcome.items)
        turns = await self._window.turns(deepcopy([*items, *said]))  # what is in the result is the caller's
        gone_on_from = self.config.memory == "response" and len(said) == len(outcome.items)
        response_id = outcome.response_id if gone_on_from else None
        grown = msgspec.structs.replace(known, turns=(*known.turns, *turns), response_id=response_id)
        return _Answer(outcome, grown, fitted, restarted)

    async def _answer_after(
        self, conversation: str, history: History, items: Sequence[Item], params: Mapping[str, Any]
    ) -> tuple[LoopOutcome, bool]:
        """Answer after the last answer, if OpenAI still has it; else have all sent anew, and say so."""
        turns = 0

        def count() -> None:
            nonlocal turns
            turns += 1

        stored = {**params, "store": True}
        if history.response_id is not None:
            after = {**stored, "previous_response_id": history.response_id}
            new = [*history.unsent, *items]
            try:
                return await self.tool_loop.run(new, params=after, kept="response", on_turn=count), False
            except (APIError, ResponseFailed) as error:
                if turns > 1 or not _is_gone(error):
                    raise
                if not history.items:
                    raise UnknownConversation(
                        conversation, f"OpenAI does not have answer {history.response_id!r}, or not any more"
                    ) from error
        whole = [*history.items, *items]
        outcome = await self.tool_loop.run(whole, params=stored, kept="response")
        return outcome, history.response_id is not None


def _is_gone(error: Exception) -> bool:
    """Tell whether OpenAI does not have the answer that a request goes on from."""
    if getattr(error, "code", None) == "previous_response_not_found":
        return True
    return status_code(error) in (400, 404) and getattr(error, "param", None) == "previous_response_id"


def _result(conversation: str, answer: _Answer) -> ConversationResult:
    outcome, fitted = answer.outcome, answer.fitted
    return outcome.as_result(
        ConversationResult,
        conversation_id=conversation,
        context_tokens=fitted.tokens if fitted else None,
        trimmed_turns=fitted.trimmed_turns if fitted else 0,
        summarised_turns=fitted.summarised_turns if fitted else 0,
        summary_error=fitted.summary_error if fitted else None,
        restarted=answer.restarted,
        repaired_calls=answer.repaired_calls,
        thread_id=answer.history.thread_id,
    )
