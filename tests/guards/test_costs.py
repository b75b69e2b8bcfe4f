"""What the hot paths cost, in counts that are the same on every machine: a guard against growing slower unnoticed.

Instructions are the bytecode instructions of this package's own code; what libraries and C code do is not in them.
Blocks are those of Python's allocator (up to 512 bytes each) that stay in use, for the result and all it leaves behind.
Times are measured by `runmeter bench`, on a machine that has nothing else to do.
"""

import gc
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pytest
from counting_support import instructions
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from process_support import output_of, python

from runmeter.engine import (
    MSGPACK,
    Bus,
    Engine,
    Event,
    Execution,
    ExecutionFinished,
    ExecutionStarted,
    FunctionCall,
    Histogram,
    ModelRequest,
    PriceBook,
    Provenance,
    RunInfo,
    Runtime,
    Status,
    TokenUsage,
    TraceContext,
    Usage,
    UsageAggregator,
    current_execution,
)
from runmeter.engine.concurrency.outside import outside
from runmeter.telemetry.export.exporter import Exporter
from runmeter.telemetry.export.queue import Bounds
from runmeter.telemetry.export.queuing import QueuingSpanProcessor
from runmeter.telemetry.export.verdict import Taken
from runmeter.telemetry.open_runs import OpenRuns
from runmeter.telemetry.spans import SpanBuilder

Work: TypeAlias = Callable[[], object]


class Limit(NamedTuple):
    """What something may cost each time."""

    instructions: int
    blocks: float


LIMITS = {
    "publish an event": Limit(13, 0.1),
    "build and publish an event": Limit(175, 4.4),
    "model call": Limit(476, 6.4),
    "fold a usage event": Limit(447, 0.1),
    "fold a one-call run": Limit(756, 1.2),
    "price of a call": Limit(154, 2.3),
    "histogram add": Limit(52, 0.1),
    "span": Limit(577, 10),
    "queue a span": Limit(189, 2.3),
    "encode an event": Limit(15, 1.1),
    "emit site with no engine": Limit(13, 0.1),
    "empty run": Limit(601, 8.9),
    "one-call run": Limit(1_190, 15.7),
}
"""About a tenth above what it is on the Python that needs most: 3.11 takes up to 20 % more instructions than 3.12 and
3.13 do for the same source. Who makes something dearer on purpose raises its limit; who makes it cheaper lowers it."""
MODULES = 228
"""That `import runmeter` loads, the standard library's included; likewise."""

REPEATS = 200
WARM_UP = 5
TIMES = WARM_UP + 1 + REPEATS
"""How often a work is done."""
BATCH = 20
"""Requests or runs that are folded at once."""
NOW = 1_795_305_600_000_000_000
RUN_ID = "1" * 32
MODEL = "house-model"
PRICES = f"""
[[prices]]
provider = "openai"
model = "{MODEL}"
rates = {{ input_mtok = 2, cache_read_mtok = 0.10, output_mtok = 10 }}
thresholds = [{{ above = 272_000, input = 2, output = 1.5 }}]
"""
"""Prices of our own: an update of genai-prices may change how a price is computed."""
REQUEST = ModelRequest(provider="openai", model=MODEL)
USED = Usage(input_tokens=1_000, output_tokens=100, cache_read_tokens=512)


def blocks(work: Work) -> float:
    """How many blocks stay in use each time."""
    kept: list[object] = [None] * REPEATS
    gc.collect()
    gc.disable()  # it would free what others have left behind
    try:
        before = sys.getallocatedblocks()
        for number in range(REPEATS):
            kept[number] = work()
        return (sys.getallocatedblocks() - before) / REPEATS
    finally:
        gc.enable()


def at_once(run: Coroutine[Any, Any, Any]) -> object:
    """What a coroutine returns that never waits, so that nothing else happens meanwhile."""
    try:
        run.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waited")


def started(run_id: str) -> ExecutionStarted:
    return ExecutionStarted(
        run_id=run_id, seq=0, time_ns=NOW, pattern="support", framework="python", root_run_id=run_id
    )


