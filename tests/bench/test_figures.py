"""Figures from made-up rounds: what is normalised, compared, derived, and too noisy to tell."""

from pathlib import Path

import pytest
from bench_support import FAST, LOOP_NS, MACHINE, question_of, record_of, samples
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from runmeter.bench.compare import compare
from runmeter.bench.errors import BenchError
from runmeter.bench.figures import Figure, Results, noisy_share, unsteadiness, usual_loop_ns
from runmeter.bench.formats import digits, figure_range, figure_relative, figure_spread, figure_time, time
from runmeter.bench.goals import Goal, Term, judge, load_goals
from runmeter.bench.peer import Measurement
from runmeter.bench.question import Case, Question
from runmeter.bench.record import Failure, Record, load_record
from runmeter.bench.runner import is_noisy
from runmeter.bench.statistics import Interval, median_interval, quotient_interval
from runmeter.bench.summary import results_of, summarise

values = st.lists(st.floats(1, 1e9), min_size=1, max_size=40)
TWO = question_of(["a"], ["base", "peer"], 'baseline = "base"')


def results(record: Record) -> Results:
    return results_of(record)["made"]


def figure(record: Record, case: str, peer: str) -> Figure:
    found = results(record).figure(case, peer)
    assert found is not None
    return found


# Statistics


@given(values)
def test_the_interval_holds_the_median_and_lies_within_the_values(measured: list[float]) -> None:
    interval = median_interval(measured, 1, 200)
    assert min(measured) <= interval.low <= interval.median <= interval.high <= max(measured)
    assert interval == median_interval(measured, 1, 200)


@given(values, st.floats(0.001, 1_000))
def test_an_interval_goes_with_the_unit(measured: list[float], factor: float) -> None:
    there, here = median_interval([value * factor for value in measured], 1, 200), median_interval(measured, 1, 200)
    assert there.median == pytest.approx(here.median * factor)
    assert there.low == pytest.approx(here.low * factor)
    assert there.high == pytest.approx(here.high * factor)


@given(values, st.floats(0.1, 10))
def test_the_quotient_of_what_is_the_same_but_for_a_factor_holds_the_factor(
    measured: list[float], factor: float
) -> None:
    interval = quotient_interval([value * factor for value in measured], measured, 1, 200)
    assert interval.low <= factor * (1 + 1e-9)
    assert interval.high >= factor * (1 - 1e-9)


def test_more_rounds_make_a_narrower_interval() -> None:
    few, many = [90.0, 95, 100, 105, 110], [90.0, 95, 100, 105, 110] * 20
    assert median_interval(many, 1, 500).half_width < median_interval(few, 1, 500).half_width / 2


# Figures


@given(st.lists(st.floats(0.5, 4), min_size=5, max_size=20))
def test_the_pace_of_the_machine_drops_out(paces: list[float]) -> None:
    measured = [
        sample
        for number, pace in enumerate(paces)
        for peer, cost in (("base", 1_000), ("peer", 3_000))
        for sample in [replace(samples(peer, "a", [cost], pace=pace)[0], round=number)]
    ]
    told = figure(record_of(TWO, measured), "a", "peer")
    assert told.relative is not None
    assert told.relative.median == pytest.approx(3, rel=1e-3)
    assert told.time.median == pytest.approx(
        3_000 * usual_loop_ns(record_of(TWO, measured).questions) / LOOP_NS, rel=1e-3
    )
    assert not told.is_noisy


def test_ratios_are_taken_within_the_round() -> None:
    # Each half of the rounds has its own size, so that a ratio of medians would be 1 or 100.
    base, peer = [100.0, 10_000] * 5, [200.0, 20_000] * 5
    told = figure(record_of(TWO, samples("base", "a", base), samples("peer", "a", peer)), "a", "peer")
    assert told.relative == Interval(2, 2, 2, 10)


def test_a_round_that_the_baseline_lacks_is_not_compared() -> None:
    record = record_of(TWO, samples("base", "a", [100] * 3), samples("peer", "a", [200, 200, 200, 900, 900, 900, 900]))
    told = figure(record, "a", "peer")
    assert told.relative == Interval(2, 2, 2, 3)
    assert told.time.median == 900


def test_without_its_baseline_a_peer_has_a_time_only() -> None:
    told = figure(record_of(TWO, samples("peer", "a", [200] * 5)), "a", "peer")
    assert told.relative is None
    assert told.time.median == 200
    assert figure_relative(told) == "–"


