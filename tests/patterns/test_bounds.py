"""The most that a request can use."""

import math
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pattern_support import Run

from runmeter.engine import ModelRequest, Provenance, TokenCounter, Tokenizer, TokenizerError, Usage, context_size
from runmeter.patterns.requests import bounds
from runmeter.patterns.requests.bounds import Sent, SentTexts, bound_late

LUNA = "gpt-6-luna"
LUNA_SIZE = 1_102_500
"""Listed with 1,050,000 tokens."""
FUNCTION: dict[str, Any] = {
    "type": "function",
    "name": "locate",
    "description": "Find a parcel.",
    "parameters": {"type": "object", "properties": {"code": {"type": "string"}}},
}


@pytest.mark.parametrize(
    ("model", "size"),
    [
        ("gpt-4.1", 1_050_000),
        ("gpt-4.1-2025-04-14", 1_050_000),
        ("ft:gpt-4.1:acme::7p4l", 1_050_000),
        (LUNA, LUNA_SIZE),
        ("gpt-99", None),
        ("", None),
    ],
)
def test_a_context_is_as_large_as_is_listed_and_a_little_larger(model: str, size: int | None) -> None:
    assert context_size("openai", model) == size


def test_no_context_is_smaller_than_it_is_known_to_be() -> None:
    size = context_size("openai", "gpt-4.1")
    assert size is not None
    assert size >= 1_047_576, "lists say 1,000,000"


async def test_what_is_sent_and_what_may_be_answered() -> None:
    sent = Sent(model=LUNA, messages="Where is it?", tools=[FUNCTION], max_output_tokens=50)
    counted = await TokenCounter().bound_messages("Where is it?", LUNA, tools=[FUNCTION])
    assert counted is not None
    assert await sent.bound() == Usage(input_tokens=counted, output_tokens=50)


@pytest.mark.parametrize(
    ("fields", "bound"),
    [
        ({"refers": True, "max_output_tokens": 50}, Usage(LUNA_SIZE, 50)),
        ({"refers": True}, Usage(LUNA_SIZE, LUNA_SIZE)),
        ({"messages": [{"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]}]}, None),
        ({"messages": [{"role": "user", "content": 7}, 8], "max_output_tokens": 50}, Usage(LUNA_SIZE, 50)),
        ({"refers": True, "max_output_tokens": 50, "answers": 3}, Usage(LUNA_SIZE, 150)),
        ({"model": "gpt-99", "refers": True, "max_output_tokens": 50}, None),
        ({"model": "gpt-99"}, None),
    ],
)
def test_the_context_size_stands_in_for_what_is_not_known(fields: dict[str, Any], bound: Usage | None) -> None:
    if bound is None and "model" not in fields:
        bound = Usage(LUNA_SIZE, LUNA_SIZE)
    assert Sent(**{"model": LUNA, "messages": "Hi", **fields}).bound_here() == bound


@pytest.mark.parametrize(
    ("kind", "calls", "bound"),
    [
        ("web_search", 2, Usage(3 * LUNA_SIZE, 50, web_searches=2)),
        ("web_search_preview_2025_03_11", 1, Usage(2 * LUNA_SIZE, 50, web_searches=1)),
        ("file_search", 2, Usage(3 * LUNA_SIZE, 50, file_searches=2)),
        ("mcp", 2, Usage(3 * LUNA_SIZE, 50)),
        ("web_search", None, None),
        ("code_interpreter", 2, None),
        ("image_generation", 2, None),
        ("something_new", 2, None),
    ],
)
def test_a_tool_that_openai_runs_has_the_model_read_everything_again(
    kind: str, calls: int | None, bound: Usage | None
) -> None:
    sent = Sent(model=LUNA, messages="Hi", tools=[{"type": kind}], max_output_tokens=50, max_tool_calls=calls)
    assert sent.bound_here() == bound


def test_a_limit_of_the_answer_holds_for_all_turns_together() -> None:
    sent = Sent(model=LUNA, messages="Hi", tools=[{"type": "web_search"}], max_tool_calls=1)
    assert sent.bound_here() == Usage(2 * LUNA_SIZE, 2 * LUNA_SIZE, web_searches=1)


def test_without_a_vocabulary_there_is_a_bound_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise TokenizerError("damaged")

    monkeypatch.setattr(Tokenizer, "encode", fail)
    assert Sent(model="gpt-4o", messages="Hi", max_output_tokens=50).bound_here() == Usage(134_400, 50)
    assert SentTexts(model="text-embedding-3-small", texts=["Grüße"]).bound_here() == Usage(7 + 8)


@settings(deadline=None)  # the first one loads the vocabulary
@given(st.lists(st.text(min_size=1), min_size=1, max_size=5), st.sampled_from(["text-embedding-3-small", "mine"]))
def test_texts_to_embed_are_no_more_than_their_bound(texts: list[str], model: str) -> None:
    bound = SentTexts(model=model, texts=texts).bound_here()
    assert bound is not None
    assert bound.input_tokens >= sum(Tokenizer(model).count_text(text).tokens for text in texts)
    assert bound.output_tokens == 0


@pytest.mark.parametrize("provenance", [Provenance.PARTIAL, Provenance.ESTIMATED, Provenance.UNKNOWN])
async def test_what_was_not_reported_gets_its_bound_when_it_is_over_also_while_being_cancelled(
    provenance: Provenance,
) -> None:
    run = Run()
    sent = Sent(model=LUNA, messages="Hi", max_output_tokens=50)
    request = ModelRequest(provider="openai", model=LUNA)
    with anyio.CancelScope() as scope, run() as execution, execution.model_call(request) as call:
        try:
            if provenance is not Provenance.UNKNOWN:
                call.record(Usage(output_tokens=1), provenance)
            scope.cancel()
            await anyio.sleep_forever()
        finally:
            await bound_late(call, sent)
    [ended] = run.requests
    assert ended.bound == sent.bound_here()


@pytest.mark.parametrize(
    "sent",
    [
        Sent(model=LUNA, messages="Hi" * 50, max_output_tokens=9),
        SentTexts(model="text-embedding-3-small", texts=["Hi"]),
    ],
)
async def test_where_counting_takes_too_long_bytes_are_the_bound(
    sent: Sent | SentTexts, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def forever(_: Sent) -> None:
        await anyio.sleep(math.inf)

    def load(*_: object) -> None:
        pytest.fail("it would load the vocabulary")

    counted = sent.bound_here()
    monkeypatch.setattr(type(sent), "bound", forever)
    monkeypatch.setattr(Tokenizer, "encode", load)
    monkeypatch.setattr(bounds, "LATE_LIMIT", 0.01)
    run = Run()
    request = ModelRequest(provider="openai", model=LUNA)
    with run() as execution, execution.model_call(request) as call:
        await bound_late(call, sent)
    bound = run.requests[0].bound
    assert bound is not None
    assert counted is not None
    assert counted.input_tokens <= bound.input_tokens < 1_000
    assert bound.output_tokens == counted.output_tokens


async def test_what_was_reported_has_no_bound() -> None:
    run = Run()
    with run() as execution, execution.model_call(ModelRequest(provider="openai", model=LUNA)) as call:
        call.record(Usage(1, 1))
        await bound_late(call, Sent(model=LUNA, messages="Hi"))
        assert call.bound is None, "it was not worked out"
