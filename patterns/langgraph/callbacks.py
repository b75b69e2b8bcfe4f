"""One callback handler that meters any LangChain model, tool or graph.

LangChain reports the start and the end of a thing in two calls, perhaps in two tasks: it runs `on_llm_end` in a task of
its own, with a copy of the context. The handler therefore keeps what it has entered under LangChain's id of the run.
Of a model call that is cancelled LangChain may report no end at all: the handler ends it together with the outermost
graph, or with its own `with` block.

LangGraph hands the handlers of a graph to the graphs and models that run within it, next to those they were given. So
one call may be reported to several handlers: the first enters it, for all of them, and whichever hears of its end first
ends it.
"""

from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from uuid import UUID
from weakref import WeakValueDictionary

import msgspec
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.outputs import LLMResult

from runmeter.engine import Execution, ModelCall, Provenance, ToolCall, Usage, current_execution

from ..retry import current_attempt, is_connection_loss, used_nothing
from ..tools import metered_tool_run
from .requests import describe_request
from .usage import STREAM_CUT, read_answer

answer_is_streamed: ContextVar[bool] = ContextVar("runmeter_answer_is_streamed", default=False)
"""Whether the answer that is being asked for is streamed: LangChain does not say so of every model."""

_OUTSIDE = Context().run(current_execution)
"""The handle there is where there is no run."""


