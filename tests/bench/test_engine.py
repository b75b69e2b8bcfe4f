"""The benchmarks of the engine, of its growth and of imports: every peer does what its question says."""

import re
from collections.abc import Mapping

import pytest
from campaign_support import shortly

from runmeter.bench.errors import PeerFailed
from runmeter.bench.peer import Peer, Ready, command_for, environment_of, prepare
from runmeter.bench.question import SHIPPED, Question, load_question

ENGINE, GROWTH, IMPORTS = (load_question(SHIPPED / name) for name in ("engine", "growth", "imports"))
NO_NETWORK = re.compile(r"fetch|dns|connect|network|download", re.IGNORECASE)
TIMES = 1_030
"""More than one batch of whatever is taken in batches, and the last one smaller; a few of a slow one."""
LIMITS_OF = {
    "plain": {"build an event", "publish", "histogram add", "emit site with no engine", "empty run"},
    "msgspec_struct": {"build an event", "codec encode", "codec decode"},
    "opentelemetry": {
        "counter add",
        "histogram add",
        "fold a usage event",
        "span",
        "span and metrics",
        "events to OTLP bytes",
        "encode a span",
    },
    "genai_prices": {"price of a call"},
    "ddsketch": {"histogram add", "histogram merge"},
}
"""What each limit has in common with the engine, or stands for by itself."""
THEIRS_ALONE = {"counter add", "encode a span"}


def started(question: Question, name: str) -> Peer:
    script = SHIPPED / question.name / f"{name}.py"
    try:
        prepare(script)
    except PeerFailed as failure:
        if NO_NETWORK.search(str(failure)):
            pytest.skip(f"{name} needs an environment of its own, which cannot be made without network: {failure}")
        raise
    return Peer(command_for(script), environment_of(SHIPPED))


def do_all(question: Question, name: str, times: Mapping[str, int]) -> Ready:
    """Have a peer do each of its cases, and return what it said first."""
    with started(question, name) as peer:
        ready = peer.ready()
        for case in ready.cases:
            if case in times:
                measured = peer.measure(case, times[case])  # raises if the case finds its result wrong
                assert measured.times == times[case]
                assert measured.cpu_ns > 0
    return ready


@pytest.mark.parametrize("name", shortly((peer.name for peer in ENGINE.peers), "runmeter".__eq__))
def test_every_case_of_the_engine_is_done(name: str) -> None:
    names = {case.name for case in ENGINE.cases}
    ready = do_all(ENGINE, name, dict.fromkeys(names, TIMES))
    expected = names - THEIRS_ALONE if name == "runmeter" else LIMITS_OF[name]
    assert set(ready.cases) == expected


def test_every_ratio_of_the_engine_has_both_sides() -> None:
    assert {peer.name for peer in ENGINE.peers} == {"runmeter", *LIMITS_OF}
    for case in ENGINE.cases:
        assert case.baseline is None or case.name in LIMITS_OF[case.baseline]


@pytest.mark.campaign
def test_growth_counts_every_run() -> None:
    counts = {"10 runs": 30, "100 runs": 200, "1,000 runs": 1_000, "10,000 runs": 10_000}  # the others take long
    ready = do_all(GROWTH, "runmeter", counts | {"overload, lossless": 500, "overload, lossy": 500})
    assert set(ready.cases) == {case.name for case in GROWTH.cases}


@pytest.mark.campaign
def test_an_overload_loses_nothing_or_counts_what_it_loses() -> None:
    with started(GROWTH, "runmeter") as peer:
        checks = peer.ready().checks
    lossless, lossy = (
        {name.removeprefix(f"overload, {lane}: "): value for name, value in checks.items() if f", {lane}:" in name}
        for lane in ("lossless", "lossy")
    )
    assert lossless["published"] == lossless["delivered"] == lossy["published"]
    assert lossless["dropped"] == 0
    assert lossy["dropped"] > 0
    assert lossy["dropped"] == lossy["published"] - lossy["delivered"]  # none is pending in the end
    assert 0 < max(lossless["peak in memory"], lossy["peak in memory"]) < lossy["published"]


@pytest.mark.campaign
@pytest.mark.parametrize("name", [peer.name for peer in IMPORTS.peers])
def test_an_import_takes_time_and_memory(name: str) -> None:
    with started(IMPORTS, name) as peer:
        ready = peer.ready()
    assert ready.cases == ()
    assert ready.import_cpu_ns > 1_000_000
    assert ready.import_rss > 0
