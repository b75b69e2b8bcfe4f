"""Messages in any form a user has them, as input items of OpenAI's Responses API.

Taken are a string, Chat Completions messages, Responses items, the OpenAI client's objects, LangChain messages and its
pairs of a role and a content, and messages with Anthropic's parts; one or several, also mixed. What is not understood
is refused.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from runmeter.engine import ConfigurationError

from .call_ids import MAX_LENGTH, CallIds
from .message_parts import LEFT_OUT, to_part
from .text import valid, valid_text

Item: TypeAlias = dict[str, Any]

_ROLES = {
    **dict.fromkeys(("user", "human", "HumanMessageChunk"), "user"),
    **dict.fromkeys(("assistant", "ai", "AIMessageChunk"), "assistant"),
    **dict.fromkeys(("system", "SystemMessageChunk"), "system"),
    "developer": "developer",
    **dict.fromkeys(("tool", "ToolMessageChunk"), "tool"),
    **dict.fromkeys(("function", "FunctionMessageChunk"), "function"),
}
"""Roles by the names that they have in OpenAI's messages, and in LangChain's."""
_STATUS = ("in_progress", "completed", "incomplete")
_PHASES = ("commentary", "final_answer")
_ID_PREFIXES = {"message": "msg_", "function_call": "fc_"}
"""Beginnings of the ids that the API gives items, of those that other programs give ids, too."""
_ITEMS = re.compile(
    "reasoning|item_reference|additional_tools|configuration_update|compaction(_trigger)?|program(_output)?"
    "|mcp_(list_tools|approval_request|approval_response)|tool_search_output|[a-z_]+_call(_output)?"
)
"""Types of items beside messages: openai 3.54.0, `types/responses/response_input_item_param.py` (2026-11)."""
_CALLS = ("tool_use", "tool_call", "function_call", "custom_tool_call", "invalid_tool_call")
"""Types of content parts that are calls: Anthropic's, LangChain's and OpenAI's."""
_ASIDE = LEFT_OUT.union(_CALLS, ("tool_result",))
"""Types of content parts that are not part of what is said."""


def to_items(messages: Any) -> list[Item]:
    """Write messages as Responses input items.

    Raises:
        ConfigurationError: one of `messages` is not a message, or there is none.
    """
    reader = MessageReader()
    items = [item for message in as_sequence(messages) for item in reader.read(message)]
    if not items:
        raise ConfigurationError("there are no messages")
    return items


def as_sequence(messages: Any) -> Iterable[Any]:
    """Make a sequence of one message or several. A tuple of a role and a content is one."""
    if isinstance(messages, str | Mapping) or not isinstance(messages, Iterable) or hasattr(messages, "model_dump"):
        return [messages]
    return [messages] if isinstance(messages, tuple) and _is_pair(messages) else messages


