"""Advice from histories of which the truth is known."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import count
from random import Random
from typing import Any

import msgspec
import pytest
from campaign_support import shortly
from hypothesis import given
from hypothesis import strategies as st

from runmeter.advice import Advice, Advisor
from runmeter.advice.advice import percent, percents, times
from runmeter.advice.moments import Moments, share_interval, student_t
from runmeter.engine import (
    Event,
    ExecutionFinished,
    ExecutionStarted,
    FunctionCall,
    ModelCallStarted,
    PriceBook,
    Provenance,
    Status,
    TokenUsage,
    Usage,
)

AT = 1_795_000_000_000_000_000  # 2026-11-18
LUNA, TERRA = "gpt-6-luna", "gpt-6.1-terra"
PRICES = PriceBook()
_ids = count(1)


def seeded(seed: int) -> Random:
    return Random(seed)  # noqa: S311 - a history that can be made again, no secret


class Run:
    """The events of one run, built step by step; a second passes at each."""

    def __init__(self, pattern: str = "answer", root: "Run | None" = None, **fields: Any) -> None:
        self.run_id = f"{next(_ids):032x}"
        self.root = root or self
        self.now = AT
        self.events: list[Event] = []
        self._calls = count()
        self.add(
            ExecutionStarted,
            pattern=pattern,
            root_run_id=self.root.run_id,
            parent_run_id=root.run_id if root else None,
            **{"framework": "python", **fields},
        )

    def add(self, kind: Any, **fields: Any) -> "Run":
        self.now += 10**9
        self.events.append(kind(run_id=self.run_id, seq=len(self.events), time_ns=self.now, **fields))
        return self

    def asks(self, model: str, usage: Usage | None, *, answered: bool = True, **fields: Any) -> "Run":
        call = {"call_id": next(self._calls), "provider": "openai", "operation": "chat", "model": model}
        self.add(ModelCallStarted, **call)
        provenance = Provenance.UNKNOWN if usage is None else Provenance.REPORTED
        if answered:
            self.add(
                TokenUsage,
                **call
                | {"provenance": provenance, "usage": usage, "start_ns": self.now, "duration_ns": 10**9}
                | fields,
            )
        return self

    def calls(self, tool: str) -> "Run":
        return self.add(FunctionCall, name=tool, start_ns=self.now, duration_ns=10**9)

    def ends(self, status: Status = Status.OK, duration: float = 1.0) -> list[Event]:
        self.add(ExecutionFinished, status=status, duration_ns=round(duration * 1e9))
        return self.events


def history(
    source: Random,
    model: str,
    runs: int,
    tokens: float = 1_000,
    seconds: float = 1.0,
    spread: float = 0.5,
    failing: float = 0.0,
    **fields: Any,
) -> list[Event]:
    """Runs with lognormal costs and durations."""
    events: list[Event] = []
    for _ in range(runs):
        status = Status.ERROR if source.random() < failing else Status.OK
        usage = Usage(input_tokens=10, output_tokens=round(tokens * source.lognormvariate(0, spread)) + 1)
        events += Run(**fields).asks(model, usage).ends(status, seconds * source.lognormvariate(0, spread))
    return events


def advice_on(*histories: Sequence[Event], by: str | None = None) -> Sequence[Advice]:
    advisor = Advisor(by, PRICES)
    for events in histories:
        advisor(events)
    return advisor.advice()


def of_kind(advice: Iterable[Advice], *kinds: str) -> list[Advice]:
    return [each for each in advice if each.kind in kinds]


# Variants of the same work


def test_runs_that_were_cancelled_are_compared_with_nothing() -> None:
    source = seeded(1)
    finished = [*history(source, LUNA, 40), *history(source, TERRA, 40, 4_000)]
    cancelled = [event for _ in range(30) for event in Run().asks(LUNA, Usage(10, 50_000)).ends(Status.CANCELLED)]
    compared = of_kind(advice_on(finished, cancelled), "cheaper", "faster")
    assert compared == of_kind(advice_on(finished), "cheaper", "faster") != []
    advisor = Advisor(prices=PRICES)
    advisor([*finished, *cancelled])
    assert advisor.runs == 80


@pytest.mark.parametrize("given", shortly([(0.3, 0.0), (1.0, 0.1), (1.6, 0.0)], all), ids=str)
def test_without_a_difference_advice_is_told_in_at_most_the_nominal_share_of_histories(
    given: tuple[float, float],
) -> None:
    spread, failing = given
    histories, told = 200, 0
    for seed in range(histories):
        source = seeded(seed)
        # The same model under two names of a framework: its prices are the same, and so is everything else.
        sides = [
            history(source, LUNA, runs, spread=spread, failing=failing, framework=framework, tags={"task": "sum"})
            for framework, runs in (("one", 25), ("two", 80), ("three", 25))
        ]
        told += bool(of_kind(advice_on(*sides, by="task"), "cheaper", "faster"))
    # 5 % of 200 is 10; one more than 17 would happen by chance once in a hundred times.
    assert told <= 17


@pytest.mark.parametrize("seed", range(20))
def test_a_large_difference_is_always_told(seed: int) -> None:
    source = seeded(seed)
    cheap = history(source, LUNA, 60, tokens=1_000, seconds=1.0)
    dear = history(source, TERRA, 40, tokens=1_000, seconds=3.0)
    cheaper, faster = of_kind(advice_on(cheap, dear), "cheaper", "faster")
    assert cheaper.kind == "cheaper"
    assert faster.kind == "faster"
    for each in (cheaper, faster):
        assert each.subject == f"{LUNA} on pattern answer"
        assert each.counts == {"runs": 60, "other_runs": 40, "failures": 0, "other_failures": 0}
    assert "60 and 40 runs" in cheaper.text


def _holds(advice: Advice, truth: float) -> bool:
    low, high = advice.figures["ratio_low"], advice.figures["ratio_high"]
    assert low is not None
    assert high is not None
    return float(low) <= truth <= float(high)


def test_the_intervals_hold_the_true_ratio_as_often_as_they_promise() -> None:
    missed = 0
    for seed in range(200):
        source = seeded(seed)
        one = history(source, LUNA, 40, seconds=1, spread=1)
        other = history(source, TERRA, 30, seconds=8, spread=1)
        cheaper, faster = of_kind(advice_on(one, other), "cheaper", "faster")
        missed += not (_holds(cheaper, 10) and _holds(faster, 8))  # terra's tokens cost ten times luna's
    assert missed <= 17


def test_too_few_runs_are_silent_and_say_how_many_are_missing() -> None:
    source = seeded(1)
    advice = advice_on(history(source, LUNA, 60), history(source, TERRA, 12))
    assert not of_kind(advice, "cheaper", "faster")
    (silence,) = of_kind(advice, "silence")
    assert silence.text == f"{TERRA} on pattern answer is not compared: 12 of 12 runs succeeded, 8 more are needed."


def test_unlike_work_is_never_compared() -> None:
    source = seeded(1)
    one = history(source, LUNA, 50, pattern="answer", tags={"task": "sum"})
    other = history(source, TERRA, 50, pattern="research", tags={"task": "find"})
    assert not of_kind(advice_on(one, other), "cheaper", "faster")
    assert not of_kind(advice_on(one, other, by="task"), "cheaper", "faster")
    (nothing,) = of_kind(advice_on(one, other), "silence")
    assert "no pattern ran in several frameworks, or with one model in some runs and another in others" in nothing.text


def test_a_tag_makes_patterns_comparable_and_runs_without_it_are_told() -> None:
    source = seeded(1)
    one = history(source, LUNA, 50, pattern="answer", tags={"task": "sum"})
    other = history(source, LUNA, 50, pattern="research", tokens=9_000, tags={"task": "sum"})
    untagged = history(source, LUNA, 3, pattern="research")
    advice = advice_on(one, other, untagged, by="task")
    (cheaper,) = of_kind(advice, "cheaper")
    assert cheaper.subject == "answer on task=sum"
    assert _holds(cheaper, 9)
    (silence,) = of_kind(advice, "silence")
    assert silence.text == "3 runs of 103 had no tag task and were not compared."


def test_runs_of_one_pattern_with_different_tags_are_compared_only_with_a_warning() -> None:
    source = seeded(1)
    one = history(source, LUNA, 50, tags={"task": "sum", "team": "a"})
    other = history(source, TERRA, 50, tags={"task": "find", "team": "a"})
    (cheaper,) = of_kind(advice_on(one, other), "cheaper")
    assert cheaper.text.endswith("Their tags differ (task): if one of these tells the work apart, compare by it.")


def test_a_cheaper_variant_that_fails_more_often_is_told_as_such() -> None:
    source = seeded(1)
    cheap = history(source, LUNA, 200, failing=0.4, spread=0.2)
    dear = history(source, TERRA, 200, spread=0.2)
    (cheaper,) = of_kind(advice_on(cheap, dear), "cheaper")
    assert "But it failed more often" in cheaper.text
    ok = 200 - cheaper.counts["failures"]
    assert _holds(cheaper, 10 * ok / 200), "what failures cost is paid by those that succeed"


def test_a_variant_that_fails_so_often_that_each_success_costs_more_is_the_dearer_one() -> None:
    source = seeded(1)
    failing = history(source, LUNA, 300, tokens=1_000, failing=0.8, spread=0.1, framework="one", tags={"t": "x"})
    steady = history(source, LUNA, 300, tokens=2_000, spread=0.1, framework="two", tags={"t": "x"})
    (cheaper,) = of_kind(advice_on(failing, steady, by="t"), "cheaper")
    assert cheaper.subject == "(two) on t=x"


def test_an_unknown_cost_is_never_zero() -> None:
    source = seeded(1)
    known = history(source, TERRA, 50)
    lost = Run().asks(LUNA, None, error_type="APITimeoutError").ends()
    advice = advice_on([*history(source, LUNA, 50), *lost], known)
    assert not of_kind(advice, "cheaper")
    (silence,) = of_kind(advice, "silence")
    assert "what 1 of 51 runs cost has no upper bound" in silence.text


def test_what_is_bounded_widens_the_interval() -> None:
    source = seeded(1)
    bound = Usage(input_tokens=10, output_tokens=40_000)
    usage = Usage(input_tokens=10, output_tokens=1_000)
    timed_out: dict[str, Any] = {"error_type": "APITimeoutError", "bound": bound, "service_tier": "default"}
    lost = [event for _ in range(5) for event in Run().asks(LUNA, usage).asks(LUNA, None, **timed_out).ends()]
    cheap, dear = history(source, LUNA, 50, spread=0.2), history(source, TERRA, 50, spread=0.2)
    (sure,) = of_kind(advice_on(cheap, dear), "cheaper")
    widened = of_kind(advice_on(cheap + lost, dear), "cheaper")
    assert [float(each.figures["ratio_low"] or 0) < float(sure.figures["ratio_low"] or 0) for each in widened] == [True]


def test_a_request_that_never_ended_leaves_the_other_side_at_least_so_much_cheaper() -> None:
    source = seeded(1)
    usage = Usage(input_tokens=10, output_tokens=1_000)
    hanging = Run().asks(TERRA, usage).asks(TERRA, None, answered=False).ends()
    (cheaper,) = of_kind(advice_on(history(source, LUNA, 50), [*history(source, TERRA, 50), *hanging]), "cheaper")
    assert cheaper.figures["ratio_high"] is None
    assert f"{LUNA} was at least" in cheaper.text


def test_a_pattern_that_chooses_its_models_is_one_variant() -> None:
    source, usage = seeded(1), Usage(input_tokens=10, output_tokens=1_000)
    easy = history(source, LUNA, 50)
    hard = [event for _ in range(50) for event in Run().asks(LUNA, usage).asks(TERRA, usage).ends()]
    assert not of_kind(advice_on(easy, hard), "cheaper", "faster")


def test_failed_runs_count_for_the_variant_they_can_only_belong_to() -> None:
    source, usage = seeded(1), Usage(input_tokens=10, output_tokens=1_000)
    both = [event for _ in range(50) for event in Run().asks("o9-none", usage).asks(TERRA, usage).ends()]
    cut = [event for _ in range(5) for event in Run().asks(TERRA, usage).ends(Status.ERROR)]
    luna = history(source, LUNA, 50, tokens=100, seconds=0.1, spread=0.1)
    (faster,) = of_kind(advice_on(both, cut, luna), "faster")
    assert faster.counts["other_failures"] == 5
    nowhere = Run().ends(Status.ERROR)
    (faster,) = of_kind(advice_on(both, cut, luna, nowhere), "faster")
    assert "1 failed run that may belong to either left out" in faster.text
    assert faster.counts["other_failures"] == 5


def test_runs_within_a_run_count_for_it() -> None:
    usage = Usage(input_tokens=10, output_tokens=1_000)

    def nested(model: str, children: int) -> list[Event]:
        outer = Run("boss")
        inner = [Run("worker", outer).asks(model, usage).ends() for _ in range(children)]
        first, *_ = outer.events
        return [first, *(event for events in inner for event in events), *outer.ends()[1:]]

    one = [event for _ in range(30) for event in nested(LUNA, 1)]
    two = [event for _ in range(30) for event in nested(TERRA, 3)]
    (cheaper,) = of_kind(advice_on(one, two), "cheaper")
    assert cheaper.subject == f"{LUNA} on pattern boss"
    assert cheaper.figures["ratio_low"] == pytest.approx(30)
    assert cheaper.counts["runs"] == 30


def test_duplicates_and_disorder_change_nothing() -> None:
    source = seeded(1)
    events = history(source, LUNA, 40) + history(source, TERRA, 40)
    plain, twice = Advisor(prices=PRICES), Advisor(prices=PRICES)
    plain(events)
    twice([event for event in events for _ in range(2)])
    twice(events)
    assert plain.advice() == twice.advice()
    assert plain.runs == twice.runs == 80


def test_what_belongs_to_no_run_is_told_and_harms_nothing() -> None:
    events = history(seeded(1), LUNA, 5)
    advice = advice_on(events[1:], Run().asks(LUNA, None, answered=False).events)
    texts = [each.text for each in of_kind(advice, "silence")]
    assert "Runs that have not finished: 1." in texts
    assert "Events of runs whose start is missing: 3." in texts


def test_advice_survives_json() -> None:
    source = seeded(1)
    advice = advice_on(history(source, LUNA, 30), history(source, TERRA, 30))
    encoded = msgspec.json.encode(advice)
    assert {each["kind"] for each in msgspec.json.decode(encoded)} == {each.kind for each in advice}


def test_there_are_only_so_many_variants() -> None:
    advisor = Advisor("user", PRICES, max_keys=10)
    for number in range(30):
        advisor(history(seeded(1), LUNA, 1, tags={"user": str(number)}))
    texts = [each.text for each in advisor.advice()]
    assert "20 runs of 30 were not compared: there are too many variants." in texts


def test_hundreds_of_works_with_few_runs_do_not_bury_the_rest() -> None:
    advisor = Advisor("session", PRICES)
    for number in range(300):
        for model, runs in ((LUNA, 2), (TERRA, 3 if number < 5 else 1)):
            advisor(history(seeded(number), model, runs, tags={"session": str(number)}))
    *missing, rest = of_kind(advisor.advice(), "silence")
    assert len(missing) == 10
    assert all("3 of 3 runs succeeded" in each.text for each in missing[:5]), "those with most runs first"
    assert rest.counts == {"variants": 590}


def test_a_tag_that_no_run_has_is_told_and_nothing_else_of_it() -> None:
    (silence,) = of_kind(advice_on(history(seeded(1), LUNA, 30), by="task"), "silence")
    assert silence.text == "30 runs of 30 had no tag task and were not compared."


def test_models_that_one_pattern_chose_among_are_not_said_to_be_one() -> None:
    usage = Usage(input_tokens=10, output_tokens=100)
    events = [
        event
        for models in ([LUNA], [TERRA], [LUNA, TERRA]) * 30
        for event in [run.asks(model, usage) for run in [Run()] for model in models][-1].ends()
    ]
    (silence,) = of_kind(advice_on(events), "silence")
    assert "more than one model" not in silence.text


def test_what_cost_nothing_is_told_though_it_has_no_ratio() -> None:
    source = seeded(1)
    free = [event for _ in range(30) for event in Run(framework="local").ends(duration=source.lognormvariate(0, 0.5))]
    advice = advice_on(free, history(source, LUNA, 30))
    assert not of_kind(advice, "cheaper")
    (silence,) = of_kind(advice, "silence")
    assert "its 30 runs cost nothing" in silence.text


@pytest.mark.parametrize("arguments", [{"max_keys": 0}, {"by": ""}])
def test_arguments_that_make_no_sense(arguments: Mapping[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        Advisor(**arguments)


# Caching, by hand from the price list: luna costs $0.10 a million in, $0.01 cached, $0.125 written, $0.50 out


def test_what_caching_saved_to_the_last_digit() -> None:
    usage = Usage(input_tokens=10_000, output_tokens=100, cache_read_tokens=8_000)
    wrote = Usage(input_tokens=10_000, output_tokens=100, cache_write_tokens=8_000)
    advice = advice_on(Run().asks(LUNA, wrote).asks(LUNA, usage).asks(LUNA, usage).ends())
    (saved,) = of_kind(advice, "caching_saved")
    assert saved.figures["saved_usd"] == 2 * 8_000 * Decimal("0.09") / 10**6
    assert saved.figures["writing_usd"] == 8_000 * Decimal("0.025") / 10**6
    assert saved.figures["net_usd"] == Decimal("0.00124")
    assert saved.counts == {"requests": 3, "requests_with_cache_reads": 2, "unpriced": 0}


def test_what_caching_could_save_is_the_whole_prompt_but_for_the_first() -> None:
    usage = Usage(input_tokens=10_000, output_tokens=100, cache_read_tokens=1_000)
    short = Usage(input_tokens=1_023, output_tokens=100)
    events = [event for _ in range(25) for event in Run().asks(LUNA, usage).asks(LUNA, short).ends()]
    (possible,) = of_kind(advice_on(events), "caching_possible")
    assert possible.figures["possible_usd"] == 24 * 9_000 * Decimal("0.09") / 10**6
    assert possible.figures["cached_share"] == pytest.approx(0.1)
    assert possible.counts == {"requests": 50, "cacheable_requests": 25, "unpriced": 0}
    assert "at most" in possible.text


@pytest.mark.parametrize(
    "usage",
    [
        Usage(input_tokens=10_000, output_tokens=1, cache_read_tokens=9_000),
        Usage(input_tokens=1_000, output_tokens=1),
    ],
    ids=["cached already", "too short"],
)
def test_nothing_is_said_where_caching_cannot_help(usage: Usage) -> None:
    events = [event for _ in range(25) for event in Run().asks(LUNA, usage).ends()]
    assert not of_kind(advice_on(events), "caching_possible")


def test_cached_tokens_without_a_price_are_told_and_not_counted() -> None:
    usage = Usage(input_tokens=10_000, output_tokens=100, cache_read_tokens=8_000)
    (saved,) = of_kind(advice_on(Run().asks("o9-none", usage).ends()), "caching_saved")
    assert saved.figures["saved_usd"] == 0
    assert saved.text.endswith("1 request without a price is not in this.")


# What eats tokens


def tool_run(*tools: str) -> list[Event]:
    """Asks, lets tools answer with 2,000 tokens, asks again twice. Answers have 100 tokens."""
    run = Run().asks(LUNA, Usage(input_tokens=500, output_tokens=100))
    for tool in tools:
        run.calls(tool)
    run.asks(LUNA, Usage(input_tokens=2_600, output_tokens=100))
    return run.asks(LUNA, Usage(input_tokens=2_700, output_tokens=100)).ends()


def test_a_tool_s_tokens_are_read_off_the_growth_of_prompts() -> None:
    (tool,) = of_kind(advice_on([event for _ in range(20) for event in tool_run("search")]), "tool_tokens")
    assert tool.subject == "search"
    assert tool.figures["added_low"] == 20 * 2_000, "all of the last answer was sent back"
    assert tool.figures["added_high"] == 20 * 2_100, "nothing of it was"
    assert tool.figures["sent_low"] == 20 * 4_000, "two prompts held it"
    assert tool.figures["share_low"] == pytest.approx(4_000 / 5_800)
    assert tool.counts == {"calls": 20, "measured_calls": 20}


def test_between_several_tools_nothing_is_read_off() -> None:
    advice = advice_on([event for _ in range(20) for event in tool_run("search", "count")])
    assert not of_kind(advice, "tool_tokens")


def test_a_prompt_that_shrank_no_longer_holds_what_a_tool_said() -> None:
    runs = [tool_run("search")[:-1] for _ in range(20)]
    longer: list[Event] = []
    for events in runs:
        run = Run()
        run.run_id, run.events, run.now = events[0].run_id, events, events[-1].time_ns
        longer += run.asks(LUNA, Usage(input_tokens=50, output_tokens=1), call_id=9).ends()
    (tool,) = of_kind(advice_on(longer), "tool_tokens")
    assert tool.figures["sent_high"] == 20 * 4_200


def test_what_failed_is_a_share_of_the_bill_between_bounds() -> None:
    usage = Usage(input_tokens=0, output_tokens=1_000_000)  # $0.50
    bound = Usage(input_tokens=0, output_tokens=2_000_000)
    events = [event for _ in range(19) for event in Run().asks(LUNA, usage).ends()]
    events += Run().asks(LUNA, None, error_type="APITimeoutError", bound=bound).asks(LUNA, usage, attempt=2).ends()
    (failed,) = of_kind(advice_on(events), "failed_requests")
    assert failed.figures["usd_low"] == 0
    high = failed.figures["usd_high"]
    assert high is not None
    assert high >= 1
    assert failed.counts == {"requests": 21, "failed": 1, "retries": 1, "unknown": 1}
    assert failed.figures["share_high"] == pytest.approx(float(high) / (float(high) + 10))


def test_failures_without_a_bound_are_no_share() -> None:
    usage = Usage(input_tokens=0, output_tokens=1_000_000)
    events = [event for _ in range(20) for event in Run().asks(LUNA, usage).ends()]
    (failed,) = of_kind(advice_on(events, Run().asks(LUNA, None, error_type="E").ends()), "failed_requests")
    assert failed.figures["usd_high"] is None
    assert failed.figures["share_high"] is None
    assert "an unknown share of the bill" in failed.text


# The arithmetic


@given(st.lists(st.floats(-1e6, 1e6), min_size=2), st.lists(st.floats(-1e6, 1e6), min_size=2))
def test_moments_join_to_what_one_pass_would_have_made(first: list[float], second: list[float]) -> None:
    whole = Moments()
    parts = Moments(), Moments()
    for values, part in zip((first, second), parts, strict=True):
        for value in values:
            part.add(value)
            whole.add(value)
    joined = parts[0] + parts[1]
    assert joined.count == whole.count
    assert joined.mean == pytest.approx(statistics.fmean(first + second), abs=1e-6)
    assert joined.squares == pytest.approx(whole.squares, rel=1e-9, abs=1e-3)
    assert whole.squares / (whole.count - 1) == pytest.approx(statistics.variance(first + second), rel=1e-6, abs=1e-3)


@pytest.mark.parametrize(
    ("p", "freedom", "quantile"),
    # From the tables of Abramowitz and Stegun, 26.10.
    [(0.975, 20, 2.086), (0.995, 20, 2.845), (0.9995, 20, 3.850), (0.9995, 60, 3.460), (0.99999, 1e9, 4.265)],
)
def test_student_s_quantiles(p: float, freedom: float, quantile: float) -> None:
    assert student_t(p, freedom) == pytest.approx(quantile, rel=1e-3)


def test_a_share_s_interval() -> None:
    assert share_interval(5, 100) == pytest.approx((0.0215, 0.1118), abs=1e-4)
    assert share_interval(0, 0) == (0, 1)


@given(st.floats(1.0001, 1e6), st.floats(1.0, 50))
def test_ratios_are_rounded_outwards(low: float, more: float) -> None:
    text = times(low, low * more).removesuffix(" times").replace(",", "")
    shown = [float(part) for part in text.split("–")]
    assert shown[0] <= low * (1 + 1e-9)
    assert shown[-1] >= low * more * (1 - 1e-9)
    assert times(low, math.inf).startswith("at least ")


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(0.9, 1.0, "90–100 %"), (0.9996, 1.0, "100 %"), (0.0, 0.0000001, "0–0.00001 %"), (0.029, 0.041, "2.9–4.1 %")],
)
def test_shares_are_written_out(low: float, high: float, text: str) -> None:
    assert percents(low, high) == text


def test_a_share_has_three_digits() -> None:
    assert [percent(share) for share in (1.0, 0.99999, 0.0321, 1e-7)] == ["100 %", "100 %", "3.21 %", "0.00001 %"]
