"""Assistant: a model with instructions and tools that works on threads, which OpenAI keeps."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from runmeter.engine import AssistantCall, current_execution

from ..base import PatternResult
from ..config import PatternType
from ..context import instructions_of
from ..messages import Item, to_items
from .responses.tool_loop import LoopOutcome, given
from .threads.pattern import OpenAIThreadConfig, ThreadPattern
from .threads.threads import check_id


@dataclass(frozen=True, kw_only=True)
class OpenAIAssistantConfig(OpenAIThreadConfig):
    """Settings of an assistant, beyond those of every OpenAI pattern.

    Of the other fields it reads `assistant_id`, its name in statistics; `assistant_instructions`, else `system_prompt`;
    `assistant_tools`; `thread_id`; and `persistent_thread`, without which the threads it makes are deleted. `store`
    does not matter: OpenAI keeps what is said in a thread.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("assistant_id", "thread_id"):
            if getattr(self, name) is not None:
                check_id(name, getattr(self, name))


class AssistantResult(PatternResult, frozen=True, kw_only=True):
    """Result of an assistant's run in a thread."""

    thread_id: str
    """The thread it ran in. Unless threads are persistent, one made for this run is deleted by now."""
    thread: Literal["created", "resumed"]
    """Whether the run made the thread."""
    repaired_calls: int = 0
    """Calls of earlier runs, or of an attempt whose answer was lost, that were never answered, and of which the model
    was told that they were interrupted."""


class OpenAIAssistantPattern(ThreadPattern):
    """An assistant as the Assistants API had them, on Responses and Conversations: a thread is a conversation, a run is
    one tool loop in it, and the configuration is code.

    A run's thread is the first of these: `thread_id` in its context, the config's `thread_id`, its conversation id
    (`engine.run(..., conversation_id=...)`). Else it gets a new one of its own, so that runs never see each other's
    messages; that is deleted when the run has ended, however it ends, unless the config says `persistent_thread`.
    Threads made with `create_thread` are deleted when the pattern is closed, unless persistent.

    Runs of one thread take turns within an event loop. Where another process has locked it, the run tries again for
    `lock_timeout` seconds. That lock is held for each request, not for the whole run: two processes must not run tool
    loops in one thread at once, or one may repair what the other is about to answer.

    A run that fails or is cancelled leaves in the thread what was said until then. If that ended in calls without
    outputs, the next run answers them as interrupted, and says how many. A request whose answer was lost on the way may
    be in the thread twice: once from each attempt.

    Of the context of a run it also reads `instructions`, in place of the config's.

    Args:
        config: An `OpenAIPatternConfig`, or an `OpenAIAssistantConfig`.
        tools: What the model may call.
        ws_streaming: See `BasePattern`.
        retry: When to try a request again; by default what the config says.
        client: The client to ask with; by default one that the config describes. The pattern does not close it.

    Raises:
        ConfigurationError: the config is of another kind, one of `tools` is not a tool, or an id is one of the
            Assistants API.
    """

    pattern_type = PatternType.OPENAI_ASSISTANT
    config_type = OpenAIAssistantConfig
    config: OpenAIAssistantConfig

    async def execute(self, messages: Any, context: Mapping[str, Any] | None = None) -> AssistantResult:
        """Answer messages in a thread.

        Args:
            messages: A string, OpenAI dicts or LangChain messages: what is new, the thread has the rest.
            context: `thread_id` and `instructions`, each optional.

        Raises:
            ConfigurationError: a message, an id or the instructions are not valid, or there is no API key.
            PatternError: it is part of a run in the same thread.
            UnknownConversation: the thread does not exist, or not any more.
            ConversationLocked: another process was at work on it for too long.
            RetiredModel: the model has been shut down.
            ResponseFailed: an answer ended in an error, or did not end.
            openai.APIError: a request was refused, or the connection failed, for the last time.
        """
        context = context or {}
        items = to_items(messages)
        default = self.config.assistant_instructions or self.config.system_prompt
        params = given(instructions=instructions_of(context, default))
        thread_id = self._thread_of(context)
        assistant = self.config.assistant_id or self.name
        if thread_id is not None:
            async with self._turn(thread_id):
                with current_execution().assistant_run(assistant, thread_id, "resumed") as call:
                    outcome, repaired = await self._run(call, thread_id, items, params)
            return _result(outcome, thread_id, "resumed", repaired)
        try:
            with current_execution().assistant_run(assistant, thread="created") as call:
                thread_id = call.thread_id = await self.threads.create()
                outcome, repaired = await self._run(call, thread_id, items, params)
        finally:
            if thread_id is not None and not self.config.persistent_thread:
                await self.threads.discard([thread_id])
        return _result(outcome, thread_id, "created", repaired)

    async def create_thread(self, metadata: Mapping[str, str] | None = None) -> str:
        """Make a new thread. Unless the config says `persistent_thread`, it is deleted when the pattern is closed.

        Args:
            metadata: Up to 16 pairs to keep with it.

        Returns:
            Its id.

        Raises:
            openai.APIError: a request was refused, or the connection failed, for the last time.
        """
        return await self._make_thread(metadata)

    async def delete_thread(self, thread_id: str) -> None:
        """Delete a thread, after the runs in it that are under way here.

        Raises:
            ConfigurationError: it is an id of the Assistants API, or none at all.
            PatternError: it is part of a run in that thread.
            UnknownConversation: the thread does not exist, or not any more.
            openai.APIError: a request was refused, or the connection failed, for the last time.
        """
        async with self._turn(check_id("thread_id", thread_id)):
            await self.threads.delete(thread_id)
            self._made.discard(thread_id)

    async def list_items(
        self, thread_id: str, *, order: Literal["asc", "desc"] = "asc", limit: int | None = None
    ) -> tuple[Item, ...]:
        """List what was said in a thread, as Responses items.

        Args:
            thread_id: Its id.
            order: `asc` for the oldest first, `desc` for the newest.
            limit: How many at most; None for all.

        Raises:
            ConfigurationError: it is an id of the Assistants API, or none at all.
            UnknownConversation: the thread does not exist, or not any more.
            openai.APIError: a request was refused, or the connection failed, for the last time.
        """
        return await self.threads.items(check_id("thread_id", thread_id), order=order, limit=limit)

    def _thread_of(self, context: Mapping[str, Any]) -> str | None:
        """Read the id of the thread a run is told to run in."""
        if context.get("thread_id") is not None:
            return check_id("context['thread_id']", context["thread_id"])
        if self.config.thread_id is not None:
            return self.config.thread_id
        conversation_id = current_execution().info.conversation_id
        return None if conversation_id is None else check_id("conversation_id", conversation_id)

    async def _run(
        self, call: AssistantCall, thread_id: str, items: list[Item], params: Mapping[str, Any]
    ) -> tuple[LoopOutcome, int]:
        def on_turn(number: int) -> None:
            call.steps = number

        return await self._run_on_thread(thread_id, items, params, on_turn)


def _result(
    outcome: LoopOutcome, thread_id: str, thread: Literal["created", "resumed"], repaired_calls: int
) -> AssistantResult:
    return outcome.as_result(
        AssistantResult,
        conversation_id=thread_id,
        thread_id=thread_id,
        thread=thread,
        repaired_calls=repaired_calls,
    )
