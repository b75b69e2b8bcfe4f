"""What the patterns that run on threads share: turns, patience with locks, repair, and deletion at the end."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta
from openai import APIError

from ...config import OpenAIPatternConfig, PatternConfig, check_config, specialise
from ...errors import ResponseFailed
from ...messages import Item
from ...requests.retry import RetryPolicy
from ...requests.turns import turn
from ...tools.tool import ToolLike
from ..base import OpenAIBasePattern
from ..responses.tool_loop import LoopOutcome
from .threads import LockPatience, Threads, clear_errors, is_unanswered, missing_outputs

if TYPE_CHECKING:
    from openai import AsyncOpenAI


@dataclass(frozen=True, kw_only=True)
class OpenAIThreadConfig(OpenAIPatternConfig):
    """Settings of a pattern on threads, beyond those of every OpenAI pattern."""

    lock_timeout: Annotated[float, Meta(ge=0)] = 30.0
    """Seconds to wait while another process is at work on the thread. Runs of this process wait for each other without
    a limit of this kind."""


class ThreadPattern(OpenAIBasePattern):
    """Base class of patterns that can run on threads, which are conversations of OpenAI's.

    Args:
        config: An `OpenAIPatternConfig`, or the pattern's own.
        tools: What the model may call.
        ws_streaming: See `BasePattern`.
        retry: When to try a request again; by default what the config says. Locked threads have a patience of their
            own, the config's `lock_timeout`.
        client: The client to ask with, such as `AsyncAzureOpenAI(...)` or one with proxies, certificates or headers of
            its own; by default one that the config describes. The pattern does not close it.

    Raises:
        ConfigurationError: the config is of another kind, or one of `tools` is not a tool.
    """

    config_type = OpenAIThreadConfig
    config: OpenAIThreadConfig

    def __init__(
        self,
        config: PatternConfig,
        tools: Iterable[ToolLike] | None = None,
        ws_streaming: Any = None,
        *,
        retry: RetryPolicy | None = None,
        client: "AsyncOpenAI | None" = None,
    ) -> None:
        check_config(self.pattern_type, self.accepted_config, config)
        own = specialise(self.pattern_type, self.config_type, config)
        base = retry or RetryPolicy(max_retries=own.max_retries)
        patience = LockPatience(base=base, sleep=base.sleep, lock_timeout=own.lock_timeout)
        super().__init__(own, tools, ws_streaming, retry=patience, client=client)
        self.threads = Threads(self.clients, patience)
        self._made: set[str] = set()
        """Threads to be deleted when the pattern is closed."""

    async def aclose(self) -> None:
        """Delete the threads the pattern has made, unless they are persistent, and close the clients.

        What cannot be deleted within some seconds is logged, and left at OpenAI.
        """
        made, self._made = self._made, set()
        if made:
            await self.threads.discard(made)
        await super().aclose()

    async def _make_thread(self, metadata: Mapping[str, str] | None = None) -> str:
        """Make a thread that lives as long as the pattern, or longer if it is persistent."""
        thread_id = await self.threads.create(metadata)
        if not self.config.persistent_thread:
            self._made.add(thread_id)
        return thread_id

    def _turn(self, thread_id: str) -> AbstractAsyncContextManager[None]:
        """Have a thread to oneself for a turn."""
        return turn(thread_id, scope=str(self.clients.get().base_url))

    async def _run_on_thread(
        self,
        thread_id: str,
        items: Sequence[Item],
        params: Mapping[str, Any],
        on_turn: Callable[[int], None] | None = None,
    ) -> tuple[LoopOutcome, int]:
        """Have the model answer in a thread. The caller has the turn.

        Args:
            thread_id: Its id.
            items: What the model is told.
            params: What `client.responses.create` takes beyond the config's.
            on_turn: Told the number of each answer that is about to be asked for.

        Returns:
            How it went, and how many calls of earlier runs had to be answered first.
        """
        # Without store, OpenAI adds nothing to the conversation (as reported: smg-project/smg#916, 2026-03).
        params = {**params, "conversation": thread_id, "store": True}
        turns = 0

        def count() -> None:
            nonlocal turns
            turns += 1
            if on_turn is not None:
                on_turn(turns)

        async def ask(items: Sequence[Item]) -> LoopOutcome:
            nonlocal turns
            turns = 0
            return await self.tool_loop.run(items, params=params, kept="conversation", on_turn=count)

        with clear_errors(thread_id, self.config.lock_timeout):
            try:
                return await ask(items), 0
            except (APIError, ResponseFailed) as error:
                if turns > 1 or not is_unanswered(error):
                    raise
                outputs = missing_outputs(await self.threads.items(thread_id), items)
                if not outputs:
                    raise
            return await ask([*outputs, *items]), len(outputs)
