"""One callback handler that meters any LangChain model, tool or graph.

LangChain reports the start and the end of a thing in two calls, perhaps in two tasks: it runs `on_llm_end` in a task of
its own, with a copy of the context. The handler therefore keeps what it has entered under LangChain's id of the run.
Of a model call that is cancelled LangChain may report no end at all: the handler ends it together with the outermost
graph, or with its own `with` block.

LangGraph hands the handlers of a graph to the graphs and models that run within it, next to those they were given. So
one call may be reported to several handlers: the first enters it, for all of them, and whichever hears of its end first
ends it.

Where a budget applies, a request is reserved as it begins, and what is refused does not leave: the exception passes
through LangChain to the model's caller.
"""

import sys
from collections.abc import Callable, Mapping
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import msgspec
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.outputs import LLMResult

from runmeter.engine import (
    BudgetExceeded,
    Execution,
    ModelCall,
    Provenance,
    RunEnded,
    ToolCall,
    UnboundedRequest,
    Usage,
    current_execution,
    outside_run,
)

from ...requests.bounds import Sent, bound_late
from ...requests.retry import current_attempt, status_code, used_nothing
from ...tools.langchain_tools import metered_tool_run
from .entered import EnteredRuns
from .failures import as_failed, is_control_flow, read_failure
from .open_calls import OpenCall, OpenQuestion, OpenScope, Root, open_calls
from .requests import UNKNOWN, describe_request
from .usage import STREAM_CUT, estimate_here, estimate_usage


@dataclass(frozen=True, slots=True)
class Asking:
    """A pattern's own knowledge of a request that LangChain is about to make, and its promise to finish it."""

    run_id: UUID
    """LangChain's id: it will be given to `MeteringHandler.finish`."""
    stream: bool
    """LangChain does not say so of every model."""
    bound: Usage | None = None
    """The upper bound of what it can use, where that was worked out before."""


asking: ContextVar[Asking | None] = ContextVar("runmeter_asking", default=None)
"""The request that is about to be made."""


