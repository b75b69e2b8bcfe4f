"""The Embeddings API. Vectors are made of words: texts that share words are near each other, so that a
search finds them.

Source of the shapes and limits: openai 3.54.0, `types/embedding_create_params.py` (2026-11).
"""

import sys
from array import array
from base64 import b64encode
from hashlib import blake2b
from math import sqrt
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from runmeter.engine import Tokenizer, Usage

from ..accounts import BilledRequest
from ..errors import ApiError, decode
from ..misreports import told_usage
from ..model.catalogue import find_model
from ..model.words import stems
from ..service import Answer, Call, Service

TOKENS_PER_INPUT = 8192
INPUTS = 2048
TOKENS_PER_REQUEST = 300_000

Tokens: TypeAlias = list[int]


class CreateEmbedding(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /embeddings."""

    model: str
    input: Any
    """A text, a list of texts, the tokens of a text, or a list of tokens of texts."""
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, msgspec.Meta(ge=1)] | None = None
    user: Any = None


def create(service: Service, call: Call) -> Answer:
    """Answer POST /embeddings with a vector for each text."""
    request = decode(call.body, CreateEmbedding)
    model = find_model(request.model, embeds=True)
    tokenizer = Tokenizer(model.id)
    inputs = [_tokens(each, tokenizer) for each in _inputs(request.input)]
    _check(inputs, alone=request.input == "")
    dimensions = request.dimensions or model.dimensions
    if dimensions > model.dimensions:
        message = f"Invalid value for 'dimensions': must be at most {model.dimensions}."
        raise ApiError(400, message, param="dimensions")
    vectors = [embed(tokenizer.decode(tokens).decode(errors="replace"), dimensions) for tokens in inputs]
    data = [
        {"object": "embedding", "index": index, "embedding": _format(vector, request.encoding_format)}
        for index, vector in enumerate(vectors)
    ]
    total = sum(map(len, inputs))
    billed = BilledRequest("embeddings", model.id, Usage(input_tokens=total), "default", service.clock())
    call.account.bill(billed, call.fault)
    usage = told_usage({"prompt_tokens": total, "total_tokens": total}, call.fault)
    return msgspec.json.encode({"object": "list", "data": data, "model": model.id, **usage})


def embed(text: str, dimensions: int) -> "array[float]":
    """Embed a text as a vector of length 1: the stem of each word adds to a few places that its hash chooses."""
    vector = array("f", bytes(4 * dimensions))
    for stem in stems(text) or [text]:
        digest = blake2b(stem.encode(errors="replace"), digest_size=32).digest()
        for place in range(0, 32, 4):
            number = int.from_bytes(digest[place : place + 4])
            vector[(number >> 1) % dimensions] += 1 if number & 1 else -1
    if not any(vector):  # all that was added was taken away again
        vector[0] = 1
    length = sqrt(sum(value * value for value in vector))
    return array("f", (value / length for value in vector))


def _inputs(given: Any) -> list[Any]:
    match given:
        case str():
            return [given]
        case [int(), *_]:
            return [given]
        case list():
            return given
        case _:
            raise ApiError(400, "Invalid type for 'input'.", param="input", code="invalid_type")


def _tokens(given: Any, tokenizer: Tokenizer) -> Tokens:
    if isinstance(given, str):
        return tokenizer.encode(given)
    try:
        tokens = msgspec.convert(given, Tokens)
        tokenizer.decode(tokens)
    except (msgspec.ValidationError, KeyError, OverflowError) as error:
        message = f"Invalid 'input': neither text nor tokens ({error})."
        raise ApiError(400, message, param="input") from error
    return tokens


def _check(inputs: list[Tokens], *, alone: bool) -> None:
    """Refuse what is too long or too much, and empty texts in a list: one alone is taken (openai/openai-python#576)."""
    if not alone and not (inputs and all(inputs)):
        message = (
            "'$.input' is invalid. Please check the API reference: https://platform.openai.com/docs/api-reference."
        )
        raise ApiError(400, message)
    if len(inputs) > INPUTS:
        raise ApiError(400, f"Invalid 'input': at most {INPUTS} inputs are allowed.", param="input")
    if (longest := max(map(len, inputs))) > TOKENS_PER_INPUT:
        message = f"Invalid 'input': maximum input length is {TOKENS_PER_INPUT} tokens, got {longest}."
        raise ApiError(400, message, param="input")
    if (total := sum(map(len, inputs))) > TOKENS_PER_REQUEST:
        message = f"Invalid 'input': requested {total} tokens, max {TOKENS_PER_REQUEST} tokens per request."
        raise ApiError(400, message, param="input", code="max_tokens_per_request")


def _format(vector: "array[float]", encoding: Literal["float", "base64"]) -> list[float] | str:
    if encoding == "float":
        return vector.tolist()
    if sys.byteorder == "big":  # base64 is of little-endian floats
        vector.byteswap()
    return b64encode(vector.tobytes()).decode()
