"""Hypothesis strategies for the engine's values: usages, costs, events, and whole streams of nested runs."""

from collections import deque
from collections.abc import Mapping
from decimal import Decimal
from typing import Literal

from hypothesis import strategies as st

from runmeter.engine.events import (
    AssistantRun,
    Event,
    ExecutionFinished,
    ExecutionStarted,
    FunctionCall,
    ModelCallStarted,
    Notice,
    Provenance,
    Retrieval,
    RunReported,
    Status,
    TokenUsage,
    UnknownEvent,
    Usage,
)
from runmeter.engine.prices.cost_estimate import CostEstimate

DAY = 86_400 * 10**9
"""Nanoseconds."""
NOW = 1_795_305_600 * 10**9
"""2026-11-22, in nanoseconds since the Unix epoch."""

MODELS = ("gpt-6-luna", "gpt-6.1-terra", "gpt-5-mini", "no-such-model")
PATTERNS = ("routing", "prompt_chaining", "openai_rag", "augmented_llm")
FRAMEWORKS = ("langgraph", "openai")
_KINDS = ("model", "function", "assistant", "retrieval", "notice", "unknown")
ERRORS = (None, "TimeoutError", "rate_limit_exceeded")

run_ids = st.integers(1, 2**128 - 1).map(lambda number: f"{number:032x}")
durations = st.integers(0, 600 * 10**9)
token_counts = st.one_of(st.integers(0, 2_000), st.integers(0, 1_050_000), st.sampled_from([271_999, 272_000, 272_001]))
"""With emphasis on 272,000: where OpenAI's prices for long prompts begin."""
tag_sets = st.dictionaries(st.sampled_from(["tenant", "team"]), st.sampled_from(["acme", "umbrella", ""]))


@st.composite
def splits(draw: st.DrawFn, total: int, parts: int) -> list[int]:
    """Whole numbers that add up to a total."""
    cuts = sorted(draw(st.lists(st.integers(0, total), min_size=parts - 1, max_size=parts - 1)))
    return [end - start for start, end in zip([0, *cuts], [*cuts, total], strict=True)]


@st.composite
def text_usages(draw: st.DrawFn) -> Usage:
    """Usage as an API reports it for text: all counts fit together."""
    total_input, total_output = draw(token_counts), draw(token_counts)
    _, read, written = draw(splits(total_input, 3))
    return Usage(
        input_tokens=total_input,
        output_tokens=total_output,
        cache_read_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=draw(st.integers(0, total_output)),
    )


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """Usage of some kinds or all: all counts fit together."""
    total_input, total_output = draw(token_counts), draw(token_counts)
    inputs = draw(_shares(total_input, ("read", "written", "audio", "audio_read", "image")))
    outputs = draw(_shares(total_output, ("reasoning", "audio", "image")))
    return Usage(
        input_tokens=total_input,
        output_tokens=total_output,
        cache_read_tokens=inputs["read"] + inputs["audio_read"],
        cache_write_tokens=inputs["written"],
        cache_write_12h_tokens=draw(st.sampled_from([0, 0, 0, inputs["written"]])),
        reasoning_tokens=outputs["reasoning"],
        audio_input_tokens=inputs["audio"] + inputs["audio_read"],
        audio_cache_read_tokens=inputs["audio_read"],
        audio_output_tokens=outputs["audio"],
        image_input_tokens=inputs["image"],
        image_output_tokens=outputs["image"],
        web_searches=draw(st.just(0) | st.integers(0, 5)),
        file_searches=draw(st.just(0) | st.integers(0, 5)),
    )


@st.composite
def _shares(draw: st.DrawFn, total: int, kinds: tuple[str, ...]) -> dict[str, int]:
    """What part of a total each kind has: some have none, and the rest of the total is of no kind."""
    present = sorted(draw(st.sets(st.sampled_from(kinds))))
    return dict.fromkeys(kinds, 0) | dict(zip(present, draw(splits(total, len(present) + 1))[1:], strict=True))


wild_usages = st.builds(Usage, *[st.one_of(st.integers(-5, 5), st.integers()) for _ in Usage.__struct_fields__])
"""Usage that no API should ever report."""

