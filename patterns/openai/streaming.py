"""Streaming: the answer is handed out while the model writes it, to `engine.stream` and to a WebSocket."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import anyio

from runmeter.engine import Provenance, TokenUsage, Usage, current_execution

from ..base import PatternResult
from ..config import OpenAIPatternConfig, PatternType, Seconds
from ..context import instructions_of
from ..delivery import Delivery
from ..errors import ListenerGone, PatternError
from ..messages import to_items
from ..text import valid
from ..tools.toolbox import CallAllowance, FunctionRequest, FunctionResult, Toolbox
from .base import OpenAIBasePattern
from .responses.tool_loop import ToolLoop, given

_FAREWELL = 1.0
"""Seconds to tell a WebSocket why the run ends."""
_NO_DETAILS = "the answer could not be completed"
_CANCELLED = "the run was ended before its answer was complete"


@dataclass(frozen=True, kw_only=True)
class OpenAIStreamingConfig(OpenAIPatternConfig):
    """Settings of streaming, beyond those of every OpenAI pattern. `stream_responses` is always true here.

    A listener that is slow holds the request up, whose time is limited by `request_timeout`.
    """

    announce_function_calls: bool = True
    """Whether the WebSocket is told of each function call: when it begins, and when it ends."""
    send_timeout: Seconds | None = 60.0
    """Seconds the WebSocket may take for a message; then it counts as gone. None lets it take forever."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "stream_responses", True)


class StreamingResult(PatternResult, frozen=True, kw_only=True):
    """Result of a streamed run, with the count and time of its pieces."""

    chunks: int
    """Pieces of text that came, those of attempts that were repeated included."""
    first_chunk_ns: int | None
    """From the start of `execute` to the first of them, function calls before it included; None if there was none. The
    time of each request's own first chunk is in its `TokenUsage`."""


class OpenAIStreamingPattern(OpenAIBasePattern):
    """Asks the model and hands its answer out piece by piece; makes function calls as `openai_function_calling` does.

    Pieces go to the reader of `Engine.stream`, and to a WebSocket: the one in the run's context, or else the
    constructor's. A slow reader holds the request up: no more of the answer is read than was taken. A reader that
    leaves ends the run: the request is cancelled, and its usage is `partial`, as far as it is known.

    A WebSocket gets JSON messages. Each has a `type` and the `run_id`:

    | type | also has |
    |---|---|
    | `started` | |
    | `delta` | `text` |
    | `function_call` | `name`, `call_id`, `status` (`begin` or `end`), `error_type` at the end |
    | `finished` | `content`, `finish_reason`, `usage`: input, output and total tokens; null if not known |
    | `error` | `code`, `message` |

    What goes wrong is told without details, unless the model's own service reported it within its answer.

    Of the context of a run it reads `ws_streaming`, a WebSocket for this run alone; `instructions`, in place of
    `system_prompt`; and `previous_response_id`, an answer that OpenAI has stored and this run goes on from.
    """

    pattern_type = PatternType.OPENAI_STREAMING
    config_type = OpenAIStreamingConfig
    config: OpenAIStreamingConfig

    async def execute(self, messages: Any, context: Mapping[str, Any] | None = None) -> StreamingResult:
        """Answer messages, piece by piece.

        Args:
            messages: A string, OpenAI dicts or LangChain messages.
            context: `ws_streaming`, `instructions` and `previous_response_id`, each optional.

        Raises:
            ConfigurationError: a message or the WebSocket is not valid, or there is no API key.
            RetiredModel: the model has been shut down.
            ListenerGone: the WebSocket failed, or took nothing for too long. That the client has left shows with the
                first message after.
            ResponseFailed: an answer ended in an error, or did not end.
            openai.APIError: a request was refused, or the connection failed, for the last time.
        """
        context = context or {}
        socket = context.get("ws_streaming")
        live = _Live(self.delivery if socket is None else Delivery(socket), self.config.send_timeout)
        requests = current_execution().requests
        earlier = len(requests)
        params = given(
            instructions=instructions_of(context, self.config.system_prompt),
            previous_response_id=context.get("previous_response_id"),
        )
        try:
            await live.say("started")
            outcome = await self._loop(live).run(to_items(messages), params=params)
            usage = _usage_of(requests[earlier:])
            await live.say("finished", content=outcome.text, finish_reason=outcome.finish_reason, usage=usage)
        except (Exception, anyio.get_cancelled_exc_class()) as error:
            await live.say_why(error)
            raise
        return outcome.as_result(
            StreamingResult,
            chunks=live.chunks,
            first_chunk_ns=live.first_chunk_ns,
        )

    def _loop(self, live: "_Live") -> ToolLoop:
        """Make a tool loop for one run, since each may have a listener of its own."""
        config, toolbox = self.config, self.toolbox
        if config.announce_function_calls:
            toolbox = _AnnouncedToolbox(toolbox, live, timeout=config.tool_timeout, parallel=config.parallel_tool_calls)
        return ToolLoop(config, toolbox, self.responses.to(live), live)


