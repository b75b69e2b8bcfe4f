"""Token counts, against numbers OpenAI published and against tiktoken's own tables."""

import gzip
import socket
import threading
from pathlib import Path
from typing import Any, NoReturn

import anyio
import anyio.lowlevel
import pytest
import tiktoken_ext.openai_public  # type: ignore[import-untyped] # tiktoken types only itself
from hypothesis import given
from hypothesis import strategies as st
from process_support import output_of, python

from runmeter.engine import TokenCount, TokenCounter, Tokenizer, TokenizerError
from runmeter.engine.tokens import tokenizer as module
from runmeter.engine.tokens.tokenizer import FRAMING

# The examples of OpenAI's cookbook, "How to count tokens with tiktoken". The API confirmed their totals
# there.
JARGON = [
    {
        "role": "system",
        "content": "You are a helpful, pattern-following assistant that translates corporate jargon "
        "into plain English.",
    },
    {"role": "system", "name": "example_user", "content": "New synergies will help drive top-line growth."},
    {
        "role": "system",
        "name": "example_assistant",
        "content": "Things working well together will increase revenue.",
    },
    {
        "role": "system",
        "name": "example_user",
        "content": "Let's circle back when we have more bandwidth to touch base on opportunities "
        "for increased leverage.",
    },
    {
        "role": "system",
        "name": "example_assistant",
        "content": "Let's talk later when we're less busy about how to do better.",
    },
    {
        "role": "user",
        "content": "This late pivot means we don't have time to boil the ocean for the client deliverable.",
    },
]
WEATHER = [
    {
        "role": "system",
        "content": "You are a helpful assistant that can answer to questions about the weather.",
    },
    {"role": "user", "content": "What's the weather like in San Francisco?"},
]
WEATHER_TOOL: dict[str, Any] = {
    "name": "get_current_weather",
    "description": "Get the current weather in a given location",
    "parameters": {
        "type": "object",
        "properties": {
            "location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"},
            "unit": {
                "type": "string",
                "description": "The unit of temperature to return",
                "enum": ["celsius", "fahrenheit"],
            },
        },
        "required": ["location"],
    },
}


@pytest.mark.parametrize(
    ("model", "text", "expected"),
    [
        ("gpt-4o", "antidisestablishmentarianism", [493, 129901, 376, 160388, 21203, 2367]),
        ("gpt-4o", "2 + 2 = 4", [17, 659, 220, 17, 314, 220, 19]),
        ("gpt-4o", "お誕生日おめでとう", [8930, 9697, 243, 128225, 8930, 17693, 4344, 48669]),
        ("gpt-4", "antidisestablishmentarianism", [519, 85342, 34500, 479, 8997, 2191]),
        ("gpt-4", "2 + 2 = 4", [17, 489, 220, 17, 284, 220, 19]),
        ("gpt-4", "お誕生日おめでとう", [33334, 45918, 243, 21990, 9080, 33334, 62004, 16556, 78699]),
    ],
)
def test_the_cookbooks_tokens(model: str, text: str, expected: list[int]) -> None:
    assert Tokenizer(model).encode(text) == expected


async def test_the_cookbooks_message_counts() -> None:
    counter = TokenCounter()
    assert await counter.count_messages(JARGON, "gpt-4o") == TokenCount(124, exact=False, encoding="o200k_base")
    assert await counter.count_messages(JARGON, "gpt-4") == TokenCount(129, exact=False, encoding="cl100k_base")


async def test_the_cookbooks_tool_count_in_the_form_of_either_api() -> None:
    counter = TokenCounter()
    chat = [{"type": "function", "function": WEATHER_TOOL}]
    responses = [{"type": "function", **WEATHER_TOOL}]
    assert (await counter.count_messages(WEATHER, "gpt-4o", tools=chat)).tokens == 101
    assert (await counter.count_messages(WEATHER, "gpt-4o", tools=responses)).tokens == 101


