"""The Embeddings API of the simulator."""

import struct
from base64 import b64decode
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI
from simulator_support import connect

from runmeter.engine import Tokenizer, Usage
from runmeter.simulator import Simulator
from runmeter.simulator.endpoints.embeddings import embed
from runmeter.simulator.model.ranking import RankedDocument, Ranking

MODEL = "text-embedding-3-small"


def similarity(one: Any, other: Any) -> float:
    return float(sum(a * b for a, b in zip(one, other, strict=True)))


async def test_floats(client: AsyncOpenAI, simulator: Simulator) -> None:
    answer = await client.embeddings.create(model=MODEL, input=["a red parcel", "hello"], encoding_format="float")
    assert [each.index for each in answer.data] == [0, 1]
    assert [len(each.embedding) for each in answer.data] == [1536, 1536]
    assert similarity(answer.data[0].embedding, answer.data[0].embedding) == pytest.approx(1)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 4
    assert simulator.statistics().usage == {MODEL: Usage(input_tokens=4)}


async def test_base64_is_what_the_client_asks_for_and_decodes(simulator: Simulator) -> None:
    # Not the strict client: it validates before it decodes base64, so it accepts no server's.
    async with connect(simulator.url) as client:
        decoded = await client.embeddings.create(model=MODEL, input="a red parcel")
        floats = await client.embeddings.create(model=MODEL, input="a red parcel", encoding_format="float")
    assert decoded.data[0].embedding == pytest.approx(floats.data[0].embedding)
    body = {"model": MODEL, "input": "a red parcel", "encoding_format": "base64"}
    async with httpx2.AsyncClient(headers={"authorization": "Bearer sk"}) as http:
        sent = (await http.post(f"{simulator.url}/embeddings", json=body)).json()["data"][0]["embedding"]
    assert struct.unpack("<1536f", b64decode(sent)) == pytest.approx(floats.data[0].embedding)


async def test_tokens_are_as_good_as_text(client: AsyncOpenAI) -> None:
    tokens = Tokenizer(MODEL).encode("a red parcel")
    by_text = await client.embeddings.create(model=MODEL, input="a red parcel", encoding_format="float")
    for given_tokens in (tokens, [tokens]):
        by_tokens = await client.embeddings.create(model=MODEL, input=given_tokens, encoding_format="float")
        assert by_tokens == by_text


async def test_fewer_dimensions(client: AsyncOpenAI) -> None:
    answer = await client.embeddings.create(model=MODEL, input="hi", dimensions=64, encoding_format="float")
    assert len(answer.data[0].embedding) == 64
    with pytest.raises(openai.BadRequestError) as caught:
        await client.embeddings.create(model=MODEL, input="hi", dimensions=1537)
    assert caught.value.param == "dimensions"


@pytest.mark.parametrize(
    "unfit",
    [["hi"] * 2_049, "word " * 8_193, ["word " * 8_000] * 38, [[1, -1]], [10**9], [{}], 7],
    ids=lambda unfit: repr(unfit)[:20],
)
async def test_unfit_input_is_refused(client: AsyncOpenAI, simulator: Simulator, unfit: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.embeddings.create(model=MODEL, input=unfit, encoding_format="float")
    assert caught.value.param == "input"
    assert simulator.statistics().usage == {}


@pytest.mark.parametrize("empty", [[], ["hello", ""], [""], [[]]])
async def test_nothing_among_others_is_refused(client: AsyncOpenAI, simulator: Simulator, empty: Any) -> None:
    with pytest.raises(openai.BadRequestError, match=r"'\$\.input' is invalid") as caught:
        await client.embeddings.create(model=MODEL, input=empty, encoding_format="float")
    assert (caught.value.param, caught.value.code) == (None, None)
    assert simulator.statistics().usage == {}


async def test_one_empty_text_has_a_vector_as_any(client: AsyncOpenAI) -> None:
    answer = await client.embeddings.create(model=MODEL, input="", encoding_format="float")
    assert sum(value * value for value in answer.data[0].embedding) == pytest.approx(1)
    assert answer.usage.prompt_tokens == 0


async def test_only_embedding_models_embed(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        await client.embeddings.create(model="gpt-6-luna", input="hi", encoding_format="float")


def test_texts_that_share_words_are_near() -> None:
    question = embed("Where is my parcel?", 1536)
    near = embed("Your parcel is in Berlin.", 1536)
    far = embed("Photosynthesis needs light and water.", 1536)
    assert similarity(question, near) > 0.3 > abs(similarity(question, far))


@pytest.mark.parametrize(
    ("one", "other"), [("bees", "Bee"), ("pollinates", "pollination"), ("the running dogs", "A dog ran, a dog runs.")]
)
def test_forms_of_a_word_are_near_too(one: str, other: str) -> None:
    assert similarity(embed(one, 1536), embed(other, 1536)) > 0.7


# --- Ranking: the search of vector stores ---


def scores(query: str, *texts: str) -> list[float]:
    return Ranking([RankedDocument.of(text) for text in texts]).scores(query)


def test_a_rare_word_says_more_than_a_frequent_one() -> None:
    rare, frequent, neither = scores("blue parcel", "the blue box", "the parcel box", "the box")
    also_frequent = scores("blue parcel", "the blue box", "the parcel box", "the box", "a parcel", "my parcel")
    assert rare == frequent > neither == 0
    assert also_frequent[0] > also_frequent[1]


def test_more_of_a_word_and_less_else_fit_better() -> None:
    once, twice, among_others = scores(
        "bees", "bees visit flowers", "bees visit bees", f"bees visit {'many ' * 3} old red flowers"
    )
    assert twice > once > among_others > 0


def test_forms_of_a_word_are_found() -> None:
    assert min(scores("bee pollinating", "Bees pollinate.", "Pollination by a bee's leg")) > 0


@pytest.mark.parametrize("query", ["", "?", "what is the", "unknown"])
def test_some_queries_find_nothing(query: str) -> None:
    assert scores(query, "bees", "", "sea") == [0, 0, 0]
    assert scores(query) == []


@given(st.text(), st.lists(st.text() | st.sampled_from(["bees", "the sea", "bees and the sea"])))
def test_scores_are_from_0_to_1_and_0_only_for_what_shares_no_word(query: str, texts: list[str]) -> None:
    for text, score in zip(texts, scores(f"{query} bees", *texts), strict=True):
        shared = RankedDocument.of(f"{query} bees").stems.keys() & RankedDocument.of(text).stems.keys()
        assert 0 <= score < 1
        assert bool(score) is bool(shared)


def test_very_long_queries_are_cut() -> None:
    long = " ".join(f"word{n}" for n in range(3_000))
    (score,) = scores(long, "word2999")
    assert score == 0
    assert scores(long, "word0", "word199", "word200")[1:] == [scores(long, "word0", "word199", "word200")[0], 0]


@given(st.text())
def test_every_text_has_a_vector_of_length_1(text: str) -> None:
    vector = embed(text, 256)
    assert similarity(vector, vector) == pytest.approx(1, abs=1e-5)
