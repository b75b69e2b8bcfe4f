"""Budgets: what they are, what they count, and whose requests."""

import copy
import logging
import pickle
from contextlib import suppress
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from typing import Any

import pytest
from budget_support import HOUR, MICRO, Stage, amounts, request, use
from hypothesis import given
from hypothesis import strategies as st

from runmeter.engine import (
    Budget,
    BudgetExceeded,
    ConfigurationError,
    CostEstimate,
    Engine,
    EngineNotRunning,
    ExecutionFinished,
    ModelCallStarted,
    ModelRequest,
    Provenance,
    RunTimeout,
    Status,
    UnboundedRequest,
    Usage,
    current_execution,
)
from runmeter.engine.errors import RunmeterError
from runmeter.engine.runs.execution import Execution
from runmeter.engine.runtime import RunInfo, Runtime

# What a budget is


@pytest.mark.parametrize(
    ("budget", "label"),
    [
        (Budget(usd="25", per="tenant", every="day"), "$25 per tenant every day"),
        (Budget(usd="0.50", calls=20, per="run"), "$0.5 and 20 calls per run"),
        (Budget(tokens=1_000_000, pattern="rag", tags={"a": "b"}), "1,000,000 tokens for pattern rag for a=b"),
        (Budget(calls=1, every=timedelta(minutes=5), window="rolling"), "1 call in any 0:05:00"),
        (Budget(usd=Decimal(1200), name="all"), "all"),
    ],
)
def test_a_budget_says_what_it_allows(budget: Budget, label: str) -> None:
    assert budget.label == label


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"usd": 0.5},
        {"usd": "much"},
        {"usd": "NaN"},
        {"usd": "Infinity"},
        {"usd": "-1"},
        {"usd": True},
        {"tokens": "5"},
        {"tokens": -5},
        {"calls": 1.0},
        {"calls": 1, "warn_at": 0},
        {"calls": 1, "warn_at": 1.1},
        {"calls": 1, "every": "year"},
        {"calls": 1, "every": timedelta()},
        {"calls": 1, "window": "rolling"},
        {"calls": 1, "window": "rolling", "every": "month"},
        {"calls": 1, "window": "sliding"},
        {"calls": 1, "when_exceeded": "wait"},
        {"calls": 1, "warn_at": "0.8"},
        {"calls": 1, "every": ["day"]},
        {"calls": 1, "pattern": ["support"]},
        {"calls": 1, "per": 5},
        {"calls": 1, "name": 5},
        {"calls": 1, "tags": None},
        {"calls": 1, "tags": ["tenant"]},
        {"calls": 1, "tags": {"tenant": 1}},
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Budget(**fields)


def test_what_becomes_of_the_caller_s_tags_is_no_matter() -> None:
    tags = {"tenant": "acme"}
    budget = Budget(calls=1, tags=tags)
    tags.clear()
    assert budget.label == "1 call for tenant=acme"


@pytest.mark.parametrize("budgets", [Budget(calls=1), ["$5 every day"], "$5"])
def test_budgets_that_are_none_are_refused(budgets: Any) -> None:
    with pytest.raises(ConfigurationError, match="budgets"):
        Engine(budgets=budgets)


def test_two_budgets_of_one_label_need_names() -> None:
    with pytest.raises(ConfigurationError, match="\\$1"):
        Engine(budgets=[Budget(usd="1"), Budget(usd="1.0")])
    Engine(budgets=[Budget(usd="1"), Budget(usd="1.0", name="again")])


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**9


@pytest.mark.parametrize(
    ("every", "start", "end"),
    [
        ("minute", "2026-11-22 20:45:00", "2026-11-22 20:46:00"),
        ("hour", "2026-11-22 20:00:00", "2026-11-22 21:00:00"),
        ("day", "2026-11-22", "2026-11-23"),
        ("week", "2026-11-16", "2026-11-23"),
        ("month", "2026-11-01", "2026-12-01"),
        (timedelta(hours=6), "2026-11-22 18:00:00", "2026-11-23"),
    ],
)
def test_fixed_windows_are_those_of_utc(every: Any, start: str, end: str) -> None:
    slots = Budget(calls=1, every=every).slots()
    assert slots(at("2026-11-22 20:45:30")) == (at(start), at(end))
    assert slots(at(start)) == (at(start), at(end))
    assert slots(at(end) - 1) == (at(start), at(end))
    assert slots(at(end))[0] == at(end)