@dataclass(slots=True, eq=False)
class _Root:
    """The outermost graph, chain, tool or model: when it ends, so does all that is left of it."""

    run_id: UUID
    scopes: set[UUID] = field(default_factory=set)
    calls: set[UUID] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class _Scope:
    """A graph, chain or tool that has not ended: other things run within it."""

    root: _Root
    context: Context
    """Its context, for callbacks that come from threads without one."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class _Open:
    """A call that has not ended."""

    owner: "MeteringHandler"
    """The handler that entered it, and counts its chunks."""
    call: ModelCall | ToolCall
    context: Context | None
    """The one it was entered in, if that was not the current one."""
    pieces: int = 0
    """Chunks with text, or with a part of a tool call, that a model has streamed: a token each, or more."""


_open_calls: WeakValueDictionary[UUID, _Open] = WeakValueDictionary()
"""Those of all handlers, which keep them alive."""


class MeteringHandler(BaseCallbackHandler):
    """Meters what runs under it, as part of the run that is current: each request to a model, each tool.

        with MeteringHandler() as meter:
            await graph.ainvoke(messages, {"callbacks": [meter]})

    It is synchronous and runs inline, so events have the right order and time. One handler may serve any number of
    graphs at once, in any threads, and several handlers the same graph: what both see is counted once.

    Leaving the `with` block ends what was cancelled, so leave it when all are done. Without it, what was cancelled
    within a graph ends with the outermost graph. A bare model, run in no graph or chain, needs the block: without it, a
    request that is cancelled never ends, and has no usage. Outside an engine it does nothing.

    Args:
        stream: Whether answers are streamed, where LangChain does not say so.
    """

    run_inline = True

    def __init__(self, *, stream: bool = False) -> None:
        self._stream = stream
        self._scopes: dict[UUID, _Scope] = {}
        self._calls: dict[UUID, tuple[_Root, _Open]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for run_id in list(self._calls):
            self.abandon(run_id, error)
        self._scopes.clear()

    def abandon(self, run_id: UUID, error: BaseException | None) -> None:
        """End a call, if LangChain has reported no end of it.

        Args:
            run_id: LangChain's id.
            error: What kept it from ending.
        """
        opened = _open_calls.get(run_id)
        if opened is not None:
            _record_cut(opened, None)
            if error is None:
                opened.call.fail("abandoned", "it had not ended when what it belongs to did")
        self._end(run_id, error)

    # Graphs and chains

    def on_chain_start(
        self, serialized: Any, inputs: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **_: Any
    ) -> None:
        """Something begins that other things run within."""
        self._enter_scope(run_id, parent_run_id, copy_context())

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **_: Any) -> None:
        """It has ended."""
        self._leave_scope(run_id, None)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        """It has failed."""
        self._leave_scope(run_id, error)

    # Models

    def on_chat_model_start(
        self,
        serialized: Any,
        messages: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        operation: str = "chat",
        **kwargs: Any,
    ) -> None:
        """A request to a model is about to leave."""
        params = kwargs.get("invocation_params") or {}
        request = describe_request(
            serialized, params, metadata or {}, operation=operation, stream=self._stream or answer_is_streamed.get()
        )
        attempt = current_attempt.get()
        self._start(run_id, parent_run_id, lambda execution: execution.model_call(request, attempt=attempt))

    def on_llm_start(self, serialized: Any, prompts: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """The same, to a model for plain text."""
        self.on_chat_model_start(serialized, prompts, run_id=run_id, operation="text_completion", **kwargs)

    def on_llm_new_token(self, token: Any, *, chunk: Any = None, run_id: UUID, **_: Any) -> None:
        """A chunk of its answer has come."""
        opened = _open_calls.get(run_id)
        if opened is None or opened.owner is not self or not isinstance(opened.call, ModelCall):
            return
        if token or getattr(getattr(chunk, "message", None), "tool_call_chunks", None):
            opened.call.first_chunk()
            opened.pieces += _says_something(token, chunk)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        """Its answer is complete."""
        opened = _open_calls.get(run_id)
        if opened is not None and isinstance(opened.call, ModelCall):
            answer = read_answer(response)
            answer.describe(opened.call)
            if answer.cut:
                opened.call.fail(*STREAM_CUT)
            if answer.usage is not None:
                opened.call.record(answer.usage)
            else:  # a stream that ended too soon, or a model that does not say
                _record_cut(opened, None)
        self._end(run_id, None)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """It failed, perhaps in the middle of the answer."""
        opened = _open_calls.get(run_id)
        if opened is not None and isinstance(opened.call, ModelCall):
            if used_nothing(error):
                opened.call.record(Usage())
            elif is_connection_loss(error) or not isinstance(error, Exception):  # a failure may not have been billed
                partial = kwargs.get("response")
                _record_cut(opened, read_answer(partial).usage if isinstance(partial, LLMResult) else None)
        self._end(run_id, error)

    # Tools

    def on_tool_start(
        self, serialized: Any, input_str: str, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """A tool begins, unless it is one that is metered already."""
        context: Context | None = None
        if metered_tool_run.get() != run_id:
            name = (serialized or {}).get("name") or kwargs.get("name") or "unknown"
            call_id = kwargs.get("tool_call_id")
            context = self._start(run_id, parent_run_id, lambda execution: execution.function_call(name, call_id))
        self._enter_scope(run_id, parent_run_id, context or copy_context())

    def on_tool_end(self, output: Any, *, run_id: UUID, **_: Any) -> None:
        """It has ended. Some tools return their error in place of raising it."""
        opened = _open_calls.get(run_id)
        if opened is not None and getattr(output, "status", None) == "error":
            opened.call.fail("ToolFailed", str(getattr(output, "content", "")))
        self._end(run_id, None)
        self._leave_scope(run_id, None)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        """It has failed."""
        self._end(run_id, error)
        self._leave_scope(run_id, error)

    # What is open

    def _enter_scope(self, run_id: UUID, parent_run_id: UUID | None, context: Context) -> None:
        root = self._root(run_id, parent_run_id)
        root.scopes.add(run_id)
        self._scopes[run_id] = _Scope(root, context)

    def _leave_scope(self, run_id: UUID, error: BaseException | None) -> None:
        scope = self._scopes.pop(run_id, None)
        if scope is None:
            return
        scope.root.scopes.discard(run_id)
        if scope.root.run_id == run_id:
            for call_id in list(scope.root.calls):
                self.abandon(call_id, error)
            for scope_id in scope.root.scopes:
                self._scopes.pop(scope_id, None)

    def _root(self, run_id: UUID, parent_run_id: UUID | None) -> _Root:
        parent = self._scopes.get(parent_run_id) if parent_run_id else None
        return parent.root if parent else _Root(run_id)

    def _start(
        self, run_id: UUID, parent_run_id: UUID | None, make: Callable[[Execution], ModelCall | ToolCall]
    ) -> Context | None:
        """Enter a call, unless another handler has.

        It is entered here, or, in a thread that has no context, in a copy of the parent's, which is returned.
        """
        opened = _open_calls.get(run_id)
        if opened is None:
            context: Context | None = None
            if current_execution() is _OUTSIDE:
                parent = self._scopes.get(parent_run_id) if parent_run_id else None
                context = parent.context.copy() if parent else None  # a copy: one context can be entered only once
                if context is None or context.run(current_execution) is _OUTSIDE:
                    return None
            call = context.run(_enter, make) if context else _enter(make)
            opened = _open_calls[run_id] = _Open(self, call, context)
        root = self._root(run_id, parent_run_id)
        root.calls.add(run_id)
        self._calls[run_id] = root, opened
        return opened.context

    def _end(self, run_id: UUID, error: BaseException | None) -> None:
        """End a call, unless another handler has."""
        opened = _open_calls.pop(run_id, None)
        root, _ = self._calls.pop(run_id, (None, None))
        if root is not None:
            root.calls.discard(run_id)
        if opened is not None:
            opened.call.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)


def _enter(make: Callable[[Execution], ModelCall | ToolCall]) -> ModelCall | ToolCall:
    return make(current_execution()).__enter__()


def _record_cut(opened: _Open, usage: Usage | None) -> None:
    """Say what is known to have been used at the least; if nothing came, it stays unknown."""
    call = opened.call
    if not isinstance(call, ModelCall):
        return
    if usage is not None or opened.pieces:
        usage = usage or Usage()
        least = max(usage.output_tokens, opened.pieces)
        call.record(msgspec.structs.replace(usage, output_tokens=least), Provenance.PARTIAL)


def _says_something(token: Any, chunk: Any) -> bool:
    """Whether a chunk carries a part of the answer, and not only news of it."""
    if isinstance(token, str) and token:
        return True
    calls = getattr(getattr(chunk, "message", None), "tool_call_chunks", None) or ()
    if any(call.get("args") for call in calls):
        return True
    return not isinstance(token, str) and any(isinstance(block, str) or block.get("text") for block in token or ())
