"""The handle of a run: it makes the handles of calls, and emits the events of the run itself."""

import logging
from collections.abc import Callable
from contextlib import nullcontext
from contextvars import ContextVar
from itertools import count
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import msgspec

from ..budgets.reservation import Scope
from ..budgets.reserving import BudgetedRequest, Claim, Reserving, claim, lease
from ..calls.endings import error_type, status_of
from ..calls.model_call import ModelCall
from ..calls.work import AssistantCall, RetrievalCall, ToolCall
from ..errors import RunAborted, RunEnded, RunTimeout
from ..events import Event, ExecutionFinished, ExecutionStarted, Notice, Status, TokenUsage, TraceContext
from ..request import ModelRequest
from ..runtime import MAX_NOTICED, RunInfo, Runtime
from ..validation.checks import cut_message, name_of, text_of
from ..validation.error_messages import message_of

logger = logging.getLogger("runmeter")

E = TypeVar("E", bound=Event)


class Execution:
    """The handle of a run: entering it starts the run, leaving it finishes the run. Made by the engine, and by
    `child`."""

    is_metered = True
    """True where an engine takes the records; False of the handle outside one."""
    finished = False
    trace: TraceContext | None = None
    duration_ns = 0
    """Nanoseconds from its start to its end."""
    _ended_children = 0
    scope: Scope | None = None
    """The budgets that apply to it; None if the engine has none."""
    _span: Any = None
    at_end: tuple[Callable[[], object], ...] = ()
    """What ends with the run, but goes on after the code that began it: called before its last event."""

    def __init__(self, runtime: Runtime, info: RunInfo, parent: "Execution | None" = None) -> None:
        self.runtime = runtime
        self.info = info
        self.parent = parent
        self.run_id = runtime.new_run_id()
        self.root_run_id: str = parent.root_run_id if parent else self.run_id
        self.requests: list[TokenUsage] = []
        """The ends of its own requests to a model. Appended to from any thread."""
        self.child_requests: list[TokenUsage] = []
        """The ends of the requests of the runs within it that have finished, at any depth."""
        if runtime.budgets is not None:
            above = parent.scope if parent else None
            self.scope = runtime.budgets.scope(info.pattern, info.tags, self.run_id, above)
        self._seq = count()

    def __repr__(self) -> str:
        return f"<Execution {self.run_id} of {self.info.pattern!r}>"

    @property
    def trace_id(self) -> str:
        """The id of the trace that it is in: a caller's, or else the outermost run's id. 32 hexadecimal digits."""
        return self.trace.trace_id if self.trace else self.root_run_id

    @property
    def streaming(self) -> bool:
        """A stream listens to `delta`: then a pattern streams its answer if it can."""
        return self.runtime.delta is not None

    @property
    def budgeted(self) -> bool:
        """A budget applies to this run: then a request needs a bound, where the budget counts USD or tokens."""
        return self.scope is not None and bool(self.scope.limits)

    def next_seq(self) -> int:
        """Draw the next event's number in this run. Safe from any thread."""
        return next(self._seq)

    def emit(self, event_type: Callable[..., E], trace: TraceContext | None, /, **fields: Any) -> E:
        """Publish an event of this run, with the fields that all events have.

        Args:
            event_type: Its class.
            trace: The span it belongs to.
            fields: What the event says beyond.
        """
        event = event_type(
            run_id=self.run_id, seq=next(self._seq), time_ns=self.runtime.clock.time_ns(), trace=trace, **fields
        )
        self.runtime.publish(event)
        return event

    def model_call(self, request: ModelRequest, *, attempt: int = 1) -> ModelCall:
        """Make the handle of a request to a model, from before it leaves to the end of its answer. A context manager.

        Where a budget applies, its upper bound is reserved on entering, unless that was done by `reserve`; on leaving,
        its usage takes the reservation's place, or all of the reservation counts where the usage is not known.
        With a ledger that promises `commit="request"`, entering waits until the request is on disk: `async with` lets
        others run meanwhile, `with` blocks the thread.

        Args:
            request: What is asked for.
            attempt: 1 for the first try, 2 for its first retry …

        Raises:
            BudgetExceeded: on entering, a budget has no room for it.
            UnboundedRequest: on entering, it has no known upper bound, and a budget needs one.
            RunEnded: on entering, the run has ended.
        """
        return ModelCall(self, request, attempt)

    def reserve(self, request: ModelRequest, *, may_lower: bool = True) -> Reserving:
        """Reserve a request's upper bound in every budget that applies, before it is built. A context manager.

            async with execution.reserve(request) as request:
                with execution.model_call(request) as call:
                    response = await client.responses.create(max_output_tokens=request.max_output_tokens, ...)

        The next `model_call` within it uses the reservation. Where none does, it is released on leaving; further ones,
        such as retries, reserve anew, within the same bound unless they have one of their own.

        With `async with` it waits where a budget says so (`when_reserved="wait"`) and what it lacks is only reserved.
        It does not wait inside another request's reservation, or inside a `model_call`, which might be what it waits
        for. With `with`, it never waits, and neither does a `model_call` that nothing was reserved for.

        Args:
            request: What is asked for, with its `bound`.
            may_lower: Whether its `max_output_tokens` can still be lowered.

        Returns:
            The request as it may be sent: with a lower `max_output_tokens`, if a budget has it so.

        Raises:
            BudgetExceeded: on entering, a budget has no room for it.
            UnboundedRequest: on entering, it has no known upper bound, and a budget needs one.
            RunEnded: the run has ended.
        """
        budgets = self.runtime.budgets
        if self.finished:
            raise RunEnded(self.run_id)
        if budgets is None or self.scope is None or not self.scope.limits:
            return nullcontext(request)
        return BudgetedRequest(budgets, self.scope, request, self._notify_of_budget, may_lower=may_lower)

    def claim(self, request: ModelRequest) -> Claim:
        """Take the reservation of a request that is about to leave: the one made for it, or a new one.

        Raises:
            BudgetExceeded: a budget has no room for it.
            UnboundedRequest: it has no known upper bound, and a budget needs one.
        """
        budgets = self.runtime.budgets
        assert budgets is not None  # noqa: S101 - asked before
        assert self.scope is not None  # noqa: S101 - likewise
        return claim(budgets, self.scope, request, self._notify_of_budget)

    async def lease(self, request: ModelRequest) -> None:
        """Lease what `claim` is about to reserve in shared budgets, so that it does not block the event loop.

        Raises:
            BudgetExceeded: a budget has no room for it.
            UnboundedRequest: it has no known upper bound, and a budget needs one.
            BudgetUnavailable: the ledger leases nothing.
        """
        budgets, scope = self.runtime.budgets, self.scope
        if budgets is not None and scope is not None and scope.is_leased and not self.finished:
            await lease(budgets, scope, request, self._notify_of_budget)

    def notice(self, kind: str, subject: str, message: str, *, once: bool = False) -> None:
        """Warn of something before it becomes an error.

        Args:
            kind: What it is about, in a word, such as `budget` or `model_retirement`. Few different ones.
            subject: Which budget, which model.
            message: A sentence.
            once: Whether to say it only the first time that an engine hears of this kind and subject.
        """
        if once:
            noticed = self.runtime.noticed
            if (kind, subject) in noticed or len(noticed) >= MAX_NOTICED:
                return
            noticed.add((kind, subject))
        self.emit(
            Notice, self.trace, kind=name_of(kind), subject=name_of(subject), message=cut_message(text_of(message))
        )

    def _notify_of_budget(self, subject: str, message: str) -> None:
        self.notice("budget", subject, message)

    def function_call(self, name: str, call_id: str | None = None) -> ToolCall:
        """Make the handle of a tool's work. A context manager; an exception that leaves it becomes the tool's error.

        Args:
            name: The tool's name.
            call_id: The model's id for the call, if a model asked for it.
        """
        return ToolCall(self, name, call_id)

    def assistant_run(
        self,
        assistant: str,
        thread_id: str | None = None,
        thread: Literal["created", "resumed"] | None = None,
    ) -> AssistantCall:
        """Make the handle of an assistant's work on a thread. A context manager, around its model and tool calls.

        Args:
            assistant: The assistant's name or id.
            thread_id: The conversation's id; may be set on the handle later, when it is known.
            thread: Whether the run makes the thread or goes on with it.
        """
        return AssistantCall(self, assistant, thread_id, thread)

    def retrieval(self, source: str, *, requested: int | None = None) -> RetrievalCall:
        """Make the handle of a search for passages. A context manager, around the model call that embeds the query too.

        Args:
            source: What is searched, such as a vector store's id, or `local`. Few different names, no query.
            requested: How many passages at most are asked for.
        """
        return RetrievalCall(self, source, requested)

    def child(self, info: RunInfo, runtime: Runtime | None = None) -> "Execution":
        """Make a run within this one, with its own statistics and span. A context manager.

        Args:
            info: What to call it. Where it has no tags it inherits this run's.
            runtime: Where its events and deltas go, if not where this run's go.

        Raises:
            RunEnded: this run has ended.
        """
        if self.finished:
            raise RunEnded(self.run_id)
        if not info.tags and self.info.tags:
            info = msgspec.structs.replace(info, tags=self.info.tags)
        return Execution(runtime or self.runtime, info, self)

    async def delta(self, text: str) -> None:
        """Hand a piece of the answer to the stream of this run, if it has one; waits while its listener is behind.

        Raises:
            RunEnded: the run has ended, and so has its answer.
            StreamClosed: the listener has gone.
        """
        if self.finished:
            raise RunEnded(self.run_id)
        if self.runtime.delta is not None:
            await self.runtime.delta(self.run_id, text)

    def __enter__(self) -> Self:
        runtime, info = self.runtime, self.info
        if runtime.tracing is not None:
            above = self.parent.trace if self.parent else None
            self.trace, self._span = runtime.tracing.start_span(self.root_run_id, above)
        self._outer = running.set(self)
        self._start_monotonic = runtime.clock.monotonic_ns()
        self.emit(
            ExecutionStarted,
            self.trace,
            pattern=info.pattern,
            framework=info.framework,
            root_run_id=self.root_run_id,
            parent_run_id=self.parent.run_id if self.parent else None,
            conversation_id=info.conversation_id,
            tags=info.tags,
            operation=info.operation,
        )
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        runtime = self.runtime
        for end in self.at_end:
            end()
        self.duration_ns = runtime.clock.monotonic_ns() - self._start_monotonic
        self.finished = True
        if runtime.budgets is not None and self.scope is not None:
            runtime.budgets.finish(self.scope)
        if self.parent is not None:  # which keeps the numbers, and not the child
            self.parent.child_requests += self.requests + self.child_requests
            self.parent._ended_children += 1  # noqa: SLF001 - a run too
        if runtime.tracing is not None:
            runtime.tracing.end_span(self._span)
        try:
            running.reset(self._outer)
        except ValueError:
            pass  # left in another context than entered, like a generator closed elsewhere: that one never saw us
        if exc is None:
            self.emit(
                ExecutionFinished,
                self.trace,
                status=Status.OK,
                duration_ns=self.duration_ns,
                children=self._ended_children,
            )
        else:
            self._failed(exc)

    def _failed(self, error: BaseException) -> None:
        status, kind = self._status(error), error_type(error)
        self.emit(
            ExecutionFinished,
            self.trace,
            status=status,
            duration_ns=self.duration_ns,
            error_type=kind,
            error_message=message_of(error, kind, self.runtime.edit),
            children=self._ended_children,
        )
        logger.debug(
            "run %s of %s ended: %s, by %s, after %.3f s",
            self.run_id,
            self.info.pattern,
            status,
            type(error).__qualname__,
            self.duration_ns / 1e9,
        )

    def _status(self, error: BaseException) -> Status:
        if isinstance(error, RunTimeout | RunAborted) and error.run_id == self.run_id:
            return Status.TIMEOUT if isinstance(error, RunTimeout) else Status.CANCELLED
        return status_of(error)  # another run's end is an error like any other here


running: ContextVar[Execution] = ContextVar("runmeter_execution")
"""The run that code is part of; unset outside all."""