def ended(seq: int, run_id: str) -> TokenUsage:
    return TokenUsage(
        run_id=run_id,
        seq=seq,
        time_ns=NOW,
        trace=TraceContext("2" * 32, "3" * 16, "4" * 16),
        call_id=1,
        provider="openai",
        operation="chat",
        model=MODEL,
        provenance=Provenance.REPORTED,
        usage=USED,
        start_ns=NOW,
        duration_ns=10**9,
        response_id="resp_1",
        response_model=MODEL,
        finish_reasons=("stop",),
    )


def function_call() -> FunctionCall:
    return FunctionCall(run_id=RUN_ID, seq=2, time_ns=NOW, name="get_weather", start_ns=NOW, duration_ns=10**6)


def finished(run_id: str) -> ExecutionFinished:
    return ExecutionFinished(run_id=run_id, seq=2, time_ns=NOW, status=Status.OK, duration_ns=10**9)


class Ticking:
    """A clock that each reading moves by a millisecond: of the real one some durations need memory and some do not."""

    def __init__(self) -> None:
        self._ticks = count(NOW, 10**6)

    def time_ns(self) -> int:
        return next(self._ticks)

    def monotonic_ns(self) -> int:
        return next(self._ticks)


class Setting(NamedTuple):
    """What works need."""

    engine: Engine
    prices: PriceBook


def publishing(setting: Setting) -> Work:
    bus, event = Bus(), function_call()
    return lambda: bus.publish(event)


def calling_a_function(setting: Setting) -> Work:
    run = Execution(Runtime(None, Bus().publish, Ticking()), RunInfo("support"))

    def work() -> None:
        with run.function_call("get_weather", "call_1"):
            pass

    return work


def calling_a_model(setting: Setting) -> Work:
    run = Execution(Runtime(None, Bus().publish, Ticking()), RunInfo("support"))

    def work() -> None:
        with run.model_call(REQUEST) as call:
            call.record(USED)

    return work


def folding_requests(setting: Setting) -> Work:
    aggregator, seq = UsageAggregator(setting.prices), count(1)
    aggregator.fold([started(RUN_ID)])
    batches = [[ended(next(seq), RUN_ID) for _ in range(BATCH)] for _ in range(TIMES)]
    following = iter(batches)
    return lambda: aggregator.fold(next(following))


def folding_runs(setting: Setting) -> Work:
    aggregator, number = UsageAggregator(setting.prices), count(1)

    def run() -> list[Event]:
        run_id = f"{next(number):032x}"
        return [started(run_id), ended(1, run_id), finished(run_id)]

    batches = [[event for _ in range(BATCH) for event in run()] for _ in range(TIMES)]
    following = iter(batches)
    return lambda: aggregator.fold(next(following))


def pricing(setting: Setting) -> Work:
    event = ended(1, RUN_ID)
    return lambda: setting.prices.cost(event)


def adding_to_a_histogram(setting: Setting) -> Work:
    histogram = Histogram()
    return lambda: histogram.add(123_456_789)


def building_a_span(setting: Setting) -> Work:
    builder, runs = SpanBuilder(InstrumentationScope("test"), SpanLimits()), OpenRuns(setting.prices.cost, 1)
    event = ended(1, RUN_ID)
    runs.fold(started(RUN_ID))
    run, trace = runs.fold(event), event.trace
    assert trace is not None
    return lambda: builder.build(event, trace, run)


class Nowhere:
    """Where the spans would be sent."""

    def send(self, body: bytes, timeout: float) -> Taken:
        return Taken()

    def close(self) -> None:
        pass


def queuing_a_span(setting: Setting) -> Work:
    bounds = Bounds(size=10_000_000, age=300, batch_count=1_000, batch_size=10_000_000, delay=5)
    exporter = Exporter[ReadableSpan]("spans", bounds, lambda _: b"", Nowhere, 10)
    span = building_a_span(setting)()
    assert isinstance(span, ReadableSpan)
    queue = QueuingSpanProcessor(exporter)
    return lambda: queue.on_end(span)