class MessageReader:
    """Reads a history, message by message: an output is told from others by the calls before it."""

    def __init__(self) -> None:
        self.call_ids = CallIds()

    def read(self, message: Any) -> list[Item]:
        """Write one message as items: itself, if it says something, its calls, and outputs.

        Raises:
            ConfigurationError: it is not a message, or not one that the API understands.
        """
        try:
            return [valid(item) for item in self._items(_as_dict(message))]
        except (TypeError, AttributeError, KeyError) as error:
            # Not the message itself: it may be long, and private.
            raise ConfigurationError(f"a message is not built as OpenAI's are: {error!r}") from error

    def _items(self, message: Item) -> Iterator[Item]:
        kind = message.get("type") or "message"
        role = _ROLES.get(message.get("role") or kind)
        if role in ("tool", "function"):
            name = message.get("name") or message.get("tool_name")
            yield self._output(message.get("tool_call_id"), message.get("content"), name)
        elif role is not None and (kind == "message" or kind in _ROLES):
            yield from self._said(message, role)
        elif kind == "message":
            raise ConfigurationError(
                f"a message needs a role: user, assistant, system, developer or tool; got {message.get('role')!r:.100}"
            )
        else:
            yield self._item(message, kind)

    def _item(self, item: Item, kind: object) -> Item:
        if kind in ("tool_use", "tool_call"):
            return self._call(*_call_in(item))
        if not isinstance(kind, str) or not _ITEMS.fullmatch(kind):
            raise ConfigurationError(f"an item of the unknown type {kind!r:.100} is not a message")
        if kind in ("function_call", "custom_tool_call"):
            call_id = self.call_ids.call(item.get("call_id"), item["name"], is_custom=kind != "function_call")
            written = {} if isinstance(item.get("arguments", ""), str) else {"arguments": _as_json(item["arguments"])}
            return {**_with_own_id(item, kind), **written, "call_id": call_id}
        if kind in ("function_call_output", "custom_tool_call_output"):
            return {**item, "call_id": self.call_ids.output(item.get("call_id")).call_id}
        return item

    def _said(self, message: Item, role: str) -> Iterator[Item]:
        """Write what a message says: results of tools that it holds first, its calls last."""
        calls = list(_calls_of(message))
        content = _content_of(message, role, has_calls=bool(calls))
        is_empty = not content
        if isinstance(content, list):
            for part in content:
                if _type_of(part) == "tool_result":
                    yield self._output(part["tool_use_id"], part.get("content"))
            known = {given for given, _, _, _ in calls}
            found = [_call_in(part) for part in content if is_call(part)]
            calls += [call for call in found if call[0] not in known]
            content = [to_part(part, assistant=role == "assistant") for part in content if _type_of(part) not in _ASIDE]
        if role == "assistant" and (refusal := message.get("refusal")):
            content = _with_refusal(content, refusal)
        if content or (is_empty and not calls):
            yield {**_kept(message), "role": role, "content": content}
        for call in calls:
            yield self._call(*call)

    def _call(self, given: Any, name: str, arguments: Any, is_custom: bool) -> Item:
        call_id = self.call_ids.call(given, name, is_custom=is_custom)
        if is_custom:
            return {"type": "custom_tool_call", "call_id": call_id, "name": name, "input": arguments or ""}
        return {"type": "function_call", "call_id": call_id, "name": name, "arguments": _as_json(arguments)}

    def _output(self, given: Any, content: Any, name: str | None = None) -> Item:
        call = self.call_ids.output(given, name)
        kind = "custom_tool_call_output" if call.is_custom else "function_call_output"
        output = content or ""
        if not isinstance(output, str):
            output = [to_part(part, assistant=False) for part in _parts(output)]
        return {"type": kind, "call_id": call.call_id, "output": output}


def _is_pair(value: Any) -> bool:
    """Tell whether a value is a message as LangChain takes it, too: a role, and a content."""
    return isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[0], str) and value[0] in _ROLES


def _as_dict(message: Any) -> Item:
    """Write a message as a dict in a form of OpenAI's."""
    if isinstance(message, str):
        return {"role": "user", "content": message}
    if isinstance(message, Mapping):
        return dict(message)
    if _is_pair(message):
        return {"role": message[0], "content": message[1]}
    if hasattr(message, "to_dict"):  # the OpenAI client's objects
        written: Item = message.to_dict(mode="json")
        return written
    if hasattr(message, "content") and hasattr(message, "additional_kwargs"):
        return _from_langchain(message)
    raise ConfigurationError(
        f"cannot read {type(message).__name__!r} as a message: give a string, OpenAI dicts or LangChain messages"
    )


def _from_langchain(message: Any) -> Item:
    beside = message.additional_kwargs
    role = beside.get("__openai_role__") or getattr(message, "role", None) or message.type
    item: Item = {"role": role, "content": message.content}
    for name in ("tool_call_id", "name"):
        item[name] = getattr(message, name, None)
    for name in ("refusal", "function_call"):
        item[name] = beside.get(name)
    calls = [(call["id"], call["name"], call["args"]) for call in getattr(message, "tool_calls", ())] + [
        (call["id"], call["name"], call["args"] or "") for call in getattr(message, "invalid_tool_calls", ())
    ]
    if calls:
        item["tool_calls"] = [
            {"id": call_id, "function": {"name": name, "arguments": arguments}} for call_id, name, arguments in calls
        ]
    return item


