"""Histories: how they are divided into turns, kept within a limit, and forgotten."""

from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runmeter.engine import ConfigurationError, TokenCounter
from runmeter.patterns.errors import ContextTooLong
from runmeter.patterns.openai.threads.context_window import ContextWindow, transcript
from runmeter.patterns.openai.threads.history import History, InMemoryHistoryStore, Turn, split_turns

MODEL = "gpt-6-luna"

ITEMS = st.lists(st.sampled_from(["user", "system", "assistant", "reasoning", "call", "output"]), max_size=30).map(
    lambda kinds: list(_conversation(kinds))
)


def _conversation(kinds: list[str]) -> Iterator[dict[str, Any]]:
    """Items in which every output has its call before it, and every call its output."""
    waiting: list[str] = []
    for number, kind in enumerate([*kinds, *["output"] * kinds.count("call")]):
        if kind == "call":
            waiting.append(f"call_{number}")
            yield {"type": "function_call", "call_id": waiting[-1], "name": "find", "arguments": "{}"}
        elif kind == "output" and waiting:
            yield {"type": "function_call_output", "call_id": waiting.pop(0), "output": "found"}
        elif kind == "reasoning":
            yield {"type": "reasoning", "summary": []}
        elif kind != "output":
            yield {"role": kind, "content": f"said {number}"}


@given(items=ITEMS)
def test_turns_keep_calls_with_their_outputs(items: list[dict[str, Any]]) -> None:
    turns = split_turns(items)
    assert [item for turn in turns for item in turn] == items
    for turn in turns:
        calls = [item["call_id"] for item in turn if item.get("type") == "function_call"]
        outputs = [item["call_id"] for item in turn if item.get("type") == "function_call_output"]
        assert sorted(calls) == sorted(outputs)
    for turn in turns[1:]:
        assert turn[0].get("role") in ("user", "system")


@given(items=ITEMS, limit=st.integers(10, 400))
def test_what_fits_is_the_longest_end_that_does(items: list[dict[str, Any]], limit: int) -> None:
    async def fit() -> None:
        window = ContextWindow(MODEL, limit)
        history = History(turns=await window.turns(items), response_id="resp_1")
        new = [{"role": "user", "content": "So?"}]
        try:
            fitted = await window.fit(history, new, None)
        except ContextTooLong:
            pinned = [item for item in items if item.get("role") == "system"]
            assert (await TokenCounter().count_messages([*pinned, *new], MODEL)).tokens > limit
            return
        counted = await TokenCounter().count_messages([*fitted.history.items, *new], MODEL)
        assert fitted.tokens == counted.tokens <= limit
        kept = fitted.history.turns
        assert kept == history.turns[len(history.turns) - len(kept) :]
        assert fitted.trimmed_turns == len(history.turns) - len(kept)
        assert (fitted.history.response_id is None) is (fitted.trimmed_turns > 0)
        systems = [item for item in items if item.get("role") == "system"]
        assert [item for item in fitted.history.items if item.get("role") == "system"] == systems

    anyio.run(fit)


async def test_a_summary_that_leaves_no_room_goes_last() -> None:
    window = ContextWindow(MODEL, 60)
    history = History(turns=await window.turns([{"role": "user", "content": "word " * 20}]), summary="word " * 20)
    short = await window.fit(history, [{"role": "user", "content": "So?"}], None)
    assert (short.trimmed_turns, short.history.summary) == (1, history.summary)
    bare = await window.fit(history, [{"role": "user", "content": "So? " * 15}], None)
    assert (bare.trimmed_turns, bare.history) == (1, History())


def test_a_transcript_has_what_was_said_and_done() -> None:
    items: list[dict[str, Any]] = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "input_text", "text": "Where?"}, {"type": "input_image"}]},
        {"type": "reasoning", "summary": []},
        {"type": "function_call", "call_id": "1", "name": "find", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "Berlin"},
        {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
    ]
    assert transcript(items) == "user: Where?\n\ncall: find {}\n\nresult: Berlin\n\nassistant: No."
    assert History(turns=(Turn(tuple(items[3:5]), 9),)).unsent == (items[4],)


async def test_the_store_forgets_what_was_not_used_for_the_longest_time() -> None:
    store = InMemoryHistoryStore(2)

    async def take_turn(name: str) -> None:
        await store.load(name)
        await store.save(name, History(summary=name))
        await store.release(name)

    for name in ("a", "b", "a", "c"):
        await take_turn(name)
    assert await store.load("b") is None
    await store.release("b")
    assert await store.load("a") == History(summary="a")
    for name in ("d", "e", "f"):
        await take_turn(name)
    assert len(store) == 2, "a is in use, and f was used last"
    await store.release("a")
    assert await store.load("a") == History(summary="a")
    with pytest.raises(ConfigurationError, match="max_conversations"):
        InMemoryHistoryStore(0)