def test_units_that_one_time_makes_divide_it() -> None:
    question = question_of(['name = "a"\nper = 50'], ["base"])
    assert figure(record_of(question, samples("base", "a", [1_000] * 5)), "a", "base").time.median == 20


DERIVED = question_of(
    ["call", "stream", 'name = "chunk"\nminuend = "stream"\nsubtrahend = "call"\nper = 50'],
    ["base", "peer"],
    'baseline = "base"\nfigures = "added"',
)


def added(noise: int = 0) -> Record:
    return record_of(
        DERIVED,
        samples("base", "call", [1_000, 1_010, 1_000, 1_010, 1_000, 1_000]),
        samples("base", "stream", [6_000, 6_010, 6_000, 6_010, 6_000, 6_000]),
        samples("peer", "call", [1_100, 1_110, 1_100, 1_110, 1_100, 1_100]),
        samples("peer", "stream", [11_100, 11_110, 11_100, 11_110, 11_100, 11_100], noisy=noise),
    )


def test_what_is_added_is_the_difference_within_the_round() -> None:
    told = figure(added(), "call", "peer")
    assert told.time.median == pytest.approx(100)
    assert told.time.half_width == pytest.approx(0, abs=1e-6)
    assert told.relative is not None
    assert told.relative.median == pytest.approx(0.1)
    assert figure_time(told) == "+100 ns"
    assert figure_relative(told) == "+10.0 %"
    assert figure(added(), "call", "base").time.median == 1_000


def test_a_derived_case_is_a_difference_within_the_round_of_what_peers_add() -> None:
    assert figure(added(), "chunk", "base").time.median == pytest.approx(100)
    told = figure(added(), "chunk", "peer")
    assert told.time.median == pytest.approx(100)  # 200 a chunk, where the baseline takes 100
    assert told.relative is not None
    assert told.relative.median == pytest.approx(1)


def test_a_derived_case_is_as_noisy_as_its_parts() -> None:
    assert not figure(added(noise=1), "chunk", "peer").is_noisy
    assert figure(added(noise=2), "chunk", "peer").is_noisy
    assert not figure(added(noise=2), "call", "peer").is_noisy


def test_what_cannot_be_told_from_nothing_is_a_bound() -> None:
    record = record_of(
        DERIVED,
        samples("base", "call", [1_000] * 6),
        samples("peer", "call", [997, 1_005, 996, 1_004, 1_003, 998]),
    )
    told = figure(record, "call", "peer")
    assert told.is_bound
    assert not told.is_noisy
    assert figure_time(told).startswith("≤ ")


def test_of_few_rounds_no_interval_is_told() -> None:
    three = figure(record_of(TWO, samples("base", "a", [100] * 3), samples("peer", "a", [200] * 3)), "a", "peer")
    assert (figure_spread(three), figure_range(three)) == ("3 rounds", "")
    assert figure_spread(figure(record_of(TWO, samples("peer", "a", [200])), "a", "peer")) == "1 round"


# Noise


@pytest.mark.parametrize(("noisy", "verdict"), [(0, False), (4, False), (5, True), (9, True)])
def test_fewer_than_five_steady_rounds_are_too_noisy(noisy: int, verdict: bool) -> None:
    told = figure(record_of(TWO, samples("peer", "a", [100] * 9, noisy=noisy)), "a", "peer")
    assert told.is_noisy == verdict
    assert (figure_time(told) == "too noisy") == verdict


def test_noisy_rounds_do_not_count() -> None:
    told = figure(record_of(TWO, samples("peer", "a", [900] * 4 + [100] * 5, noisy=4)), "a", "peer")
    assert told.time.median == told.time.high == pytest.approx(100)


def test_a_case_with_few_rounds_is_told_if_they_were_steady() -> None:
    assert not figure(record_of(TWO, samples("peer", "a", [100])), "a", "peer").is_noisy
    assert figure(record_of(TWO, samples("peer", "a", [100], noisy=1)), "a", "peer").is_noisy


def test_a_wide_interval_is_too_noisy() -> None:
    assert not figure(record_of(TWO, samples("peer", "a", [90, 95, 100, 105, 110])), "a", "peer").is_noisy
    assert figure(record_of(TWO, samples("peer", "a", [40, 60, 100, 160, 200])), "a", "peer").is_noisy


