# /// script
# requires-python = ">=3.11"
# dependencies = ["runmeter"]
# ///
"""What each part of the engine costs: Runmeter.

- Publishing is measured on a running bus, without delivery: its subscribers are lossy and may be one event behind, so
  all other events are dropped unread. The `bus` question measures delivery.
- Folding is into statistics and cost. "fold an event" is the mean over start, usage and end of runs of one call each.
- "span" builds the SDK's `ReadableSpan` from an event. "span and metrics" is all that telemetry does for a model call,
  whose two events it takes in batches as from the bus; spans end at a processor that drops them.
- The emit site is `with current_execution().model_call(request)` with the request at hand.
- An empty run is `await engine.run(nothing, "")` until its events are folded; a one-call run records one model call.
"""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from worker import Bench, Work, serve

if TYPE_CHECKING:
    from runmeter.engine import PriceBook, TokenUsage

BUS_BATCH = 1_000
"""Events that statistics are handed at once, at most."""
TELEMETRY_BATCH = 25
"""Model calls that telemetry is handed at once: two events each."""
EXPORT_BATCH = 512
"""Spans that are encoded at once: the SDK's default."""


def load() -> Bench:
    import runmeter.engine  # noqa: F401 - all that is timed as import

    cases: dict[str, Work] = {}
    for part in (_events, _folding, _prices, _histogram, _telemetry, _runs, _codec):
        cases |= part()
    return Bench(cases)


@cache
def _price_book() -> "PriceBook":
    from runmeter.engine import PriceBook

    book = PriceBook()
    book.load()
    return book


def _usage_event(seq: int = 2, run_id: str | None = None, **fields: Any) -> "TokenUsage":
    """The end of a request to a model, as from the API."""
    from engine import call

    from runmeter.engine import Provenance, TokenUsage, TraceContext, Usage

    values: dict[str, Any] = {
        "run_id": run_id or call.RUN_ID,
        "seq": seq,
        "time_ns": call.NOW_NS,
        "trace": TraceContext("2" * 32, "3" * 16, "4" * 16),
        "call_id": 1,
        "provider": call.PROVIDER,
        "operation": "chat",
        "model": call.MODEL,
        "provenance": Provenance.REPORTED,
        "usage": Usage(
            input_tokens=call.INPUT_TOKENS,
            output_tokens=call.OUTPUT_TOKENS,
            cache_read_tokens=call.CACHE_READ_TOKENS,
            cache_write_tokens=call.CACHE_WRITE_TOKENS,
            reasoning_tokens=call.REASONING_TOKENS,
        ),
        "start_ns": call.NOW_NS,
        "duration_ns": call.SECOND_NS,
        "response_id": "resp_0123456789",
        "response_model": call.MODEL,
        "service_tier": call.SERVICE_TIER,
        "finish_reasons": ("stop",),
    }
    return TokenUsage(**values | fields)


def _started(run_id: str) -> Any:
    from engine.call import NOW_NS

    from runmeter.engine import ExecutionStarted

    return ExecutionStarted(
        run_id=run_id, seq=0, time_ns=NOW_NS, pattern="support", framework="python", root_run_id=run_id
    )