amounts = st.integers(0, 10**15).map(lambda number: Decimal(number).scaleb(-12))
"""USD."""


@st.composite
def costs(draw: st.DrawFn) -> CostEstimate:
    """Costs that are exact, between bounds, without an upper bound, or with requests that have no price."""
    low = draw(amounts)
    if draw(st.booleans()):
        return CostEstimate.between(low, low)
    if draw(st.booleans()):
        return CostEstimate.between(low, low + draw(amounts))
    return CostEstimate.between(low, None, draw(st.integers(0, 3)))


@st.composite
def token_usages(
    draw: st.DrawFn,
    *,
    run_id: str = "1" * 32,
    seq: int = 1,
    models: st.SearchStrategy[str] | None = None,
    usage: st.SearchStrategy[Usage] | None = None,
    provenances: st.SearchStrategy[Provenance] | None = None,
) -> TokenUsage:
    """The end of a request to OpenAI."""
    provenance = draw(provenances or st.sampled_from(Provenance))
    duration = draw(durations)
    return TokenUsage(
        run_id=run_id,
        seq=seq,
        time_ns=NOW,
        call_id=seq,
        provider="openai",
        operation="chat",
        model=draw(models or st.sampled_from(MODELS)),
        provenance=provenance,
        usage=None if provenance is Provenance.UNKNOWN else draw(usage or text_usages()),
        start_ns=NOW,
        duration_ns=duration,
        first_chunk_ns=draw(st.none() | st.integers(0, duration)),
        service_tier=draw(st.sampled_from([None, "default", "flex", "ultrafast"])),
        error_type=draw(st.sampled_from(ERRORS)),
    )


@st.composite
def function_calls(draw: st.DrawFn, *, run_id: str = "1" * 32, seq: int = 1) -> FunctionCall:
    """A tool's work."""
    return FunctionCall(
        run_id=run_id,
        seq=seq,
        time_ns=NOW,
        name=draw(st.sampled_from(["find_parcel", "refund"])),
        start_ns=NOW,
        duration_ns=draw(durations),
        error_type=draw(st.sampled_from(ERRORS)),
    )


@st.composite
def assistant_runs(draw: st.DrawFn, *, run_id: str = "1" * 32, seq: int = 1) -> AssistantRun:
    """An assistant's work on a thread."""
    thread: Literal["created", "resumed"] | None = draw(st.sampled_from([None, "created", "resumed"]))
    return AssistantRun(
        run_id=run_id,
        seq=seq,
        time_ns=NOW,
        assistant="support",
        start_ns=NOW,
        duration_ns=draw(durations),
        status=draw(st.sampled_from(Status)),
        thread_id=thread and "conv_1",
        thread=thread,
    )


@st.composite
def retrievals(draw: st.DrawFn, *, run_id: str = "1" * 32, seq: int = 1) -> Retrieval:
    """A search for passages."""
    return Retrieval(
        run_id=run_id,
        seq=seq,
        time_ns=NOW,
        source=draw(st.sampled_from(["local", "vs_1"])),
        start_ns=NOW,
        duration_ns=draw(durations),
        documents=draw(st.integers(0, 50)),
        top_score=draw(st.none() | st.floats(allow_nan=False, allow_infinity=False)),
        requested=draw(st.none() | st.integers(0, 50)),
        error_type=draw(st.sampled_from(ERRORS)),
    )


@st.composite
def notices(draw: st.DrawFn, *, run_id: str = "1" * 32, seq: int = 1) -> Notice:
    """Something that somebody should know of."""
    kind = draw(st.sampled_from(["budget", "model_retirement"]))
    return Notice(run_id=run_id, seq=seq, time_ns=NOW, kind=kind, subject="gpt-5-mini", message="it nears its end")