@pytest.mark.parametrize(
    ("calibrations", "wall_ns", "waits", "verdict"),
    [
        ((100, 114), 100, False, False),
        ((100, 131), 100, False, True),
        ((131, 100), 100, False, True),
        ((100, 100), 151, False, True),
        ((100, 100), 151, True, False),
        ((100, 131), 151, True, True),
    ],
)
def test_a_measurement_is_noisy_if_the_pace_changed_or_somebody_else_had_the_machine(
    calibrations: tuple[int, int], wall_ns: int, waits: bool, verdict: bool
) -> None:
    measured = Measurement(1, 100, wall_ns, calibrations, 0, 0)
    assert is_noisy(measured, Case(name="a", waits=waits), FAST) == verdict


def test_the_noise_of_the_whole_run_is_told() -> None:
    steady = record_of(TWO, samples("peer", "a", [100] * 40))
    shaky = record_of(TWO, samples("peer", "a", [100] * 20), samples("base", "a", [100] * 20, pace=2, noisy=10))
    assert unsteadiness(steady.questions) == noisy_share(steady.questions) == 0
    assert unsteadiness(shaky.questions) == pytest.approx(1 / 3)
    assert noisy_share(shaky.questions) == 0.25


def test_what_failed_has_no_figure() -> None:
    record = record_of(TWO, samples("base", "a", [100] * 5), samples("peer", "a", [100] * 5))
    record.questions[0].failures.append(Failure("peer", "it ended", "a"))
    assert results(record).figure("a", "peer") is None
    assert results(record).figure("a", "base") is not None


# Goals


def goal(limit: float, denominator: str | None = "made/base/a", **term: object) -> Goal:
    return Goal("text", limit, Term("made/peer/a", **term), denominator)  # type: ignore[arg-type] # by name


@pytest.mark.parametrize(
    ("costs", "limit", "verdict"),
    [
        ([200] * 9, 2.5, "met"),
        ([200] * 9, 1.9, "not met"),
        ([180, 190, 195, 200, 205, 210, 220, 200, 200], 2, "open"),
        ([100, 150, 200, 300, 400, 90, 350, 120, 200], 2, "too noisy"),
    ],
)
def test_a_goal_is_met_if_the_whole_interval_is_below_its_limit(costs: list[float], limit: float, verdict: str) -> None:
    record = record_of(TWO, samples("base", "a", [100] * 9), samples("peer", "a", costs))
    (outcome,) = summarise(record, [goal(limit)], None).outcomes
    assert outcome.verdict == verdict


def test_a_goal_is_open_after_few_rounds() -> None:
    record = record_of(TWO, samples("base", "a", [100] * 3), samples("peer", "a", [200] * 3))
    (outcome,) = summarise(record, [goal(3)], None).outcomes
    assert outcome.verdict == "open"


def test_a_goal_is_not_judged_by_noisy_rounds() -> None:
    """Each half of the rounds was steady for one of the two only."""
    base, peer = samples("base", "a", [100] * 10, noisy=5), samples("peer", "a", [200] * 10)
    late = [replace(each, is_noisy=each.round >= 5) for each in peer]
    (outcome,) = summarise(record_of(TWO, base, late), [goal(3)], None).outcomes
    assert outcome.verdict == "too noisy"


def test_a_goal_may_be_a_difference_in_microseconds() -> None:
    record = record_of(TWO, samples("base", "a", [100] * 5), samples("peer", "a", [2_100] * 5))
    (outcome,) = summarise(record, [goal(0.5, None, minus="made/base/a", per=4)], None).outcomes
    assert outcome.measured is not None
    assert outcome.measured.median == pytest.approx(0.5)


def test_a_goal_across_questions_is_a_ratio_of_medians() -> None:
    there = replace(TWO, name="other")
    record = record_of(TWO, samples("peer", "a", [300] * 5))
    record.questions += record_of(there, samples("base", "a", [100] * 5)).questions
    (outcome,) = summarise(record, [goal(3.5, "other/base/a")], None).outcomes
    assert outcome.measured is not None
    assert outcome.measured.median == pytest.approx(3)
    assert outcome.verdict == "met"


def test_a_goal_that_nobody_measured_says_so_and_one_of_another_question_is_left_out() -> None:
    record = record_of(TWO, samples("base", "a", [100] * 5))
    goals = [goal(1), goal(1, "elsewhere/base/a")]
    assert [outcome.verdict for outcome in judge(goals, results_of(record), FAST)] == ["not measured"]