@pytest.mark.parametrize("name", ["o200k_base", "cl100k_base"])
def test_patterns_and_special_tokens_are_tiktokens(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = []

    def no_download(_url: str, expected_hash: str) -> dict[bytes, int]:
        hashes.append(expected_hash)
        return {}

    monkeypatch.setattr(tiktoken_ext.openai_public, "load_tiktoken_bpe", no_download)
    theirs = getattr(tiktoken_ext.openai_public, name)()
    ours = module._VOCABULARIES[name]
    assert (ours.pattern, ours.special_tokens, [ours.sha256]) == (
        theirs["pat_str"],
        theirs["special_tokens"],
        hashes,
    )


@pytest.mark.parametrize(
    ("model", "encoding", "exact"),
    [
        ("gpt-4o-mini", "o200k_base", True),
        ("gpt-5.6-luna", "o200k_base", True),
        ("text-embedding-3-small", "cl100k_base", True),
        ("gpt-oss-120b", "o200k_base", True),
        ("ft:gpt-4.1-mini:acme::7p4lURel", "o200k_base", True),
        ("ft:gpt-3.5-turbo:acme::7p4lURel", "cl100k_base", True),
        ("gpt-6-luna", "o200k_base", False),
        ("gpt-6.2-astra", "o200k_base", False),
        ("text-davinci-003", "o200k_base", False),  # known to tiktoken, but its vocabulary is not shipped
        ("", "o200k_base", False),
    ],
)
async def test_which_vocabulary_a_model_has(model: str, encoding: str, exact: bool) -> None:
    count = await TokenCounter().count_text("hello world", model)
    assert count == TokenCount(2, exact, encoding)


def test_a_text_that_looks_like_a_special_token_is_text() -> None:
    tokens = Tokenizer("gpt-6-luna").encode("<|endoftext|><|endofprompt|>")
    assert len(tokens) > 2
    assert max(tokens) < 199_998


def test_a_lone_surrogate_does_not_raise() -> None:
    assert Tokenizer("gpt-4o").encode("\ud83d!")


@pytest.mark.parametrize("blank", [" ", "\n", " \n"])
def test_a_million_blanks_do_not_raise(blank: str) -> None:
    text = "start" + blank * (1_100_000 // len(blank)) + "end"
    tokenizer = Tokenizer("gpt-4o")
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens).decode() == text


@given(st.text())
def test_decoding_gives_the_text_back(text: str) -> None:
    tokenizer = Tokenizer("gpt-4o")
    assert tokenizer.decode(tokenizer.encode(text)).decode() == text


@given(st.text(max_size=50), st.text(max_size=50), st.text(min_size=1, max_size=50), st.text(max_size=50))
def test_the_same_conversation_counts_the_same_in_either_api(
    system: str, question: str, arguments: str, output: str
) -> None:
    chat: list[dict[str, Any]] = [
        {"role": "developer", "content": system},
        {"role": "user", "content": [{"type": "text", "text": question}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": arguments}}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": output},
    ]
    responses: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "input_text", "text": question}]},
        {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": arguments},
        {"type": "function_call_output", "call_id": "call_1", "output": output},
    ]
    tokenizer = Tokenizer("gpt-6-luna")
    if not system:
        chat, system = chat[1:], ""
    assert tokenizer.encode_messages(chat) == tokenizer.encode_messages(responses, instructions=system)


def test_a_string_is_one_user_message() -> None:
    tokenizer = Tokenizer("gpt-4o")
    as_item = tokenizer.count_messages([{"type": "message", "role": "user", "content": "hi there"}])
    assert tokenizer.count_messages("hi there") == as_item
    assert as_item.tokens == 3 + 1 + 2 + 3
    assert tokenizer.encode_messages("hi there").count(FRAMING) == 6