@st.composite
def reported_runs(draw: st.DrawFn) -> RunReported:
    """A run told by hand, by as much as is known."""
    usage = draw(st.none() | text_usages())
    return RunReported(
        run_id=draw(run_ids),
        seq=0,
        time_ns=NOW,
        pattern=draw(st.sampled_from(PATTERNS)),
        framework=draw(st.sampled_from(FRAMEWORKS)),
        status=draw(st.sampled_from([Status.OK, Status.ERROR])),
        duration_ns=draw(st.none() | durations),
        model=None if usage is None else draw(st.sampled_from(MODELS)),
        usage=usage,
        provenance=draw(st.sampled_from([Provenance.REPORTED, Provenance.PARTIAL])),
        function_calls=draw(st.integers(0, 5)),
        assistant_runs=draw(st.integers(0, 2)),
    )


@st.composite
def runs(
    draw: st.DrawFn,
    *,
    run_id: str | None = None,
    parent: ExecutionStarted | None = None,
    tags: st.SearchStrategy[Mapping[str, str]] = tag_sets,
    finished: bool | None = None,
) -> list[Event]:
    """The events of one run in order: its start, what happened in it, and its end unless it is still going on."""
    run_id = run_id or draw(run_ids)
    events: list[Event] = [
        ExecutionStarted(
            run_id=run_id,
            seq=0,
            time_ns=NOW,
            pattern=draw(st.sampled_from(PATTERNS)),
            framework=draw(st.sampled_from(FRAMEWORKS)),
            root_run_id=parent.root_run_id if parent else run_id,
            parent_run_id=parent.run_id if parent else None,
            tags=draw(tags),
        )
    ]
    for kind in draw(st.lists(st.sampled_from(_KINDS), max_size=4)):
        seq = len(events)
        if kind == "model":
            usage = draw(token_usages(run_id=run_id, seq=seq + 1))
            started = ModelCallStarted(
                run_id=run_id,
                seq=seq,
                time_ns=NOW,
                call_id=usage.call_id,
                provider=usage.provider,
                operation=usage.operation,
                model=usage.model,
            )
            events += [started, usage]
        elif kind == "function":
            events.append(draw(function_calls(run_id=run_id, seq=seq)))
        elif kind == "assistant":
            events.append(draw(assistant_runs(run_id=run_id, seq=seq)))
        elif kind == "retrieval":
            events.append(draw(retrievals(run_id=run_id, seq=seq)))
        elif kind == "notice":
            events.append(draw(notices(run_id=run_id, seq=seq)))
        else:
            fields = {"type": "handoff", "run_id": run_id, "seq": seq, "time_ns": NOW, "target": "billing"}
            events.append(UnknownEvent(run_id=run_id, seq=seq, time_ns=NOW, kind="handoff", fields=fields))
    if draw(st.booleans()) if finished is None else finished:
        events.append(
            ExecutionFinished(
                run_id=run_id,
                seq=len(events),
                time_ns=NOW,
                status=draw(st.sampled_from(Status)),
                duration_ns=draw(durations),
                error_type=draw(st.sampled_from(ERRORS)),
            )
        )
    return events


@st.composite
def run_families(draw: st.DrawFn, *, max_runs: int = 5) -> list[list[Event]]:
    """The events of several runs, each run's by itself, some of them children of others."""
    families: list[list[Event]] = []
    starts: list[ExecutionStarted] = []
    for number in range(draw(st.integers(1, max_runs))):
        parent = draw(st.none() | st.sampled_from(starts)) if starts else None
        run = draw(runs(run_id=f"{number + 1:032x}", parent=parent))
        families.append(run)
        assert isinstance(run[0], ExecutionStarted)
        starts.append(run[0])
    return families


@st.composite
def interleavings(draw: st.DrawFn, sequences: list[list[Event]]) -> list[Event]:
    """All events of several sequences in one, each sequence in its own order."""
    turns = draw(st.permutations([number for number, events in enumerate(sequences) for _ in events]))
    waiting = [deque(events) for events in sequences]
    return [waiting[turn].popleft() for turn in turns]


@st.composite
def event_streams(draw: st.DrawFn, *, max_runs: int = 5) -> list[Event]:
    """Events of several nested runs that go on at the same time."""
    return draw(interleavings(draw(run_families(max_runs=max_runs))))
