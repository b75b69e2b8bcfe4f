"""The form of the text in an answer: plain, JSON, or an instance of a schema, in the words of either API.

Source of the shapes: openai 3.54.0, `types/responses/response_text_config_param.py`,
`types/shared_params/response_format_*.py` (2026-11). That JSON must be spoken of, and not in the instructions alone:
ultimatejimmy/xray.koplugin#33 (2026) for Chat Completions, pydantic-ai 2.68 `models/openai` for the Responses API.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from ..errors import ApiError
from ..model.prompt import FunctionName, Item
from ..model.schemas import check_schema

Schema: TypeAlias = dict[str, Any]

ANY_JSON: Schema = {"type": "object", "properties": {"answer": {"type": "string"}}}
"""The schema of what the simulator says where any JSON will do."""


class JSONSchema(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A schema with its name, as Chat Completions has it."""

    name: FunctionName
    schema: Schema | None = None
    description: str | None = None
    strict: bool | None = None


class PlainText(msgspec.Struct, tag="text", forbid_unknown_fields=True):
    """Text without a form."""


class JSONObject(msgspec.Struct, tag="json_object", forbid_unknown_fields=True):
    """JSON of no certain schema."""


class SchemaFormat(msgspec.Struct, tag="json_schema", kw_only=True, forbid_unknown_fields=True):
    """An instance of a schema, as the Responses API has it."""

    name: FunctionName
    schema: Schema
    description: str | None = None
    strict: bool | None = None


class ChatSchemaFormat(msgspec.Struct, tag="json_schema", kw_only=True, forbid_unknown_fields=True):
    """An instance of a schema, as Chat Completions has it."""

    json_schema: JSONSchema


class TextParams(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Parameters of the text in a response."""

    format: PlainText | JSONObject | SchemaFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


ResponseFormat: TypeAlias = PlainText | JSONObject | ChatSchemaFormat


def text_schema(text: TextParams | None, items: Sequence[Item], instructions: str | None) -> Schema | None:
    """Find the schema that a response's text has to be an instance of; None leaves it free.

    Raises:
        ApiError: 400: it is none, or not strict though it says so, or JSON is asked for without a word of it.
    """
    match text.format if text is not None else None:
        case SchemaFormat() as given:
            return _checked(given.schema, given.name, given.strict, "text.format.schema", "invalid_json_schema")
        case JSONObject():
            if not _mentions_json(items):
                message = (
                    "Response input messages must contain the word 'json' in some form to use 'text.format' of type "
                    "'json_object'."
                )
                raise ApiError(400, message, param="input")
            return _described([*(item.text for item in items), instructions or ""])
        case _:
            return None


def response_format_schema(given: ResponseFormat | None, messages: Sequence[Item]) -> Schema | None:
    """Find the schema that a completion's content has to be an instance of; None leaves it free.

    Raises:
        ApiError: 400: as for `text_schema`.
    """
    match given:
        case ChatSchemaFormat(json_schema=JSONSchema(schema=dict(schema)) as named):
            return _checked(schema, named.name, named.strict, "response_format", "invalid_value")
        case ChatSchemaFormat():
            return ANY_JSON
        case JSONObject():
            if not _mentions_json(messages):
                message = (
                    "'messages' must contain the word 'json' in some form, to use 'response_format' of type "
                    "'json_object'."
                )
                raise ApiError(400, message, param="messages")
            return _described([item.text for item in messages])
        case _:
            return None


def _checked(schema: Schema, name: str, strict: bool | None, param: str, code: str) -> Schema:
    check_schema(schema, f"response_format '{name}'", param, code, strict=strict is True)
    return schema


def _mentions_json(items: Iterable[Item]) -> bool:
    return any("json" in item.text.lower() for item in items)


_READ = 20_000
"""Characters of a text in which a schema is looked for."""
_MOST_TRIES = 20


def _described(texts: Iterable[str]) -> Schema:
    """Find the schema that one of the texts describes, as where clients ask in words for an instance of it."""
    for text in texts:
        at = -1
        for _ in range(_MOST_TRIES):
            if (at := text.find("{", at + 1, _READ)) < 0:
                break
            try:
                found, _ = json.JSONDecoder().raw_decode(text[:_READ], at)
                check_schema(found, "the text", "input", "invalid_value", strict=False)
            except (ValueError, RecursionError, ApiError):
                continue
            return dict(found)
    return ANY_JSON