def _events() -> dict[str, Work]:  # noqa: C901 - a function for each case
    from anyio.lowlevel import checkpoint
    from engine.call import TOOL_CALL, blocks

    from runmeter.engine import Bus, FunctionCall

    values = tuple(TOOL_CALL.values())
    event = FunctionCall(**TOOL_CALL)

    def build(times: int) -> None:
        run_id, seq, time_ns, trace, name, start_ns, duration_ns, call_id, error_type, error_message = values
        for _ in range(times):
            FunctionCall(
                run_id=run_id,
                seq=seq,
                time_ns=time_ns,
                trace=trace,
                name=name,
                start_ns=start_ns,
                duration_ns=duration_ns,
                call_id=call_id,
                error_type=error_type,
                error_message=error_message,
            )

    def publish_new(bus: Bus, times: int) -> None:
        run_id, seq, time_ns, trace, name, start_ns, duration_ns, call_id, error_type, error_message = values
        for _ in range(times):
            bus.publish(
                FunctionCall(
                    run_id=run_id,
                    seq=seq,
                    time_ns=time_ns,
                    trace=trace,
                    name=name,
                    start_ns=start_ns,
                    duration_ns=duration_ns,
                    call_id=call_id,
                    error_type=error_type,
                    error_message=error_message,
                )
            )

    def publish_same(bus: Bus, times: int) -> None:
        for _ in range(times):
            bus.publish(event)

    def on_a_bus(publish: Callable[[Bus, int], None], subscribers: int) -> Work:
        async def work(times: int) -> None:
            async with Bus(linger=0) as bus:
                for number in range(subscribers):
                    bus.subscribe(lambda _: None, name=str(number), lane="lossy", capacity=1)
                for size in blocks(times):
                    publish(bus, size)
                    while bus.statistics().retained > 1:  # until what nobody reads is dropped
                        await checkpoint()
                assert bus.statistics().published == times

        return work

    return {
        "build an event": build,
        "publish": on_a_bus(publish_same, 1),
        "publish, 10 subscribers": on_a_bus(publish_same, 10),
        "build and publish": on_a_bus(publish_new, 1),
    }


def _folding() -> dict[str, Work]:
    from engine.call import NOW_NS, SECOND_NS, blocks

    from runmeter.engine import Event, ExecutionFinished, Status, UsageAggregator

    runs, requests = 2_000, 5_000

    @cache
    def events_of_runs() -> list[Event]:
        events: list[Event] = []
        for number in range(runs):
            run_id = f"{number + 1:032x}"
            duration_ns = SECOND_NS + number
            finished = ExecutionFinished(
                run_id=run_id, seq=2, time_ns=NOW_NS, status=Status.OK, duration_ns=duration_ns
            )
            events += [_started(run_id), _usage_event(1, run_id, duration_ns=duration_ns), finished]
        return events

    @cache
    def events_of_requests() -> list[Event]:
        return [_usage_event(seq + 1, duration_ns=SECOND_NS + seq) for seq in range(requests)]

    def fold(aggregator: UsageAggregator, events: list[Event]) -> None:
        for start in range(0, len(events), BUS_BATCH):
            aggregator.fold(events[start : start + BUS_BATCH])

    def fold_runs(times: int) -> None:
        for size in blocks(times, runs):
            fold(UsageAggregator(_price_book()), events_of_runs()[: 3 * size])

    def fold_requests(times: int) -> None:
        for size in blocks(times, requests):
            aggregator = UsageAggregator(_price_book())
            aggregator.fold([_started(events_of_requests()[0].run_id)])
            fold(aggregator, events_of_requests()[:size])

    return {"fold an event": fold_runs, "fold a usage event": fold_requests}


def _prices() -> dict[str, Work]:
    from engine.call import MODEL, NOW_NS, PROVIDER, SERVICE_TIER

    from runmeter.engine import Provenance, Usage

    bound = Usage(300_000, 4_000)

    def price(**fields: Any) -> Work:
        def work(times: int) -> None:
            cost = _price_book().cost
            event = _usage_event(**fields)
            for _ in range(times):
                cost(event)

        return work

    def upper_bound(times: int) -> None:
        most = _price_book().upper_bound
        for _ in range(times):
            most(PROVIDER, MODEL, SERVICE_TIER, bound, NOW_NS)

    return {
        "price of a call": price(),
        "price of a cut stream": price(provenance=Provenance.PARTIAL, bound=bound),
        "price of an unknown model": price(response_model="no-such-model"),
        "upper bound of a price": upper_bound,
    }


def _histogram() -> dict[str, Work]:
    from engine.call import in_turn, latencies

    from runmeter.engine import Histogram

    def add(times: int) -> None:
        histogram = Histogram()
        for value in in_turn(latencies(), times):
            histogram.add(value)

    def merge(times: int) -> None:
        part, whole = Histogram(), Histogram()
        for value in latencies():
            part.add(value)
        snapshot = part.snapshot()
        for _ in range(times):
            whole.merge(snapshot)
        assert whole.snapshot().count == snapshot.count * times

    return {"histogram add": add, "histogram merge": merge}