def encoding(setting: Setting) -> Work:
    event = function_call()
    return lambda: MSGPACK.encode(event)


def emitting_to_nobody(setting: Setting) -> Work:
    outside.close(setting.engine._runtime)  # an engine that runs would count it, as a run of its own

    def work() -> None:
        with current_execution().model_call(REQUEST):
            pass

    return work


async def nothing(messages: object, context: object) -> None:
    return None


async def one_call(messages: object, context: object) -> None:
    with current_execution().model_call(REQUEST) as call:
        call.record(USED)


WORKS: dict[str, tuple[Callable[[Setting], Work], int]] = {
    "publish an event": (publishing, 1),
    "build and publish an event": (calling_a_function, 1),
    "model call": (calling_a_model, 1),
    "fold a usage event": (folding_requests, BATCH),
    "fold a one-call run": (folding_runs, BATCH),
    "price of a call": (pricing, 1),
    "histogram add": (adding_to_a_histogram, 1),
    "span": (building_a_span, 1),
    "queue a span": (queuing_a_span, 1),
    "encode an event": (encoding, 1),
    "emit site with no engine": (emitting_to_nobody, 1),
    "empty run": (lambda setting: lambda: at_once(setting.engine.run(nothing, "")), 1),
    "one-call run": (lambda setting: lambda: at_once(setting.engine.run(one_call, "")), 1),
}
"""How to make each work, and how many of its name it does at once."""


@pytest.fixture(scope="module")
def prices(tmp_path_factory: pytest.TempPathFactory) -> PriceBook:
    path = tmp_path_factory.mktemp("prices") / "prices.toml"
    path.write_text(PRICES, "utf-8")
    book = PriceBook(path)
    book.load()
    return book


@pytest.fixture
def anyio_backend() -> str:
    """Asyncio alone: trio's own tasks would be another machinery to drive by hand."""
    return "asyncio"


@pytest.fixture
async def setting(prices: PriceBook) -> AsyncIterator[Setting]:
    async with Engine(prices=prices, clock=Ticking()) as engine:
        yield Setting(engine, prices)


@pytest.mark.parametrize("name", LIMITS)
async def test_nothing_has_grown_dearer(name: str, setting: Setting) -> None:
    make, per = WORKS[name]
    work, limit = make(setting), LIMITS[name]
    for _ in range(WARM_UP):
        work()
    executed, kept = instructions(work) / per, blocks(work) / per
    for found, most, what in (
        (executed, limit.instructions, "instructions"),
        (kept, limit.blocks, "blocks of memory"),
    ):
        assert found <= most, (
            f"{name}: {found:.5g} {what}, at most {most} allowed. Make it cheaper, or if it is worth that, "
            f"raise LIMITS[{name!r}].{what.split()[0]} in {Path(__file__).name} to {found * 1.1:.3g}"
        )


def test_importing_loads_few_modules() -> None:
    code = "import sys; before = set(sys.modules); import runmeter; print(*sorted(set(sys.modules) - before))"
    loaded = output_of(python(code)).split()
    assert len(loaded) <= MODULES, (
        f"`import runmeter` loads {len(loaded)} modules, at most {MODULES} allowed. Import on first use what is not "
        f"always needed, or raise MODULES in {Path(__file__).name}: {' '.join(loaded)}"
    )


def test_every_instruction_of_ours_counts_and_no_other() -> None:
    histogram = Histogram()
    histogram.add(1_000)

    def thrice() -> None:
        for _ in range(3):
            histogram.add(1_000)

    once = instructions(lambda: histogram.add(1_000))
    assert once > 0
    assert instructions(thrice) == 3 * once
    assert instructions(lambda: sorted(range(10), key=lambda number: -number)) == 0


def test_every_block_that_is_kept_counts() -> None:
    assert blocks(lambda: None) == pytest.approx(0, abs=0.05)
    assert blocks(lambda: (object(), [object()])) == pytest.approx(5, abs=0.05)  # a list's items have a block too