class MeteringHandler(BaseCallbackHandler):
    """Meters what runs under it, as part of the run that is current: each request to a model, each tool.

        with MeteringHandler() as meter:
            await graph.ainvoke(messages, {"callbacks": [meter]})

    It is synchronous and runs inline, so events have the right order and time. One handler may serve any number of
    graphs at once, and several handlers the same graph: what both see is counted once.

    In a thread that has lost its caller's context, a request belongs to the run whose `with` block this handler is in,
    if that is one run that has not ended. With none or several it belongs to no run: it is counted
    (`outside_requests`), the first is a warning in the log, and in the one engine that runs it is a run called
    `outside` without tags, and under its budgets. `runmeter.carry` takes a run along into any executor.


    Leaving the `with` block ends what was cancelled, so leave it when all are done. Without it, what was cancelled
    within a graph ends with the outermost graph. A bare model, run in no graph or chain, needs the block: without it, a
    request that is cancelled never ends, and has no usage. Outside an engine it does nothing.

    Budgets hold for all that it meters: a request that they have no room for raises `BudgetExceeded`, one without a
    known upper bound `UnboundedRequest`, out of the model. LangChain passes them on like any error of a
    model: `with_retry` tries in vain, `with_fallbacks` asks the next model, and `ToolNode` may tell a model of it.
    LangChain has no way to change a request here, so that `when_exceeded="lower"` refuses. What a client sends again
    by itself (`max_retries`) is one request here, unless the client is metered itself (`runmeter.meter`): else set that
    to 0, and use `with_retry`, for budgets to count each.
    For a budget, and for the bound of a request that failed, the request's tokens are counted in the calling thread:
    about a millisecond for a few thousand words, and a second the first time in a process. Next to other async
    handlers Python may complain, after a refusal, that one of LangChain's coroutines was never awaited.

    Args:
        stream: Whether answers are streamed, where LangChain does not say so.
    """

    run_inline = True

    @property
    def raise_error(self) -> bool:  # type: ignore[override]  # LangChain reads it only
        """True if an exception of this handler goes on, which LangChain asks while it handles it.

        What a budget refuses does, and what a run that has ended would begin. Anything else would be an error of ours,
        and not one of the user's run: it is logged (langchain-core 1.7.2, `handle_event` and
        `_ahandle_event_for_handler`).
        """
        error = sys.exc_info()[1]
        return error is None or isinstance(error, BudgetExceeded | UnboundedRequest | RunEnded)

    def __init__(self, *, stream: bool = False) -> None:
        self._stream = stream
        self._scopes: dict[UUID, OpenScope] = {}
        self._calls: dict[UUID, tuple[Root, OpenCall]] = {}
        self._root_of_adopted = Root(UUID(int=0))

        self._entered = EnteredRuns()
        self.outside_requests = 0
        """Requests heard of that belong to no run: counted by the engine, if one runs, as runs called `outside`."""

    def __enter__(self) -> Self:
        self._entered.enter()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        left = self._entered.leave()
        for run_id, (_, opened) in list(self._calls.items()):
            if not self._entered or opened.run is left:
                self.abandon(run_id, exc)
        if not self._entered:
            self._scopes.clear()

    def adopt(self, run_id: UUID) -> None:
        """Take in a chain whose start this handler has not heard of: what runs in it may go on until the block is left.

        Args:
            run_id: LangChain's id.
        """
        self._scopes[run_id] = OpenScope(self._root_of_adopted, copy_context())

    def abandon(self, run_id: UUID, error: BaseException | None) -> None:
        """End a call, if LangChain has reported no end of it.

        Args:
            run_id: LangChain's id.
            error: What kept it from ending.
        """
        opened = open_calls.pop(run_id, None)
        if opened is None:
            self._forget(run_id)
            return
        if not opened.ended:
            opened.error = error
            opened.record_cut()
            if error is None:
                opened.call.fail("abandoned", "it had not ended when what it belongs to did")
        self._close(run_id, opened)

    async def finish(self, run_id: UUID, error: BaseException | None, *, estimate: bool) -> None:
        """End a request whose usage was not reported: count in a worker thread what can be known of it.

        Does nothing if it has ended.

        Args:
            run_id: LangChain's id.
            error: What it failed with, or what kept it from ending.
            estimate: Whether to count what a complete answer used.
        """
        opened = open_calls.get(run_id)
        if opened is None or not isinstance(opened.call, ModelCall) or opened.question is None:
            return
        try:
            sent = opened.question.sent
            if estimate and opened.answer is not None and (usage := await estimate_usage(sent, opened.answer)):
                opened.call.record(usage, Provenance.ESTIMATED)
            await bound_late(opened.call, sent)
        finally:
            opened.question = None  # if there was no time for its bound, it has none
            self.abandon(run_id, error)

    # Graphs and chains

    def on_chain_start(
        self, serialized: Any, inputs: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **_: Any
    ) -> None:
        """Open the scope of a graph or chain that begins."""
        self._enter_scope(run_id, parent_run_id, copy_context())

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **_: Any) -> None:
        """Close the scope of a graph or chain that has ended."""
        self._leave_scope(run_id, None)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        """Close the scope of a graph or chain that has failed."""
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
        """Begin the call of a chat model: its request is about to leave."""
        params = kwargs.get("invocation_params") or {}
        known = asking.get()
        stream = self._stream or (known is not None and known.stream)
        request = describe_request(serialized, params, metadata or {}, operation=operation, stream=stream)
        question = OpenQuestion(request, serialized, params, messages[0] if messages else ())
        attempt = current_attempt.get()

        def make(execution: Execution) -> ModelCall:
            if not execution.budgeted:
                return execution.model_call(request, attempt=attempt)
            bound = (known and known.run_id == run_id and known.bound) or question.sent.bound_here()
            return execution.model_call(msgspec.structs.replace(request, bound=bound), attempt=attempt)

        try:
            self._start(run_id, parent_run_id, make, question, awaited=known is not None and known.run_id == run_id)
        except (BudgetExceeded, UnboundedRequest, RunEnded) as error:
            if request.model == UNKNOWN:
                error.add_note(f"LangChain does not know the name of this model: {(serialized or {}).get('name')}")
            self._drop_batch(params)
            raise

    def on_llm_start(self, serialized: Any, prompts: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Begin the call of a model for plain text: its request is about to leave."""
        self.on_chat_model_start(serialized, prompts, run_id=run_id, operation="text_completion", **kwargs)

    def on_llm_new_token(self, token: Any, *, chunk: Any = None, run_id: UUID, **_: Any) -> None:
        """Count a chunk of an answer that has come."""
        opened = open_calls.get(run_id)
        if opened is None or opened.owner is not self or not isinstance(opened.call, ModelCall):
            return
        opened.take(token, chunk)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        """End the call of a model whose answer is complete."""
        opened = open_calls.get(run_id)
        if opened is not None and isinstance(opened.call, ModelCall):
            answer = opened.read(response)
            answer.describe(opened.call)
            if answer.cut:
                opened.call.fail(*STREAM_CUT)
                opened.call.finish_reasons = ("error",)
                opened.record_cut(answer.usage)
            else:
                opened.record_whole(answer)
        self._end(run_id, None)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """End the call of a model that failed, perhaps in the middle of the answer."""
        opened = open_calls.get(run_id)
        failed = as_failed(error)
        if opened is not None and isinstance(opened.call, ModelCall):
            if failed is not None:
                opened.call.finish_reasons = ("error",)
            partial = kwargs.get("response")
            seen = opened.read(partial).usage if isinstance(partial, LLMResult) else None
            has_begun = seen is not None or opened.pieces > 0
            if not has_begun and used_nothing(error):
                opened.call.record(Usage())
            elif (answer := read_failure(error, partial)) is not None and answer.usage is not None:
                answer.describe(opened.call)
                answer.reading.record(opened.call)
            elif seen is not None or (failed is None and status_code(error) is None):
                opened.record_cut(seen)  # what the API calls a failure it may not bill, unless it says what was used
        self._end(run_id, failed or error)

    # Tools

    def on_tool_start(
        self, serialized: Any, input_str: str, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """Begin the call of a tool, unless it is one that is metered already."""
        context: Context | None = None
        if metered_tool_run.get() != run_id:
            name = (serialized or {}).get("name") or kwargs.get("name") or "unknown"
            call_id = kwargs.get("tool_call_id")
            context = self._start(run_id, parent_run_id, lambda execution: execution.function_call(name, call_id))
        self._enter_scope(run_id, parent_run_id, context or copy_context())

    def on_tool_end(self, output: Any, *, run_id: UUID, **_: Any) -> None:
        """End the call of a tool. Some tools return their error in place of raising it."""
        opened = open_calls.get(run_id)
        if opened is not None and getattr(output, "status", None) == "error":
            opened.call.fail("ToolFailed", str(getattr(output, "content", "")))
        self._end(run_id, None)
        self._leave_scope(run_id, None)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        """End the call of a tool that has failed. One that interrupts its graph, or hands over to another, has not."""
        self._end(run_id, None if is_control_flow(error) else error)
        self._leave_scope(run_id, error)

    # What is open

    def _enter_scope(self, run_id: UUID, parent_run_id: UUID | None, context: Context) -> None:
        root = self._root(run_id, parent_run_id)
        root.scopes.add(run_id)
        self._scopes[run_id] = OpenScope(root, context)

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

    def _root(self, run_id: UUID, parent_run_id: UUID | None) -> Root:
        parent = self._scopes.get(parent_run_id) if parent_run_id else None
        return parent.root if parent else Root(run_id)

    def _start(
        self,
        run_id: UUID,
        parent_run_id: UUID | None,
        make: Callable[[Execution], ModelCall | ToolCall],
        question: OpenQuestion | None = None,
        *,
        awaited: bool = False,
    ) -> Context | None:
        """Enter a call, unless another handler has.

        It is entered here, or, in a thread that has no context, in a copy of the one it belongs to, which is returned.
        """
        opened = open_calls.get(run_id)
        if opened is None:
            context: Context | None = None
            outside: Execution | None = None
            if not current_execution().is_metered:
                context = self._find_context(parent_run_id)
                if context is None:
                    if question is None or (entered := self._enter_outside()) is None:
                        return None
                    context, outside = entered
            try:
                run, call = context.run(_enter, make) if context else _enter(make)
            except BaseException as error:
                if outside is not None:
                    outside.__exit__(type(error), error, error.__traceback__)
                raise
            if context is not None and isinstance(call, ModelCall):
                call.hold_here()
            opened = open_calls[run_id] = OpenCall(
                self, self._forget, run, call, context, question, awaited, outside=outside
            )
            if outside is not None:  # which may end before, with its engine
                outside.at_end = (partial(self._give_up, run_id), *outside.at_end)
        root = self._root(run_id, parent_run_id)
        root.calls.add(run_id)
        self._calls[run_id] = root, opened
        return opened.context

    def _find_context(self, parent_run_id: UUID | None) -> Context | None:
        """Find a run's context for what comes without one: its parent's, or the one this handler was entered in."""
        parent = self._scopes.get(parent_run_id) if parent_run_id else None
        context = parent.context.copy() if parent else None  # a copy: one context can be entered only once
        if context is not None and context.run(current_execution).is_metered:
            return context
        return self._entered.context()

    def _enter_outside(self) -> tuple[Context, Execution] | None:
        """Count a request that belongs to no run; begin a run of its own for it if there is an engine to have it."""
        self.outside_requests += 1
        run = outside_run()
        if run is None:
            return None
        context = copy_context()
        context.run(run.__enter__)
        return context, run

    def _give_up(self, run_id: UUID) -> None:
        """End a request that is in a run of its own, if it has not ended when that does."""
        opened = open_calls.get(run_id)
        if opened is None:
            return
        if isinstance(opened.call, ModelCall) and opened.question is not None and opened.call.bound is None:
            opened.call.bound = opened.question.sent.bound_here(by_bytes=True)
        self.abandon(run_id, None)

    def _drop_batch(self, params: Mapping[str, Any]) -> None:
        """End the requests of a batch that LangChain has started: one was refused, so that none of them leaves."""
        for run_id, (_, opened) in list(self._calls.items()):
            if opened.question is not None and opened.question.params is params:
                opened.call.fail("batch_refused", "a budget refused another request of its batch, so it did not leave")
                if isinstance(opened.call, ModelCall):
                    opened.call.record(Usage())
                self._end(run_id, None)

    def _end(self, run_id: UUID, error: BaseException | None) -> None:
        """Note that a call has ended, and close it, unless `finish` will."""
        opened = open_calls.pop(run_id, None)
        if opened is None:
            self._forget(run_id)
            return
        opened.ended, opened.error = True, error
        if not (opened.awaited and opened.unreported):
            self._close(run_id, opened)
            return
        open_calls[run_id] = opened
        if opened.owner is not self:
            self._forget(run_id)

    def _close(self, run_id: UUID, opened: OpenCall) -> None:
        self._forget(run_id)
        opened.forget(run_id)
        call, error = opened.call, opened.error
        if isinstance(call, ModelCall) and opened.question is not None and opened.unreported:
            _count_here(call, opened.question.sent, opened.answer)
        how = (type(error) if error else None), error, (error.__traceback__ if error else None)
        call.__exit__(*how)
        if opened.outside is not None:
            opened.outside.__exit__(*how)

    def _forget(self, run_id: UUID) -> None:
        root, _ = self._calls.pop(run_id, (None, None))
        if root is not None:
            root.calls.discard(run_id)


def _count_here(call: ModelCall, sent: Sent, answer: AIMessage | None) -> None:
    """Say what can be known of a request whose usage was not reported, in this thread: its bound, and if it has an
    answer an estimate."""
    if answer is not None and (usage := estimate_here(sent, answer)):
        call.record(usage, Provenance.ESTIMATED)
    if call.bound is None:
        call.bound = sent.bound_here()


def _enter(make: Callable[[Execution], ModelCall | ToolCall]) -> tuple[Execution, ModelCall | ToolCall]:
    run = current_execution()
    return run, make(run).__enter__()