def test_nested_schemas_are_counted_at_every_level() -> None:
    def tool(**properties: Any) -> dict[str, Any]:
        parameters = {"type": "object", "properties": properties}
        return {"type": "function", "name": "f", "description": "Does it.", "parameters": parameters}

    def count(tool: dict[str, Any]) -> int:
        return Tokenizer("gpt-4o").count_messages("hi", tools=[tool]).tokens

    city = {"city": {"type": "string", "description": "The city"}}
    flat = count(tool(**city))
    inside = flat - count(tool())  # start of the properties, the property's framing and its line
    address = {"type": "object", "description": "Where", "properties": city}
    assert count(tool(address=address)) == count(tool(address={**address, "properties": {}})) + inside
    listed = {"type": "array", "description": "Where", "items": {"type": "object", "properties": city}}
    assert count(tool(address=listed)) == count(tool(address={**listed, "items": {}})) + inside
    either = {"description": "Where", "anyOf": [{"type": "object", "properties": city}, {"type": "null"}]}
    assert count(tool(address=either)) == count(tool(address={**either, "anyOf": []})) + inside


def test_unusual_schemas_are_counted_without_raising() -> None:
    tools: list[dict[str, Any]] = [
        {"type": "function", "name": "bare"},
        {
            "type": "function",
            "name": "loose",
            "description": None,
            "parameters": {"properties": {"any": True}},
        },
        {
            "type": "function",
            "name": "numbers",
            "parameters": {"properties": {"n": {"enum": [1, None, 2.5]}}},
        },
        {"type": "web_search"},
    ]
    tokenizer = Tokenizer("gpt-4o")
    assert tokenizer.count_messages("hi", tools=tools[3:]).tokens == tokenizer.count_messages("hi").tokens
    assert tokenizer.count_messages("hi", tools=tools).tokens > tokenizer.count_messages("hi").tokens


def test_counting_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket, "socket", refuse)
    module._load_once.cache_clear()
    assert Tokenizer("gpt-4").count_text("hello world").tokens == 2
    assert Tokenizer("gpt-6-luna").count_text("hello world").tokens == 2


def test_many_threads_load_a_vocabulary_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loads = []
    read_ranks = module._read_ranks

    def counted(file: Any, sha256: str) -> dict[bytes, int]:
        loads.append(file.name)
        return read_ranks(file, sha256)

    monkeypatch.setattr(module, "_read_ranks", counted)
    module._load_once.cache_clear()
    counts: list[int] = []
    threads = [
        threading.Thread(target=lambda: counts.append(Tokenizer("gpt-4o").count_text("hello world").tokens))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [2] * 8
    assert loads == ["o200k_base.tiktoken.gz"]


async def test_counting_leaves_the_event_loop_free() -> None:
    text = "words and more words " * 200_000
    ticks = 0
    done = anyio.Event()

    async def tick() -> None:
        nonlocal ticks
        while not done.is_set():
            ticks += 1
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tick)
        count = await TokenCounter().count_text(text, "gpt-4o")
        done.set()
    assert count.tokens > 800_000
    assert ticks > 100  # counted on the loop, it would be 1 or 2


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (gzip.compress(b"aGVsbG8= 1\n"), "is damaged: its SHA-256 is"),
        (gzip.compress(b"aGVsbG8= 1\n")[:-4], "cannot read the vocabulary"),
        (b"not gzip", "cannot read the vocabulary"),
        (None, "cannot read the vocabulary"),
    ],
    ids=["other bytes", "cut", "not gzip", "missing"],
)
def test_a_damaged_vocabulary_is_refused(tmp_path: Path, content: bytes | None, complaint: str) -> None:
    file = tmp_path / "o200k_base.tiktoken.gz"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(TokenizerError, match=complaint):
        module._read_ranks(file, module._VOCABULARIES["o200k_base"].sha256)


def test_tiktoken_is_imported_on_first_use() -> None:
    code = "import sys, runmeter.engine.tokens.tokenizer; sys.exit('tiktoken' in sys.modules)"
    output_of(python(code))
