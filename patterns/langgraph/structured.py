"""Answers in a given shape, of any LangChain model: how they are asked for, and how they are read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

import msgspec
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable

from ..errors import MalformedAnswer
from ..nesting import TOO_DEEP, check_nesting
from ..tools.strict_form import strict
from ..tools.written_values import fit
from .answers import text_of

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Shape(Generic[T]):
    """The shape that an answer is held to."""

    name: str
    """1 to 64 letters, digits, `_` and `-`."""
    description: str
    kind: type[T]
    """A msgspec struct: what the answer is read into."""
    schema: Mapping[str, Any]
    """The JSON schema the model is held to: in strict form, where null stands for what is not given."""
    plain: Mapping[str, Any]
    """The same before it was made strict."""

    @cached_property
    def request(self) -> str:
        """Instructions for a model that cannot be held to the shape."""
        return f"{self.description}\n\nAnswer with one JSON object only, of this schema: {json.dumps(self.schema)}"


def shape_of(kind: type[T], name: str, *, schema: Mapping[str, Any] | None = None) -> Shape[T]:
    """Make the shape of a msgspec struct; its docstring says what it is for.

    Args:
        kind: The struct.
        name: What the model is told that it is called.
        schema: In place of the struct's own, where that cannot say all: which labels there are, for example.
    """
    if schema is None:
        (reference,), definitions = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
        schema = definitions[kind.__name__]
        if f'"{reference["$ref"]}"' not in json.dumps(definitions):  # as it is where a struct contains its like
            del definitions[kind.__name__]
        schema = {**schema, "$defs": definitions} if definitions else schema
    return Shape(name, (kind.__doc__ or name).strip(), kind, strict(schema), schema)


def bind_shape(model: BaseChatModel, shape: Shape[Any]) -> Runnable[Any, BaseMessage]:
    """Hold a model to a shape by OpenAI's structured outputs, or else by a function that it must call.

    Raises:
        NotImplementedError: it can do neither; the shape's `request` is what is left.
    """
    if getattr(model, "_llm_type", "") in ("openai-chat", "azure-chat"):
        form = {"name": shape.name, "description": shape.description, "schema": shape.schema, "strict": True}
        return model.bind(response_format={"type": "json_schema", "json_schema": form})
    function = {"name": shape.name, "description": shape.description, "parameters": shape.schema}
    return model.bind_tools([{"type": "function", "function": function}], tool_choice=shape.name)


def read_shape(answer: AIMessage, shape: Shape[T]) -> T:
    """Read an answer as its shape: a call of the function that stands for it, or JSON, alone or within text.

    Raises:
        MalformedAnswer: it is neither, nests deeper than `MAX_NESTING` levels, or does not have the shape.
    """
    for call in answer.tool_calls:
        if call["name"] == shape.name:
            return _convert(call["args"], shape)
    text = text_of(answer)
    start, end = text.find("{"), text.rfind("}")
    if not 0 <= start < end:
        raise MalformedAnswer(shape.name, "there is no JSON object in it", text)
    try:
        value = msgspec.json.decode(text[start : end + 1].encode(errors="replace"))
    except RecursionError:
        raise MalformedAnswer(shape.name, TOO_DEEP, text) from None
    except msgspec.DecodeError as error:
        raise MalformedAnswer(shape.name, f"it is not JSON: {error}", text) from error
    return _convert(value, shape)


def unfinished(error: BaseException) -> str | None:
    """Say why an answer ended too soon that OpenAI's client made an error of; None if it is another error.

    Its names (openai 3.54.0, `_exceptions.py`) are looked at, as the client is not loaded for other models.
    """
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "LengthFinishReasonError" in kinds:
        return "it was cut at its limit of tokens"
    return "it was stopped by the content filter" if "ContentFilterFinishReasonError" in kinds else None


def _convert(value: Any, shape: Shape[T]) -> T:
    try:
        check_nesting(value)
    except ValueError as error:
        raise MalformedAnswer(shape.name, str(error), "") from None
    try:
        return msgspec.convert(fit(value, shape.plain, shape.plain, null_is_absent=True), shape.kind, strict=False)
    except msgspec.ValidationError as error:
        raise MalformedAnswer(shape.name, str(error), json.dumps(value, default=str)) from error
