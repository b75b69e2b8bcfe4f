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
from simulator_support import TLS, connect

from runmeter.engine import Tokenizer, Usage
from runmeter.simulator import Simulator
from runmeter.simulator.embeddings import embed

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
    async with httpx2.AsyncClient(verify=TLS, headers={"authorization": "Bearer sk"}) as http:
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
    ["", [], ["hello", ""], [""], ["hi"] * 2_049, "word " * 8_193, ["word " * 8_000] * 38, [[1, -1]], [10**9], [{}], 7],
    ids=lambda unfit: repr(unfit)[:20],
)
async def test_unfit_input_is_refused(client: AsyncOpenAI, simulator: Simulator, unfit: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.embeddings.create(model=MODEL, input=unfit, encoding_format="float")
    assert caught.value.param == "input"
    assert simulator.statistics().usage == {}


async def test_only_embedding_models_embed(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        await client.embeddings.create(model="gpt-6-luna", input="hi", encoding_format="float")


def test_texts_that_share_words_are_near() -> None:
    question = embed("Where is my parcel?", 1536)
    near = embed("Your parcel is in Berlin.", 1536)
    far = embed("Photosynthesis needs light and water.", 1536)
    assert similarity(question, near) > 0.3 > abs(similarity(question, far))


@given(st.text())
def test_every_text_has_a_vector_of_length_1(text: str) -> None:
    vector = embed(text, 256)
    assert similarity(vector, vector) == pytest.approx(1, abs=1e-5)
