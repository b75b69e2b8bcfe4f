"""The layout of a request for a model: texts, the framing between them, images, and what cannot be counted.

Published for gpt-4o and gpt-4o-mini in OpenAI's cookbook, "How to count tokens with tiktoken"
(openai/openai-cookbook, examples/How_to_count_tokens_with_tiktoken.ipynb, 2024), sections 6 and 7. It knows flat tool
schemas only: here nested ones follow the same rule at every level. It knows no tool calls: here each call and each
output counts as a message of its own, whose text is the name and arguments, or the output. The schema of a structured
answer, of which nothing is published, counts as its JSON.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from .images import Image, size_of

Messages: TypeAlias = str | Sequence[Mapping[str, Any]]
"""The messages of a request: Chat Completions messages, Responses input items, or a str: one user message."""
Tools: TypeAlias = Sequence[Mapping[str, Any]]
"""Tool definitions, in the form of either API."""


class Opaque(msgspec.Struct, frozen=True):
    """A part of a request that cannot be counted here: a file, audio, encrypted reasoning, a tool that OpenAI runs."""

    kind: str
    bound: int | None = None
    """Upper bound of its tokens; None if there is none."""


Piece: TypeAlias = str | int | Image | Opaque
"""A piece of a request: text, a number of framing tokens, an image, or what cannot be counted."""

_PER_MESSAGE = 3
_PER_NAME = 1
_REPLY = 3  # the answer begins with <|start|>assistant<|message|>
_TOOL_START = 7
_TOOLS_END = 12
_PROPERTIES_START = 3
_PER_PROPERTY = 3
_ENUM_START = -3
_PER_ENUM_VALUE = 3


def lay_out(
    messages: Messages, instructions: str | None, tools: Tools, text_format: Mapping[str, Any] | None
) -> Iterator[Piece]:
    """Lay out a whole request as the model reads it: tools, instructions, messages."""
    pieces = [piece for tool in tools for piece in _tool(tool)]
    yield from pieces
    if any(not isinstance(piece, Opaque) for piece in pieces):
        yield _TOOLS_END
    if text_format and (schema := _schema(text_format)):
        yield schema
    if instructions:
        yield from _message("developer", instructions)
    for item in [{"role": "user", "content": messages}] if isinstance(messages, str) else messages:
        yield from _item(item)
    yield _REPLY


def to_json(value: Any) -> str:
    """Write a definition's JSON, whatever it is made of."""
    import json  # here, because it takes as long to import as all of this package's events

    return json.dumps(
        value, ensure_ascii=False, default=lambda each: dict(each) if isinstance(each, Mapping) else str(each)
    )


def _schema(text_format: Mapping[str, Any]) -> str | None:
    """Find the schema in a `text.format` of Responses, or a `response_format` of Chat Completions."""
    schema = text_format.get("schema") or (text_format.get("json_schema") or {}).get("schema")
    return to_json(schema) if schema else None


# --- Messages and items ---


def _item(item: Mapping[str, Any]) -> Iterator[Piece]:
    """Lay out a Chat Completions message or a Responses item."""
    match item.get("type") or "message":
        case "message":
            yield from _said(item)
        case "function_call" | "custom_tool_call":
            yield from _call(item)
        case "function_call_output" | "custom_tool_call_output":
            yield from _message("tool", item.get("output"))
        case "reasoning":
            yield from _message("assistant", item.get("summary"))
            yield from _sealed(item)
        case "compaction":
            yield from _sealed(item)
        case kind:
            yield from _message("assistant", item.get("content"))
            yield Opaque(str(kind))


def _said(message: Mapping[str, Any]) -> Iterator[Piece]:
    calls = [call.get("function") or call.get("custom") or {} for call in message.get("tool_calls") or ()]
    calls += [call] if (call := message.get("function_call")) else []
    refusal = message.get("refusal")
    if message.get("content") or refusal or not calls:
        yield from _message(message.get("role", "user"), message.get("content"), message.get("name"))
        if refusal:
            yield _text(refusal)
    if message.get("audio"):
        yield Opaque("audio")
    for call in calls:
        yield from _call(call)