class _Live(Delivery):
    """Delivery of one run: counts its pieces, and tells its WebSocket what else happens.

    Args:
        target: Where it all goes; several runs may share it.
        patience: Seconds it may take for a message.
    """

    def __init__(self, target: Delivery, patience: float | None) -> None:
        super().__init__()
        self._target = target
        self._patience = patience
        self._gone = False
        self._clock = current_execution().runtime.clock
        self._start_ns = self._clock.monotonic_ns()
        self.chunks = 0
        self.first_chunk_ns: int | None = None

    @property
    def wanted(self) -> bool:
        """True if a stream or a WebSocket takes pieces."""
        return self._target.wanted

    async def delta(self, text: str) -> None:
        """Hand out a piece of the answer."""
        self.chunks += 1
        if self.first_chunk_ns is None:
            self.first_chunk_ns = self._clock.monotonic_ns() - self._start_ns
        await super().delta(text)

    async def tell(self, message: dict[str, Any]) -> None:
        """Send the WebSocket a message, if there is one.

        Raises:
            ListenerGone: it does not take it.
        """
        try:
            with anyio.fail_after(self._patience):
                await self._target.tell(message)
        except ListenerGone:
            self._gone = True
            raise
        except TimeoutError as error:
            self._gone = True
            raise ListenerGone(type(error).__name__) from error

    async def say(self, kind: str, **fields: Any) -> None:
        """Tell the WebSocket what happens."""
        await self.tell(valid({"type": kind, "run_id": current_execution().run_id, **fields}))

    async def say_why(self, error: BaseException) -> None:
        """Tell the WebSocket why the run ends, if it still listens."""
        if self._gone:
            return
        with anyio.move_on_after(_FAREWELL, shield=True), suppress(ListenerGone):
            await self.say("error", code=_code_of(error), message=_message_of(error))


class _AnnouncedToolbox(Toolbox):
    """The tools of a run whose WebSocket is told of each call."""

    def __init__(self, toolbox: Toolbox, live: _Live, *, timeout: float | None, parallel: bool) -> None:
        super().__init__(toolbox, timeout=timeout, parallel=parallel)
        self._live = live

    async def answer(
        self, requests: Sequence[FunctionRequest], allowance: CallAllowance, *, complete: bool = True
    ) -> list[FunctionResult]:
        """Answer function calls, each announced; see `Toolbox.answer`."""
        try:
            return await super().answer(requests, allowance, complete=complete)
        except ExceptionGroup as group:  # of calls at once: tools raise nothing, so it is the listener that has gone
            raise group.exceptions[0] from None

    async def _call(self, request: FunctionRequest) -> FunctionResult:
        about = {"name": request.name, "call_id": request.call_id}
        await self._live.say("function_call", status="begin", **about)
        result = await super()._call(request)
        await self._live.say("function_call", status="end", error_type=result.error_type, **about)
        return result


def _usage_of(requests: Sequence[TokenUsage]) -> dict[str, int] | None:
    """Sum the usage of requests; None if that is not known of all, or no engine measures."""
    known = [each.usage for each in requests if each.usage is not None and each.provenance is not Provenance.PARTIAL]
    if not known or len(known) < len(requests):
        return None
    total = sum(known, start=Usage())
    return {
        "input_tokens": total.input_tokens,
        "output_tokens": total.output_tokens,
        "total_tokens": total.total_tokens,
    }


def _code_of(error: BaseException) -> str:
    if not isinstance(error, Exception):
        return "cancelled"
    code = getattr(error, "code", None)
    return code if isinstance(code, str) and code else type(error).__name__


def _message_of(error: BaseException) -> str:
    """Write an error's message for a listener: others' messages may name accounts and addresses."""
    if not isinstance(error, Exception):
        return _CANCELLED
    return str(error) if isinstance(error, PatternError) else _NO_DETAILS