def _telemetry() -> dict[str, Work]:  # noqa: C901 - a function for each case
    from engine.call import MODEL, NOW_NS, PROVIDER, blocks

    from runmeter.engine import Event, ModelCallStarted

    @cache
    def call_started() -> Event:
        return ModelCallStarted(
            run_id=_usage_event().run_id,
            seq=1,
            time_ns=NOW_NS,
            trace=_usage_event().trace,
            call_id=1,
            provider=PROVIDER,
            operation="chat",
            model=MODEL,
            api="responses",
            server_address="api.openai.com",
            server_port=443,
        )

    @cache
    def builder() -> Callable[[], Any]:
        """Builds the span of a model call."""
        from opentelemetry.sdk.trace import SpanLimits
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        from runmeter.telemetry.open_runs import OpenRuns
        from runmeter.telemetry.spans import SpanBuilder

        spans, runs = SpanBuilder(InstrumentationScope("runmeter", "1"), SpanLimits()), OpenRuns(_price_book().cost, 1)
        ended = _usage_event()
        trace = ended.trace
        for event in (_started(ended.run_id), call_started(), ended):
            run = runs.fold(event)
        assert trace is not None
        return lambda: spans.build(ended, trace, run)

    def span(times: int) -> None:
        build = builder()
        for _ in range(times):
            build()

    def encode(times: int) -> None:
        from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

        build = builder()
        for size in blocks(times, EXPORT_BATCH):
            encode_spans([build() for _ in range(size)]).SerializeToString()

    @cache
    def telemetry() -> Any:
        from opentelemetry.sdk.trace import TracerProvider

        from runmeter.telemetry import configure

        # Measurements would be sent once a minute, to a collector that is not there.
        spans, nowhere = TracerProvider(shutdown_on_exit=False), "http://127.0.0.1:1"
        made = configure(tracer_provider=spans, endpoint=nowhere, price=_price_book().cost)
        made.receive([_started(_usage_event().run_id)])
        return made

    def span_and_metrics(times: int) -> None:
        receive, before = telemetry().receive, telemetry().statistics().spans
        events = [call_started(), _usage_event()] * TELEMETRY_BATCH
        for size in blocks(times, TELEMETRY_BATCH):
            receive(events[: 2 * size])
        assert telemetry().statistics().spans == before + times

    return {"span": span, "span and metrics": span_and_metrics, "events to OTLP bytes": encode}


def _runs() -> dict[str, Work]:
    from runmeter.engine import Engine, ModelRequest, Usage, current_execution

    request, used = ModelRequest(provider="openai", model="gpt-6-luna"), Usage(1_000, 100)

    def emit_site(times: int) -> None:
        for _ in range(times):
            with current_execution().model_call(request):
                pass

    async def nothing(messages: object, context: object) -> None:
        return None

    async def one_call(messages: object, context: object) -> None:
        with current_execution().model_call(request) as call:
            call.record(used)

    def runs_of(pattern: Any) -> Work:
        async def work(times: int) -> None:
            async with Engine(prices=_price_book()) as engine:
                for _ in range(times):
                    await engine.run(pattern, "")
            assert engine.usage().total.executions == times

        return work

    return {
        "emit site with no engine": emit_site,
        "empty run": runs_of(nothing),
        "one-call run": runs_of(one_call),
    }


def _codec() -> dict[str, Work]:
    from engine.call import TOOL_CALL

    from runmeter.engine import MSGPACK, FunctionCall

    event = FunctionCall(**TOOL_CALL)
    data = MSGPACK.encode(event)

    def encode(times: int) -> None:
        for _ in range(times):
            MSGPACK.encode(event)

    def decode(times: int) -> None:
        for _ in range(times):
            MSGPACK.decode(data)

    return {"codec encode": encode, "codec decode": decode}


if __name__ == "__main__":
    serve(load, ["runmeter", "msgspec", "anyio", "genai-prices", "opentelemetry-sdk"])
