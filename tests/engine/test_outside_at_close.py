"""Requests outside all runs that are under way as the engine closes: their runs end with it, once."""

from collections.abc import Callable
from contextlib import ExitStack
from contextvars import copy_context
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from pattern_support import check_whole

from runmeter.engine import (
    Budget,
    Engine,
    ExecutionFinished,
    ModelRequest,
    Provenance,
    TokenUsage,
    Usage,
    current_execution,
    open_model_call,
)
from runmeter.engine.testing import Recorder
from runmeter.patterns import MeteringHandler
from runmeter.telemetry import configure

BOUND = Usage(10, 10)
REQUEST = ModelRequest(provider="openai", model="gpt-4.1-mini", max_output_tokens=10, bound=BOUND)
Begin = Callable[[ExitStack], Callable[[], object]]
"""Begins a request, what it enters to be left by the stack, and returns what ends it well."""


def by_call(stack: ExitStack) -> Callable[[], object]:
    call = stack.enter_context(current_execution().model_call(REQUEST))
    return lambda: call.record(Usage(5, 5))


def by_reservation(stack: ExitStack) -> Callable[[], object]:
    request = stack.enter_context(current_execution().reserve(REQUEST))
    call = stack.enter_context(current_execution().model_call(request))
    return lambda: call.record(Usage(5, 5))


def by_second_attempt(stack: ExitStack) -> Callable[[], object]:
    call = stack.enter_context(current_execution().model_call(REQUEST))
    call.leave()
    call.miss(("InternalServerError", None), used_nothing=True)
    call.leave()
    return lambda: call.record(Usage(5, 5))


def by_handler(stack: ExitStack) -> Callable[[], object]:
    handler, run_id = MeteringHandler(), uuid4()
    handler.on_chat_model_start({}, [[HumanMessage("How deep?")]], run_id=run_id, invocation_params={"max_tokens": 10})
    used: Any = {"input_tokens": 5, "output_tokens": 5, "total_tokens": 10}
    answer = LLMResult(generations=[[ChatGeneration(message=AIMessage("Deep.", usage_metadata=used))]])
    return lambda: handler.on_llm_end(answer, run_id=run_id)


WAYS: dict[str, Begin] = {
    "call": by_call,
    "reservation": by_reservation,
    "second attempt": by_second_attempt,
    "handler": by_handler,
}


def outer_state() -> tuple[Any, Any]:
    return current_execution(), open_model_call()


@pytest.mark.parametrize("context", ["its own", "the engine's"])
@pytest.mark.parametrize("budgets", [[], [Budget(tokens=1_000)]], ids=["free", "budgeted"])
@pytest.mark.parametrize("way", WAYS)
async def test_they_end_with_it_and_what_comes_later_is_counted_nowhere(
    way: str, budgets: list[Budget], context: str
) -> None:
    run = copy_context().run if context == "its own" else lambda work, *given: work(*given)
    before, stack, seen = run(outer_state), ExitStack(), Recorder()
    telemetry = configure(traces_exporter="none", metrics_exporter="none")
    async with Engine(budgets=budgets, telemetry=telemetry) as engine:
        engine.subscribe(seen, name="test", lane="lossless")
        end = run(WAYS[way], stack)
    count = 2 if way == "second attempt" else 1
    check_whole(seen.events)
    assert sum(isinstance(event, ExecutionFinished) for event in seen.events) == 1
    ends = [event for event in seen.events if isinstance(event, TokenUsage)]
    assert len(ends) == count
    assert ends[-1].provenance is Provenance.UNKNOWN
    assert ends[-1].bound is not None
    assert all(budget.reserved == 0 for budget in engine.budgets())
    told, total = len(seen.events), engine.usage().total
    run(end)
    run(stack.close)
    assert len(seen.events) == told
    assert engine.usage().total == total
    assert run(outer_state) == before


async def test_what_has_ended_before_is_not_ended_again() -> None:
    seen = Recorder()
    async with Engine() as engine:
        engine.subscribe(seen, name="test", lane="lossless")
        for begin in WAYS.values():
            with ExitStack() as stack:
                begin(stack)()
    assert [event.provenance for event in seen.events if isinstance(event, TokenUsage)] == [Provenance.REPORTED] * 5
