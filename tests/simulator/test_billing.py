"""What the simulator bills: prompt caching, and the count of what is cut."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI
from simulator_support import connect

from runmeter.engine import Usage
from runmeter.simulator import Item, Prompt, Reply, ScriptedCall, Simulator
from runmeter.simulator.model.billing import CACHE_MINIMUM, CACHE_STEP, Meter, PromptCache
from runmeter.simulator.model.catalogue import find_model

# One token a word: long enough to be cached.
LONG = "word " * 1_500


async def details(client: AsyncOpenAI, model: str, **request: Any) -> tuple[int, int, int]:
    """Input, cached and cache-write tokens of a request."""
    usage = (await client.responses.create(model=model, **request)).usage
    assert usage is not None
    inner = usage.input_tokens_details
    return usage.input_tokens, inner.cached_tokens, inner.cache_write_tokens


async def test_a_repeated_prefix_is_cached_in_steps_of_128() -> None:
    simulator = Simulator()
    async with simulator as url, connect(url) as client:
        first = await details(client, "gpt-6-luna", input=LONG)
        again = await details(client, "gpt-6-luna", input=LONG)
        longer = await details(client, "gpt-6-luna", input=LONG + "and so on, " * 100)
        other = await details(client, "gpt-6-luna", input="Once " + LONG)
        elsewhere = await details(client, "gpt-5.6-luna", input=LONG)
    cacheable = first[0] // 128 * 128
    assert first == (first[0], 0, cacheable)
    assert again == (first[0], cacheable, 0)
    assert longer == (longer[0], cacheable, longer[0] // 128 * 128 - cacheable)
    assert longer[2] > 0
    assert other == (other[0], 0, other[0] // 128 * 128)
    assert elsewhere == first  # each model has a cache of its own


async def test_cache_writes_are_reported_from_gpt_5_6_on() -> None:
    async with Simulator() as url, connect(url) as client:
        for model, reports in (("gpt-4.1", False), ("gpt-5.5", False), ("gpt-5.6-sol", True), ("gpt-6.2-sol", True)):
            written = (await details(client, model, input=LONG))[2]
            assert bool(written) is reports
            assert (await details(client, model, input=LONG))[1] > 0


async def test_a_conversation_is_read_from_the_cache_as_it_grows() -> None:
    async with Simulator() as url, connect(url) as client:
        first = await client.responses.create(model="gpt-6-luna", instructions=LONG, input="Hi there.")
        second = await client.responses.create(
            model="gpt-6-luna", instructions=LONG, input="Go on.", previous_response_id=first.id
        )
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.input_tokens_details.cached_tokens == first.usage.input_tokens // 128 * 128


async def test_twelve_hour_writes_are_told_apart() -> None:
    simulator = Simulator()
    async with simulator as url, connect(url, _strict_response_validation=True) as client:
        response = await client.responses.create(model="gpt-6.2-sol", input=LONG, prompt_cache_options={"ttl": "12h"})
    assert response.usage is not None
    by_lifetime = response.usage.input_tokens_details.cache_write_tokens_details
    assert by_lifetime is not None
    assert (by_lifetime.ttl_30m_tokens, by_lifetime.ttl_12h_tokens) == (0, 1408)
    billed = simulator.statistics().usage["gpt-6.2-sol"]
    assert (billed.cache_write_tokens, billed.cache_write_12h_tokens) == (1408, 1408)


async def test_chat_completions_share_the_cache() -> None:
    async with Simulator() as url, connect(url) as client:
        await client.responses.create(model="gpt-6-luna", input=LONG)
        completion = await client.chat.completions.create(
            model="gpt-6-luna", messages=[{"role": "user", "content": LONG}]
        )
    assert completion.usage is not None
    assert completion.usage.prompt_tokens_details is not None
    assert completion.usage.prompt_tokens_details.cached_tokens == 1408
    assert completion.usage.prompt_tokens_details.cache_write_tokens == 0


@given(st.lists(st.tuples(st.integers(0, 3_000), st.integers(0, 3_000)), min_size=2, max_size=6))
def test_what_is_cached_is_the_longest_prefix_seen(prompts: list[tuple[int, int]]) -> None:
    cache = PromptCache()
    seen: list[list[int]] = []
    for common, own in prompts:
        tokens = [7] * common + [len(seen) + 100] * own
        cached, written = cache.look_up("gpt-6-luna", tokens)
        shared = max((_shared(tokens, other) for other in seen), default=0) // CACHE_STEP * CACHE_STEP
        assert cached == (shared if shared >= CACHE_MINIMUM else 0)
        most = len(tokens) // CACHE_STEP * CACHE_STEP
        assert cached + written == (most if most >= CACHE_MINIMUM else 0)
        seen.append(tokens)


def _shared(one: list[int], other: list[int]) -> int:
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def test_the_cache_forgets_the_oldest_and_stays_bounded() -> None:
    cache = PromptCache(capacity=16)
    first = [1] * 2_048  # 9 steps
    for tokens in (first, [2] * 2_048, [3] * 2_048):
        cache.look_up("gpt-6-luna", tokens)
    assert cache.look_up("gpt-6-luna", first) == (0, 2_048)
    assert len(cache._seen) == 16


def prompt(limit: int | None = None) -> Prompt:
    return Prompt(model=find_model("gpt-6-luna"), items=[Item(role="user", content="Hi.")], max_output_tokens=limit)


REPLIES = st.builds(
    Reply,
    text=st.text(max_size=60),
    tool_calls=st.lists(st.builds(ScriptedCall, st.just("find_parcel"), st.text(max_size=60)), max_size=2).map(tuple),
    reasoning_tokens=st.integers(0, 20),
)


@given(REPLIES, st.integers(1, 80))
def test_a_limit_is_never_passed_and_only_then_cuts(reply: Reply, limit: int) -> None:
    whole = Meter().generate(prompt(), reply)
    cut = Meter().generate(prompt(limit), reply)
    assert cut.usage.output_tokens <= limit
    if whole.usage.output_tokens <= limit:
        assert cut == whole
    else:
        assert cut.finish == "length"
    for mine, theirs in zip(cut.blocks, whole.blocks, strict=False):
        assert theirs.text.startswith(mine.text)
    spent = cut.usage.reasoning_tokens + sum(block.tokens for block in cut.blocks)
    assert cut.usage.output_tokens == spent


@given(REPLIES)
def test_a_whole_reply_is_whole(reply: Reply) -> None:
    generation = Meter().generate(prompt(), reply)
    texts = [block.text for block in generation.blocks if block.tool is None]
    assert "".join(texts) == reply.text
    assert [(block.tool, block.text) for block in generation.blocks if block.tool] == [
        (call.name, call.arguments) for call in reply.tool_calls
    ]
    assert generation.finish == ("tool_calls" if reply.tool_calls else "stop")


@given(REPLIES, st.integers(0, 80))
def test_a_part_of_a_generation_is_billed_as_a_part(reply: Reply, tokens: int) -> None:
    generation = Meter().generate(prompt(), reply)
    part = generation.usage_after(min(tokens, generation.usage.output_tokens))
    assert part.output_tokens <= generation.usage.output_tokens
    assert part.reasoning_tokens <= part.output_tokens
    assert generation.usage_after(generation.usage.output_tokens) == generation.usage
    assert part.input_tokens == generation.usage.input_tokens


def test_half_of_an_answer() -> None:
    reply = Reply("word " * 100)
    whole, half = Meter().generate(prompt(), reply), Meter().generate(prompt(), reply, half=True)
    assert half.finish == "length"
    assert half.usage == Usage(whole.usage.input_tokens, whole.usage.output_tokens // 2)


@pytest.mark.parametrize("capacity", [0, 1])
def test_a_cache_of_almost_nothing_works(capacity: int) -> None:
    cache = PromptCache(capacity)
    assert cache.look_up("m", [1] * 1_024) == (0, 1_024)
    assert cache.look_up("m", [1] * 1_024) == ((1_024, 0) if capacity else (0, 1_024))
