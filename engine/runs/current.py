"""The run that code is part of, by whose handle patterns tell what they do.

`current_execution()` gives it. Its context managers emit the events and measure the time:

    with current_execution().model_call(ModelRequest(provider="openai", model="gpt-6-luna")) as call:
        response = await client.responses.create(...)
        call.record(usage, response_id=response.id)

Publishing is synchronous, so a run's end needs no shielding from cancellation. Outside an engine there is a handle all
the same; it does nothing.
"""

from contextlib import nullcontext
from typing import Literal, Self

from ..ambient import ambient_tags
from ..budgets.reserving import Reserving
from ..calls.model_call import ModelCall
from ..calls.operation import Operation
from ..calls.work import AssistantCall, RetrievalCall, ToolCall
from ..concurrency.outside import outside
from ..events import TraceContext
from ..request import ModelRequest
from ..runtime import RunInfo, Runtime
from .execution import Execution, running
from .outside_run import OUTSIDE, OutsideModelCall, OutsideReserving, outside_run


class _Idle(Operation):
    """Mixed into handles that do nothing: entered, left or told something they stay as they are.

    All code outside an engine shares them, so their state is their class's, and setting an attribute has no effect.
    """

    is_metered = False
    trace: TraceContext | None = None
    start_ns = 0
    error_type: str | None = None
    error_message: str | None = None

    def __init__(self) -> None:
        pass

    def __setattr__(self, name: str, value: object) -> None:
        pass

    def fail(self, error_type: str, message: str | None = None) -> None:
        """Keep nothing outside an engine."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class _NoModelCall(_Idle, ModelCall):
    bound = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    def first_chunk(self) -> None:
        """Measure nothing outside an engine."""

    def notice(self, kind: str, message: str) -> None:
        """Warn no subscriber, for there is none."""


class _NoToolCall(_Idle, ToolCall):
    pass


class _NoAssistantCall(_Idle, AssistantCall):
    thread_id = None
    thread = None
    steps = 0


class _NoRetrievalCall(_Idle, RetrievalCall):
    documents = 0
    top_score = None


class _NoExecution(Execution):
    """The handle outside an engine: the same methods, and nothing comes of them."""

    is_metered = False

    def __init__(self) -> None:
        super().__init__(Runtime(None, lambda _: None, new_run_id=lambda: "0" * 32), RunInfo("none"))
        self._model_call = _NoModelCall()
        self._function_call = _NoToolCall()
        self._assistant_run = _NoAssistantCall()
        self._retrieval = _NoRetrievalCall()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    @property
    def budgeted(self) -> bool:
        """A budget applies to requests that belong to no run."""
        runtime = outside.runtime
        return runtime is not None and runtime.budgets is not None and runtime.budgets.applies(OUTSIDE, {})

    def model_call(self, request: ModelRequest, *, attempt: int = 1) -> ModelCall:
        return self._model_call

    def watched_model_call(self, request: ModelRequest, *, attempt: int = 1) -> ModelCall:
        """Make the handle of a request that belongs to no run, while an engine runs. It takes `model_call`'s place."""
        if not outside.watched:
            vars(self).pop("model_call", None)
            return self._model_call
        current = running.get(self)
        if current is not self:  # in the run that `reserve` has begun
            return current.model_call(request, attempt=attempt)
        run = outside_run()
        return self._model_call if run is None else OutsideModelCall(run, request, attempt)

    def reserve(self, request: ModelRequest, *, may_lower: bool = True) -> Reserving:
        run = outside_run() if self.budgeted else None
        return nullcontext(request) if run is None else OutsideReserving(run, request, may_lower=may_lower)

    def function_call(self, name: str, call_id: str | None = None) -> ToolCall:
        return self._function_call

    def assistant_run(
        self, assistant: str, thread_id: str | None = None, thread: Literal["created", "resumed"] | None = None
    ) -> AssistantCall:
        return self._assistant_run

    def retrieval(self, source: str, *, requested: int | None = None) -> RetrievalCall:
        return self._retrieval

    def child(self, info: RunInfo, runtime: Runtime | None = None) -> Execution:
        return self

    def notice(self, kind: str, subject: str, message: str, *, once: bool = False) -> None:
        """Warn no subscriber, for there is none."""


_nowhere = _NoExecution()


def current_execution() -> Execution:
    """Find the handle of the run that this code is part of; outside an engine one that does nothing."""
    return running.get(_nowhere)


def watch_outside(runtime: Runtime) -> None:
    """Count the requests that are made outside all runs, as an engine has started: without one they cost nothing."""
    outside.open(runtime)
    vars(_nowhere)["model_call"] = _nowhere.watched_model_call


def metered_execution() -> Execution | None:
    """Find the run that this code is part of and that goes on, in this process; None if there is none."""
    execution = running.get(_nowhere)
    if not execution.is_metered or execution.finished or (outside.gone and not outside.is_alive(execution.runtime)):
        return None
    return execution


def ambient_run(name: str, framework: str) -> Execution | None:
    """Make a run for one request that belongs to no run, in the engine that is current, with the tags that are.

    That is the engine whose block this code is in, or the installed one, or the only one in this process.

    Args:
        name: Stands for a pattern's, such as `openai.chat`.
        framework: Whose client sends the request.

    Returns:
        The run, to be entered; None if no engine is current: then the request is counted, and the first told.
    """
    runtime = outside.ambient()
    if runtime is None:
        outside.count()
        return None
    return Execution(runtime, RunInfo(name, framework, tags=ambient_tags.get()))
