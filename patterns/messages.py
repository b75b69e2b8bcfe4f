"""Messages in any form a user has them, as input items of OpenAI's Responses API.

Taken are a string, Chat Completions messages, Responses items, the OpenAI client's objects and LangChain messages, one
or several, also mixed.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from runmeter.engine import ConfigurationError

from .text import valid, valid_text

Item: TypeAlias = dict[str, Any]

_KEPT = ("id", "type", "role", "status", "phase")
"""Fields of a message beside its content that the Responses API knows."""
_LANGCHAIN_ROLES = {
    "human": "user",
    "ai": "assistant",
    "AIMessageChunk": "assistant",
    "system": "system",
    "tool": "tool",
}


def to_items(messages: Any) -> list[Item]:
    """Write messages as Responses input items.

    Raises:
        ConfigurationError: one of `messages` is not a message, or there is none.
    """
    items: list[Item] = []
    for message in as_sequence(messages):
        try:
            items += map(valid, _items_of(message))
        except (TypeError, AttributeError, KeyError) as error:
            # Not the message itself: it may be long, and private.
            raise ConfigurationError(f"a message is not built as OpenAI's are: {error!r}") from error
    if not items:
        raise ConfigurationError("there are no messages")
    return items


def as_sequence(messages: Any) -> Iterable[Any]:
    """Make a sequence of one message or several."""
    if isinstance(messages, str | Mapping) or not isinstance(messages, Iterable) or hasattr(messages, "model_dump"):
        return [messages]
    return messages


def _items_of(message: Any) -> Iterator[Item]:
    message = _as_dict(message)
    if message.get("type", "message") != "message":
        yield message
        return
    role = message.get("role")
    if role in ("tool", "function"):
        call_id = message.get("tool_call_id") or message.get("name")
        if not call_id:
            raise ConfigurationError("a tool's message needs a tool_call_id: the id of the call it answers")
        yield {"type": "function_call_output", "call_id": call_id, "output": _text(message.get("content"))}
        return
    if role not in ("user", "assistant", "system", "developer"):
        raise ConfigurationError(f"a message needs a role: user, assistant, system, developer or tool; got {role!r}")
    calls = message.get("tool_calls") or ()
    content = message.get("content")
    if content or not calls:
        kept = {key: message[key] for key in _KEPT if message.get(key) is not None}
        yield {**kept, "content": _content(content, assistant=role == "assistant")}
    for call in calls:
        function = call.get("function") or call.get("custom") or {}
        yield {
            "type": "function_call",
            "call_id": call.get("id"),
            "name": function.get("name"),
            "arguments": function.get("arguments") or "{}",
        }


def _as_dict(message: Any) -> Item:
    """Write a message as a dict in a form of OpenAI's."""
    if isinstance(message, str):
        return {"role": "user", "content": message}
    if isinstance(message, Mapping):
        return dict(message)
    if hasattr(message, "to_dict"):  # the OpenAI client's objects
        written: Item = message.to_dict(mode="json")
        return written
    if getattr(message, "type", None) in _LANGCHAIN_ROLES and hasattr(message, "content"):
        return _from_langchain(message)
    raise ConfigurationError(
        f"cannot read {type(message).__name__!r} as a message: give a string, OpenAI dicts or LangChain messages"
    )


def _from_langchain(message: Any) -> Item:
    role = message.additional_kwargs.get("__openai_role__") or _LANGCHAIN_ROLES[message.type]
    item: Item = {"role": role, "content": message.content}
    if role == "tool":
        item["tool_call_id"] = message.tool_call_id
    calls = [
        (call["id"], call["name"], valid_text(json.dumps(call["args"], ensure_ascii=False, separators=(",", ":"))))
        for call in getattr(message, "tool_calls", ())
    ] + [(call["id"], call["name"], call["args"] or "") for call in getattr(message, "invalid_tool_calls", ())]
    if calls:
        item["tool_calls"] = [
            {"id": call_id, "function": {"name": name, "arguments": arguments}} for call_id, name, arguments in calls
        ]
    return item


def _content(content: Any, *, assistant: bool) -> Any:
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, Mapping):
        raise ConfigurationError("a message's content is a string, or a list of parts")
    return [part for each in content if (part := _part(each, assistant=assistant)) is not None]


def _part(part: Any, *, assistant: bool) -> Item | None:
    """Write a content part in the form of the Responses API; None for LangChain's copies of calls and reasoning."""
    if isinstance(part, str):
        part = {"type": "text", "text": part}
    match part.get("type"):
        case "text" if assistant:
            return {"type": "output_text", "text": part["text"], "annotations": []}
        case "text":
            return {"type": "input_text", "text": part["text"]}
        case "image_url":
            image = part["image_url"]
            image = {"url": image} if isinstance(image, str) else image
            return {"type": "input_image", "image_url": image["url"], "detail": image.get("detail", "auto")}
        case "file":
            return {"type": "input_file", **part["file"]} if "file" in part else dict(part)
        case "function_call" | "tool_call" | "reasoning":
            return None
        case _:
            return dict(part)


def _text(content: Any) -> Any:
    """Read a tool's output: text, or the parts the API takes."""
    return content if isinstance(content, str) else _content(content, assistant=False)