def _message(role: str, content: Any, name: str | None = None) -> Iterator[Piece]:
    yield _PER_MESSAGE
    yield role
    if isinstance(content, str):
        yield content
    elif isinstance(content, Mapping):
        yield from _part(content)
    elif isinstance(content, Sequence) and not isinstance(content, bytes):
        for part in content:
            yield from _part(part)
    elif content is not None:
        yield _text(content)
    if name:
        yield _PER_NAME
        yield _text(name)


_TEXTS = frozenset({"", "text", "input_text", "output_text", "summary_text", "reasoning_text", "refusal"})


def _part(part: str | Mapping[str, Any]) -> Iterator[Piece]:
    if isinstance(part, str):
        yield part
        return
    kind = part.get("type") or ""
    if text := part.get("text") or part.get("refusal"):
        yield _text(text)
    elif kind == "image_url":
        image = part.get("image_url")
        yield _image(image if isinstance(image, Mapping) else {"url": image})
    elif kind in ("input_image", "computer_screenshot"):
        yield _image({"url": part.get("image_url"), "detail": part.get("detail")})
    elif not kind and part:
        yield _text(part)
    elif kind not in _TEXTS:
        yield Opaque(kind)


def _text(value: Any) -> str:
    """Take a value as text; of one that is not, such as a call's arguments as a dict, take the JSON."""
    return value if isinstance(value, str) else to_json(value)


def _image(image: Mapping[str, Any]) -> Image:
    return Image(size_of(image.get("url")), image.get("detail") or "auto")


def _sealed(item: Mapping[str, Any]) -> Iterator[Piece]:
    """Lay out what only OpenAI can read.

    Its content is base64 of what was encrypted. A token of text is about four bytes, so there are fewer tokens than
    characters even if the text was compressed to a fifth of its length first.
    """
    if content := item.get("encrypted_content"):
        yield Opaque(item["type"], bound=len(content))


def _call(function: Mapping[str, Any]) -> Iterator[Piece]:
    yield from _message("assistant", function.get("name"))
    yield _text(function.get("arguments") or function.get("input") or "")


# --- Tools ---


def _tool(tool: Mapping[str, Any]) -> Iterator[Piece]:
    match tool.get("type"):
        case "function":
            yield from _function(tool.get("function", tool))
        case "custom":
            yield from _custom(tool.get("custom", tool))
        case "namespace":
            yield _TOOL_START
            yield f"{tool.get('name', '')}:{_description(tool)}"
            for each in tool.get("tools") or ():
                yield from _tool(each)
        case kind:  # one that OpenAI runs
            yield Opaque(str(kind))


def _function(function: Mapping[str, Any]) -> Iterator[Piece]:
    yield _TOOL_START
    yield f"{function.get('name', '')}:{_description(function)}"
    yield from _properties(function.get("parameters"))


def _custom(tool: Mapping[str, Any]) -> Iterator[Piece]:
    yield _TOOL_START
    yield f"{tool.get('name', '')}:{_description(tool)}"
    grammar = tool.get("format") or {}
    yield grammar.get("definition") or (grammar.get("grammar") or {}).get("definition") or ""


def _properties(schema: Any) -> Iterator[Piece]:
    """Lay out the properties of a JSON schema, and of the schemas inside it."""
    if not isinstance(schema, Mapping):
        return
    properties = schema.get("properties") or {}
    if not isinstance(properties, Mapping):
        yield _text(properties)
        return
    if properties:
        yield _PROPERTIES_START
    for name, value in properties.items():
        yield from _property(name, value if isinstance(value, Mapping) else {})
    inner = [schema.get("items"), *(schema.get("$defs") or {}).values()]
    for combination in ("anyOf", "oneOf", "allOf"):
        inner += schema.get(combination) or ()
    for each in inner:
        yield from _properties(each)


def _property(name: str, schema: Mapping[str, Any]) -> Iterator[Piece]:
    values = schema.get("enum") or ()
    yield _PER_PROPERTY + (_ENUM_START + _PER_ENUM_VALUE * len(values) if values else 0)
    yield from map(str, values)
    yield f"{name}:{schema.get('type', '')}:{_description(schema)}"
    yield from _properties(schema)


def _description(schema: Mapping[str, Any]) -> str:
    return _text(schema.get("description") or "").removesuffix(".")