def _calls_of(message: Item) -> Iterator[tuple[Any, str, Any, bool]]:
    """List the calls of a Chat Completions message: id, name, arguments, and whether the tool is a custom one."""
    calls = message.get("tool_calls") or ()
    for call in calls:
        custom = call.get("custom")
        function = custom or call.get("function") or {}
        yield call.get("id"), function["name"], function.get("input" if custom else "arguments"), bool(custom)
    if not calls and (legacy := message.get("function_call")):
        yield None, legacy["name"], legacy.get("arguments"), False


def _call_in(part: Item) -> tuple[Any, str, Any, bool]:
    """Read the call that a content part is."""
    arguments = next((part[name] for name in ("input", "args", "arguments") if name in part), None)
    return part.get("call_id") or part.get("id"), part["name"], arguments, part["type"] == "custom_tool_call"


def _content_of(message: Item, role: str, *, has_calls: bool) -> Any:
    """Read a message's content: a text, or a list of parts. An answer may have none.

    Raises:
        ConfigurationError: there is none, or it is neither.
    """
    content = message.get("content")
    if content is None:
        content = (message.get("audio") or {}).get("transcript")
    if not content and message.get("parts"):
        raise ConfigurationError(
            "a message has 'parts' and no content: give these as its content, in a form of OpenAI's"
        )
    if content is None:
        is_said = has_calls or message.get("refusal") or ("content" in message and not message.get("audio"))
        if role != "assistant" or not is_said:
            raise ConfigurationError(f"a message has no content; it has {', '.join(sorted(map(str, message))):.200}")
        return ""
    if not isinstance(content, str | list | tuple):
        raise ConfigurationError("a message's content is a string, or a list of parts")
    if isinstance(content, str):
        return content
    return _parts(content)


def _parts(content: Iterable[Any]) -> list[Any]:
    """List the parts of a content, out of LangChain's wrapping for those it does not know."""
    return [part["value"] if _type_of(part) == "non_standard" else part for part in content]


def is_call(part: Any) -> bool:
    """Tell whether a content part is a call, or the copy of one."""
    return _type_of(part) in _CALLS


def _type_of(part: Any) -> str | None:
    kind = part.get("type") if isinstance(part, Mapping) else None
    return kind if isinstance(kind, str) else None


def _with_refusal(content: Any, refusal: str) -> list[Any]:
    """Add a refusal, which the Chat API has beside the content, to what is said."""
    said = [to_part(content, assistant=True)] if isinstance(content, str) and content else list(content)
    return said if any(part["type"] == "refusal" for part in said) else [*said, {"type": "refusal", "refusal": refusal}]


def _kept(message: Item) -> Item:
    """Choose what the API knows of a message beside its role and content, where it is of the API's own form."""
    kept = {"type": "message"} if message.get("type") == "message" else {}
    known = (("status", _STATUS), ("phase", _PHASES))
    kept |= {name: message[name] for name, values in known if message.get(name) in values}
    return _with_own_id({"id": message.get("id"), **kept}, "message")


def _with_own_id(item: Item, kind: str) -> Item:
    """Leave out an id that is not one of the API's: one of a user interface, of another server, or too long."""
    prefix = _ID_PREFIXES.get(kind, "")
    given = item.get("id")
    if isinstance(given, str) and given.startswith(prefix) and len(given) <= MAX_LENGTH:
        return item
    return {name: value for name, value in item.items() if name != "id"}


def _as_json(arguments: Any) -> str:
    """Write a call's arguments as JSON, which they may be already, or what a model wrote in place of it."""
    if isinstance(arguments, str):
        return arguments or "{}"
    # By Python's own writer: it takes all that its reader gave LangChain, as numbers of any size.
    return valid_text(json.dumps({} if arguments is None else arguments, ensure_ascii=False, separators=(",", ":")))