def test_december_ends_with_the_year() -> None:
    assert Budget(calls=1, every="month").slots()(at("2026-12-31")) == (at("2026-12-01"), at("2027-01-01"))


@given(now=st.integers(0, 2**62), length=st.timedeltas(timedelta(microseconds=1), timedelta(days=40)))
def test_a_rolling_window_counts_for_its_length_and_a_sixtieth_more_at_most(now: int, length: timedelta) -> None:
    start, end = Budget(calls=1, every=length, window="rolling").slots()(now)
    length_ns = length // timedelta(microseconds=1) * 1_000
    assert start <= now
    assert now + length_ns < end <= now + length_ns + max(length_ns // 60, 1)


# Reserve, settle, release


def test_what_was_used_takes_the_place_of_what_was_reserved() -> None:
    stage = Stage(Budget(usd="0.001", tokens=1_000, calls=3))
    with stage.run() as run:
        with run.model_call(request()) as call:
            reserved = {status.kind: status.reserved for status in stage.budgets.status()}
            assert reserved == {"usd": 200 * MICRO, "tokens": 150, "calls": 1}
            call.record(Usage(input_tokens=80, output_tokens=10))
        spent = {status.kind: status.spent for status in stage.budgets.status()}
        assert spent == {"usd": 100 * MICRO, "tokens": 90, "calls": 1}
    assert all(not status.reserved for status in stage.budgets.status())
    started = next(event for event in stage.events if isinstance(event, ModelCallStarted))
    assert started.bound == Usage(input_tokens=100, output_tokens=50)


@pytest.mark.parametrize("provenance", [Provenance.PARTIAL, Provenance.ESTIMATED, Provenance.UNKNOWN])
def test_what_nobody_knows_counts_at_its_bound(provenance: Provenance) -> None:
    stage = Stage(Budget(usd="1", tokens=1_000, calls=3))
    with suppress(OSError), stage.run() as run, run.model_call(request()) as call:
        if provenance is not Provenance.UNKNOWN:
            call.record(Usage(input_tokens=1, output_tokens=1), provenance)
        raise OSError("gone")
    spent = {status.kind: status.spent for status in stage.budgets.status()}
    assert spent == {"usd": 200 * MICRO, "tokens": 150, "calls": 1}


def test_a_bound_that_was_lowered_meanwhile_counts() -> None:
    stage = Stage(Budget(usd="1", tokens=1_000))
    with suppress(OSError), stage.run() as run, run.model_call(request()) as call:
        call.bound = Usage(input_tokens=10, output_tokens=5)
        raise OSError("gone")
    assert [status.spent for status in stage.budgets.status()] == [20 * MICRO, 15]


def test_a_request_that_the_api_refused_costs_a_call_alone() -> None:
    stage = Stage(Budget(usd="1", calls=3))
    with suppress(OSError), stage.run() as run, run.model_call(request()) as call:
        call.record(Usage())
        raise OSError("429")
    assert [status.spent for status in stage.budgets.status()] == [0, 1]


def test_a_request_without_room_never_starts() -> None:
    stage = Stage(Budget(usd="0.0003", name="tight"))
    with pytest.raises(BudgetExceeded) as raised, stage.run() as run:
        use(run)
        with run.model_call(request()):
            pytest.fail("it left")
    error = raised.value
    assert (error.budget, error.scope, error.kind) == ("tight", None, "usd")
    assert (error.cap, error.spent, error.reserved, error.asked) == tuple(n * MICRO for n in (300, 200, 0, 200))
    assert "'tight' allows $0.0003: $0.0002 spent and $0 reserved" in str(error)
    assert sum(isinstance(event, ModelCallStarted) for event in stage.events) == 1
    finished = stage.events[-1]
    assert isinstance(finished, ExecutionFinished)
    assert (finished.status, finished.error_type) == (Status.BUDGET_EXCEEDED, "BudgetExceeded")
    status = stage.status()
    assert (status.refused, status.spent, status.reserved) == (1, *amounts(200 * MICRO, 0))
    assert (status.available, status.window_end_ns) == (100 * MICRO, None)
    assert str(status) == "tight: $0.0002 of $0.0003 spent, $0 reserved, 1 refused"


ANY_LENGTH = "openai_max_tokens, without which room is reserved for the longest answer that the model can give"
SHORTER = 'when_exceeded="lower", which makes answers shorter'
WAITING = 'when_reserved="wait", which waits until what is only reserved is free'


@pytest.mark.parametrize(
    ("budget", "asked", "ways"),
    [
        (Budget(tokens=100), request(60, 50), ("a lower openai_max_tokens than 50", SHORTER)),
        (Budget(tokens=100), request(60, 50, max_output_tokens=None), (ANY_LENGTH, SHORTER)),
        (Budget(tokens=110), request(60, 50), ("a lower openai_max_tokens than 50", SHORTER, WAITING)),
        (Budget(tokens=110, when_reserved="wait"), request(60, 50), ("a lower openai_max_tokens than 50", SHORTER)),
        (Budget(tokens=100, when_exceeded="lower"), request(60, 50), ("a lower openai_max_tokens than 50",)),
        (Budget(tokens=110), request(110, 0), (WAITING,)),
        (Budget(calls=1), request(60, 50), (WAITING,)),
        (Budget(tokens=100), request(110, 0), ()),
    ],
)
def test_a_refusal_names_the_ways_out(budget: Budget, asked: ModelRequest, ways: tuple[str, ...]) -> None:
    stage = Stage(budget)
    with stage.run() as run, run.reserve(request(90, 0)), pytest.raises(BudgetExceeded) as raised:
        stage.run().model_call(asked).__enter__()
    assert raised.value.ways_out == ways
    said = str(raised.value)
    assert said.endswith(f". Ways out: {'; '.join(ways)}" if ways else "a request that can use 110 tokens")


def test_the_last_bit_of_a_budget_can_be_spent() -> None:
    stage = Stage(Budget(usd="0.0004", tokens=300, calls=2))
    with stage.run() as run:
        use(run)
        use(run)
    assert all(not status.available for status in stage.budgets.status())


def test_all_budgets_allow_or_nothing_is_reserved() -> None:
    stage = Stage(Budget(usd="1"), Budget(calls=1), Budget(tokens=10_000))
    with stage.run() as run, run.model_call(request()) as call:
        with pytest.raises(BudgetExceeded) as raised, run.model_call(request()):
            pass
        assert raised.value.kind == "calls"
        assert [status.reserved for status in stage.budgets.status()] == [200 * MICRO, 1, 150]
        assert [status.refused for status in stage.budgets.status()] == [0, 1, 0]
        call.record(Usage())


def test_an_application_s_own_decimal_context_changes_nothing() -> None:
    stage = Stage(Budget(usd="100000.0002"))
    with localcontext(prec=3), stage.run() as run:
        use(run)
        for _ in range(2):
            use(run, request(50_000_000_000, 0))
        with pytest.raises(BudgetExceeded):
            use(run, request(1, 0))
    assert stage.status().spent == stage.status().cap


@pytest.mark.parametrize(
    ("budget", "asked", "hint"),
    [
        (Budget(usd="1"), request(written=None), "set max_output_tokens"),
        (Budget(tokens=1_000), request(written=None), "set max_output_tokens"),
        (Budget(usd="1"), request(model="free-form"), "overlay"),
    ],
)
def test_a_request_of_which_nobody_knows_the_most_is_refused(budget: Budget, asked: ModelRequest, hint: str) -> None:
    stage = Stage(budget)
    with stage.run() as run:
        with pytest.raises(UnboundedRequest, match=hint) as raised, run.model_call(asked):
            pytest.fail("it left")
        with pytest.raises(UnboundedRequest), run.reserve(asked):
            pytest.fail("it left")
    assert raised.value.budget == budget.label
    assert len(stage.events) == 2
    assert stage.status().refused == 0, "there may well be room"


def test_calls_need_no_bound_and_tokens_no_price() -> None:
    stage = Stage(Budget(calls=5, tokens=1_000, name="no money"))
    with stage.run() as run:
        use(run, request(model="free-form"))
    assert stage.prices.asked == 0
    with Stage(Budget(calls=5)).run() as run:
        use(run, request(written=None))


@pytest.mark.parametrize(("usage", "spent"), [(Usage(input_tokens=-1_000), 150), (Usage(1_000, -1_000), 1_000)])
def test_reported_tokens_that_make_no_sense_give_nothing_back(usage: Usage, spent: int) -> None:
    """The bound counts, or what is known to have been used where that is more."""
    stage = Stage(Budget(tokens=1_000))
    with stage.run() as run:
        use(run, usage=usage)
    assert stage.status().spent == spent


def test_a_bound_that_makes_no_sense_is_none() -> None:
    stage = Stage(Budget(tokens=1_000))
    with stage.run() as run, pytest.raises(UnboundedRequest), run.reserve(request(written=-1_000)):
        pass


def test_usage_that_has_no_price_after_all_counts_as_reserved() -> None:
    stage = Stage(Budget(usd="1"))
    with stage.run() as run, run.model_call(request()) as call:
        stage.prices.cost = lambda _: CostEstimate(high_units=None, unpriced=1)  # type: ignore[method-assign, assignment] # a book without the model that answered
        call.record(Usage(input_tokens=1))
    assert stage.status().spent == 200 * MICRO


def test_more_than_the_bound_counts_in_full_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage(Budget(tokens=200, calls=9, name="small", warn_at=None))
    with stage.run() as run, caplog.at_level(logging.WARNING, "runmeter"):
        use(run, usage=Usage(input_tokens=190))
        assert not caplog.records, "more than it was to use, but no more than the cap"
        with run.model_call(request(5, 5)) as call:
            call.record(Usage(input_tokens=70))
        assert len(caplog.records) == 1
        with pytest.raises(BudgetExceeded) as raised:
            use(run, request(1, 0))
    assert (raised.value.spent, raised.value.cap) == amounts(260, 200)
    assert "'small' is overdrawn, 260 tokens of 200 tokens spent" in caplog.text
    assert all(status.available >= 0 for status in stage.budgets.status())


# Reserving before the request is built


def test_the_next_request_uses_the_reservation() -> None:
    stage = Stage(Budget(calls=2, usd="1"))
    with stage.run() as run, run.reserve(request()) as allowed:
        assert allowed == request()
        assert stage.budgets.status()[1].reserved == 1
        with run.model_call(request(written=None)) as call:  # as a framework's callback knows it: without a bound
            assert call.bound == allowed.bound
            assert stage.budgets.status()[1].reserved == 1
            call.record(Usage())
        with run.model_call(request(written=None)) as call:  # a retry
            call.record(Usage())
        with pytest.raises(BudgetExceeded), run.model_call(request()):
            pass
    assert [(status.spent, status.reserved) for status in stage.budgets.status()] == [amounts(0, 0), amounts(2, 0)]


def test_a_reservation_that_no_request_uses_is_released() -> None:
    stage = Stage(Budget(calls=1))
    with stage.run() as run:
        for _ in range(3):
            with suppress(KeyError), run.reserve(request()):
                assert stage.status().reserved == 1
                raise KeyError
        assert (stage.status().reserved, stage.status().spent) == amounts(0, 0)
        use(run)


def test_a_reservation_is_its_own_run_s() -> None:
    stage = Stage(Budget(calls=1, pattern="child"), Budget(calls=5))
    with stage.run("parent") as run, run.reserve(request()), run.child(RunInfo("child")) as child:
        use(child)
        assert [status.spent for status in stage.budgets.status()] == [1, 1]
        assert [status.reserved for status in stage.budgets.status()] == [0, 1]
    assert [status.reserved for status in stage.budgets.status()] == [0, 0]


def test_a_reservation_left_in_another_context_is_of_no_more_use() -> None:
    stage = Stage(Budget(calls=5))
    with stage.run() as run:
        block = run.reserve(request())
        copy_context().run(block.__enter__)
        block.__exit__(None, None, None)
        assert stage.status().reserved == 0
        use(run)
    assert (stage.status().spent, stage.status().reserved) == amounts(1, 0)


def test_only_one_of_two_requests_at_once_uses_the_reservation() -> None:
    stage = Stage(Budget(calls=5))
    with stage.run() as run, run.reserve(request()), run.model_call(request()), run.model_call(request()):
        assert stage.status().reserved == 2
    assert stage.status().spent == 2


# A shorter answer


@pytest.mark.parametrize(
    ("budget", "allowed"),
    [
        (Budget(usd="0.0002", when_exceeded="lower"), 50),
        (Budget(usd="10", when_exceeded="lower"), 1_000),
        (Budget(usd="0.000133", when_exceeded="lower"), 16),
        (Budget(usd="0.000131", when_exceeded="lower"), None),
        (Budget(tokens=142, when_exceeded="lower"), 42),
        (Budget(tokens=142, usd="0.000150", when_exceeded="lower"), 25),
        (Budget(calls=0, when_exceeded="lower"), None),
        (Budget(usd="0.0002"), None),
    ],
)
def test_the_longest_answer_that_fits_is_allowed(budget: Budget, allowed: int | None) -> None:
    stage = Stage(budget)
    asked = request(written=1_000)
    with stage.run() as run:
        if allowed is None:
            with pytest.raises(BudgetExceeded), run.reserve(asked):
                pass
            return
        with run.reserve(asked) as lowered:
            assert lowered.max_output_tokens == allowed
            assert lowered.bound == Usage(input_tokens=100, output_tokens=allowed)
            use(run, lowered)
    assert all(status.spent <= status.cap and not status.reserved for status in stage.budgets.status())


def test_what_one_budget_would_lower_another_may_refuse() -> None:
    stage = Stage(Budget(usd="0.0002", when_exceeded="lower"), Budget(tokens=500))
    with stage.run() as run:
        with pytest.raises(BudgetExceeded) as raised, run.reserve(request(written=1_000)):
            pass
        assert raised.value.kind == "tokens"
        with run.reserve(request(written=400)) as lowered:
            assert lowered.max_output_tokens == 50


def test_a_refusal_names_a_cap_that_no_lowering_satisfies() -> None:
    stage = Stage(Budget(usd="0.00035", calls=1, when_exceeded="lower"))
    with stage.run() as run:
        use(run)
        with pytest.raises(BudgetExceeded) as raised, run.reserve(request()):
            pass
    assert raised.value.kind == "calls"
    assert {status.kind: status.refused for status in stage.budgets.status()} == {"usd": 0, "calls": 1}


def test_a_request_that_is_built_already_is_refused_and_not_lowered() -> None:
    stage = Stage(Budget(usd="0.0002", when_exceeded="lower"))
    with stage.run() as run, pytest.raises(BudgetExceeded), run.model_call(request(written=1_000)):
        pass


def test_several_answers_are_each_lowered() -> None:
    stage = Stage(Budget(tokens=350, when_exceeded="lower"))
    bound = Usage(input_tokens=100, output_tokens=3_000)
    with stage.run() as run, run.reserve(request(written=1_000, bound=bound)) as lowered:
        assert lowered.max_output_tokens == 83
        assert lowered.bound == Usage(input_tokens=100, output_tokens=249)


def test_a_request_without_a_limit_of_its_own_gets_one() -> None:
    stage = Stage(Budget(tokens=350, when_exceeded="lower"))
    with stage.run() as run, run.reserve(request(written=3_000, max_output_tokens=None)) as lowered:
        assert lowered.max_output_tokens == 250


# Whose budget


def spent_by(stage: Stage) -> dict[tuple[str, str | None], Decimal]:
    return {(status.budget, status.scope): status.spent for status in stage.budgets.status()}


def test_each_budget_counts_its_own() -> None:
    stage = Stage(
        Budget(calls=90, name="all"),
        Budget(calls=90, name="rag", pattern="rag"),
        Budget(calls=90, name="acme", tags={"tenant": "acme"}),
        Budget(calls=90, name="each", per="tenant"),
        Budget(calls=90, name="rag of each", pattern="rag", per="tenant"),
        Budget(calls=90, name="run", per="run"),
    )
    for pattern, tags in (("rag", {"tenant": "acme"}), ("rag", {"tenant": "umbrella"}), ("chat", {"tenant": "acme"})):
        with stage.run(pattern, **tags) as run:
            use(run)
            assert spent_by(stage)["run", run.run_id] == 1
    with stage.run("chat") as run:
        use(run)
    assert spent_by(stage) == {
        ("all", None): 3 + 1,
        ("rag", None): 2,
        ("acme", None): 2,
        ("each", "acme"): 2,
        ("each", "umbrella"): 1,
        ("each", None): 1,
        ("rag of each", "acme"): 1,
        ("rag of each", "umbrella"): 1,
    }


def test_each_tenant_has_a_cap_of_its_own() -> None:
    stage = Stage(Budget(calls=1, per="tenant"))
    for tenant in ("acme", "umbrella"):
        with stage.run(tenant=tenant) as run:
            use(run)
            with pytest.raises(BudgetExceeded) as raised:
                use(run)
        assert raised.value.scope == tenant


def test_what_runs_within_a_run_counts_in_its_budgets() -> None:
    stage = Stage(
        Budget(calls=3, per="run", name="run"),
        Budget(calls=90, pattern="boss", name="boss"),
        Budget(calls=90, tags={"tenant": "acme"}, name="acme"),
        Budget(calls=90, per="team", name="team"),
    )
    with stage.run("boss", tenant="acme", team="a") as run:
        use(run)
        with run.child(RunInfo("worker", tags={"team": "b"})) as child:
            use(child)
            with child.child(RunInfo("boss")) as grandchild:
                use(grandchild)
                with pytest.raises(BudgetExceeded) as raised:
                    use(grandchild)
        assert raised.value.scope == run.run_id
        assert spent_by(stage) == {
            ("run", run.run_id): 3,
            ("boss", None): 3,
            ("acme", None): 3,
            ("team", "a"): 1,
            ("team", "b"): 2,
        }
    assert ("run", run.run_id) not in spent_by(stage)


def test_where_no_budget_applies_nothing_is_asked_for() -> None:
    stage = Stage(Budget(usd="0", pattern="other"))
    with stage.run() as run:
        assert not run.budgeted
        use(run, request(written=None))
        with run.reserve(request(written=None)) as allowed:
            assert allowed == request(written=None)
        with run.child(RunInfo("other")) as child:
            assert child.budgeted
    with Execution(Runtime(None, stage.events.append), RunInfo("free")) as run:
        assert not run.budgeted
        assert run.scope is None
        with run.reserve(request()) as allowed:
            assert allowed == request()


def test_outside_an_engine_nothing_is_reserved() -> None:
    execution = current_execution()
    assert not execution.budgeted
    with execution.reserve(request()) as allowed:
        assert allowed == request()
    execution.notice("budget", "daily", "it nears its end")


# Time


def test_a_new_window_begins_with_nothing_spent() -> None:
    stage = Stage(Budget(calls=1, every="hour"))
    with stage.run() as run:
        use(run)
        with pytest.raises(BudgetExceeded):
            use(run)
        end = stage.status().window_end_ns
        assert end is not None
        stage.clock.advance((end - stage.clock.time_ns()) / 1e9)
        assert stage.status().spent == 0
        use(run)
        assert stage.status().window_end_ns == end + HOUR


def test_a_request_counts_in_the_window_it_left_in() -> None:
    stage = Stage(Budget(calls=1, tokens=1_000, every="hour"))
    with stage.run() as run, run.model_call(request()) as call:
        stage.clock.advance(3_600)
        assert [status.reserved for status in stage.budgets.status()] == [0, 0]
        use(run)
        call.record(Usage(input_tokens=900))
    assert [status.spent for status in stage.budgets.status()] == [150, 1]


def test_a_clock_that_is_set_back_gives_nothing_back() -> None:
    stage = Stage(Budget(calls=1, every="hour"))
    with stage.run() as run:
        use(run)
        stage.clock.advance(-7_200)
        with pytest.raises(BudgetExceeded):
            use(run)


MONTH = 31 * 86_400
WINDOWS: list[dict[str, Any]] = [
    *({"every": every} for every in ("minute", "hour", "day", "week", "month", timedelta(minutes=7))),
    *({"every": every, "window": "rolling"} for every in ("minute", "hour", "day", "week", timedelta(minutes=7))),
]


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("per", [None, "tenant", "run"])
def test_a_clock_that_reads_ahead_once_blocks_nothing_and_gives_nothing_back(
    window: dict[str, Any], per: str | None
) -> None:
    stage = Stage(Budget(calls=3, per=per, **window))
    with stage.run(tenant="acme") as run:
        use(run)
        stage.clock.advance(3 * MONTH)
        use(run)
        stage.clock.advance(-3 * MONTH)
        use(run)
        with pytest.raises(BudgetExceeded):
            use(run)
        [status] = stage.budgets.status()
        assert [status.spent, status.reserved, status.refused] == [3, 0, 1]
        assert status.window_end_ns is not None
        now = stage.clock.time_ns()
        assert now < status.window_end_ns <= now + MONTH * 10**9
        stage.clock.advance((status.window_end_ns - now) / 1e9 + MONTH / 60)
        use(run)


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_what_ends_while_the_clock_reads_ahead_is_settled_where_it_left(window: dict[str, Any]) -> None:
    stage = Stage(Budget(tokens=1_000, **window))
    with stage.run() as run:
        with run.model_call(request()) as call:
            stage.clock.advance(3 * MONTH)
            assert stage.status().reserved == 0
            call.record(Usage(input_tokens=60))
        stage.clock.advance(-3 * MONTH)
        assert [stage.status().reserved, stage.status().spent] == [0, 60]


def test_a_notice_that_was_given_by_a_wrong_clock_is_given_again() -> None:
    stage = Stage(Budget(calls=10, every="minute"))
    with stage.run() as run:
        stage.clock.advance(MONTH)
        for _ in range(8):
            use(run)
        stage.clock.advance(-MONTH)
        use(run)
        stage.clock.advance(60)
        for _ in range(8):
            use(run)
    assert [notice.message[:2] for notice in stage.notices()] == ["8 ", "9 ", "8 "]


def test_notice_is_given_once_a_window() -> None:
    stage = Stage(Budget(calls=10, every="hour", per="tenant", name="hourly"))
    with stage.run(tenant="acme") as run:
        for _ in range(7):
            use(run)
        assert stage.notices() == []
        for _ in range(3):
            use(run)
        [notice] = stage.notices()
        assert (notice.run_id, notice.kind, notice.subject) == (run.run_id, "budget", "hourly [acme]")
        assert notice.message == "8 calls of 10 calls spent"
        stage.clock.advance(3_600)
        for _ in range(10):
            use(run)
        assert len(stage.notices()) == 2
    assert [event.seq for event in stage.events if event.run_id == run.run_id] == list(range(len(stage.events)))


def test_a_budget_without_warn_at_gives_no_notice() -> None:
    stage = Stage(Budget(calls=2, warn_at=None), Budget(tokens=150, warn_at=1))
    with stage.run() as run:
        use(run, usage=Usage(input_tokens=149))
        assert stage.notices() == []
        use(run, request(1, 0))
        assert [notice.subject for notice in stage.notices()] == ["150 tokens"]


# Errors


@pytest.mark.parametrize(
    "error",
    [
        BudgetExceeded("daily", "acme", "usd", Decimal(1), Decimal("0.5"), Decimal("0.25"), Decimal("0.5")),
        UnboundedRequest("daily", "usd", "gpt-6-luna", bounded=False),
        RunTimeout("rag", "1" * 32, 5),
        EngineNotRunning("it has closed"),
    ],
)
def test_errors_pass_between_processes(error: RunmeterError) -> None:
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301 - our own
        assert type(other) is type(error)
        assert (str(other), other.args, vars(other)) == (str(error), error.args, vars(error))