def test_goals_that_are_none(tmp_path: Path) -> None:
    assert load_goals(tmp_path) == ()
    (tmp_path / "goals.toml").write_text('[[goals]]\ntext = "t"\nlimit = 1\nnumerator = "a/b"', encoding="utf-8")
    with pytest.raises(BenchError, match="question/peer/case"):
        load_goals(tmp_path)


# Comparing


def two_runs(question: Question, now: list[float], **machine: str) -> tuple[Record, Record]:
    old = record_of(question, samples("base", "a", [100] * 9), samples("peer", "a", [200, 202, 198] * 3))
    new = record_of(
        question, samples("base", "a", [100] * 9), samples("peer", "a", now), machine=replace(MACHINE, **machine)
    )
    return old, new


@pytest.mark.parametrize(
    ("now", "beyond"), [([200, 202, 198] * 3, False), ([204, 206, 202] * 3, False), ([240, 242, 238] * 3, True)]
)
def test_a_change_is_told_if_it_is_beyond_noise(now: list[float], beyond: bool) -> None:
    old, new = two_runs(TWO, now)
    comparison = compare(results_of(old), results_of(new), (old, new))
    changes = {change.peer: change.is_beyond_noise for change in comparison.changes}
    assert changes == {"base": False, "peer": beyond}
    assert comparison.missing == []


def test_a_slower_machine_is_no_change() -> None:
    old, _ = two_runs(TWO, [200])
    new = record_of(TWO, samples("base", "a", [100] * 9, pace=2), samples("peer", "a", [200] * 9, pace=2))
    comparison = compare(results_of(old), results_of(new), (old, new))
    assert not any(change.is_beyond_noise for change in comparison.changes)


def test_another_machine_is_compared_by_ratios() -> None:
    old, new = two_runs(TWO, [300] * 9, cpu="another processor")
    comparison = compare(results_of(old), results_of(new), (old, new))
    assert not comparison.is_same_machine
    assert [(change.peer, change.is_beyond_noise) for change in comparison.changes] == [("peer", True)]


def test_what_cannot_be_compared_is_named() -> None:
    old, new = two_runs(TWO, [100, 900, 100, 900, 100, 900, 100, 900, 100])
    comparison = compare(results_of(old), results_of(new), (old, new))
    assert comparison.missing == ["made, a, peer: too noisy now"]
    otherwise = question_of(['name = "a"\nper = 2'], ["base", "peer"], 'baseline = "base"')
    old, new = two_runs(TWO, [200])[0], two_runs(otherwise, [200] * 9)[1]
    comparison = compare(results_of(old), results_of(new), (old, new))
    assert comparison.missing == ["made, a, base: measured otherwise then", "made, a, peer: measured otherwise then"]
    fewer = record_of(question_of(["a"], ["base"]), samples("base", "a", [100] * 9))
    assert "made, a, peer: not measured now" in compare(results_of(old), results_of(fewer), (old, fewer)).missing


def test_other_versions_are_named() -> None:
    old, new = two_runs(TWO, [200] * 9)
    new.questions[0].peers = [replace(peer, versions={"a-library": "2.0"}) for peer in new.questions[0].peers]
    assert compare(results_of(old), results_of(new), (old, new)).versions == ["a-library 1.0 → 2.0"]


# The file, and what people read


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = added()
    record.save(tmp_path / "run.json")
    assert load_record(tmp_path / "run.json") == record


@pytest.mark.parametrize(
    ("content", "message"), [("nonsense", "malformed"), ("{}", "format"), ('{"format": 99}', "this is format 99")]
)
def test_a_file_that_is_no_record(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(BenchError, match=message):
        load_record(path)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 ns"),
        (0.0123, "0.0123 ns"),
        (8.4, "8.40 ns"),
        (84, "84.0 ns"),
        (1_230, "1.23 µs"),
        (-2_130_000, "-2.13 ms"),
    ],
)
def test_times_have_three_digits(value: float, text: str) -> None:
    assert time(value) == text


@given(st.floats(1e-4, 1e8))
def test_digits_are_true_to_half_a_per_cent(value: float) -> None:
    assert float(digits(value).replace(",", "")) == pytest.approx(value, rel=0.006)
