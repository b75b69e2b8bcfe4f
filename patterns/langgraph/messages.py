"""Messages in any form a user has them, as LangChain messages."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import msgspec
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.tool import invalid_tool_call, tool_call

from runmeter.engine import ConfigurationError

from ..call_ids import CallIds
from ..errors import AnswerCutOff
from ..messages import Item, MessageReader, as_sequence, is_call
from ..text import valid, valid_text

Message = TypeVar("Message", bound=BaseMessage)


def to_langchain(messages: Any) -> list[BaseMessage]:
    """Turn messages into LangChain's; those that are already stay as they are, if their text is valid.

    But not those of which LangChain would pass on a role as it is, or leave out something: they are written anew, in
    LangChain's own form. So are results of tools within a user's message, calls that are only parts of an answer's
    content, and refusals that are only beside it (langchain-openai 1.7.3, `_convert_message_to_dict`,
    `_construct_responses_api_input`).

    Raises:
        ConfigurationError: one of `messages` is not a message, or there is none.
    """
    converted: list[BaseMessage] = []
    reader = MessageReader()
    for message in as_sequence(messages):
        if isinstance(message, BaseMessage) and _is_kept_whole(message):
            converted.append(_with_ids(message, reader.call_ids))
            continue
        for item in reader.read(message):
            _append(converted, item)
    if not converted:
        raise ConfigurationError("there are no messages")
    return [valid_message(message) for message in converted]


def _is_kept_whole(message: BaseMessage) -> bool:
    """Tell whether LangChain passes on all that a message of its own says."""
    parts = message.content if isinstance(message.content, list) else ()
    if isinstance(message, AIMessage):
        known = {call_id for call_id, _, _ in calls_of(message)}
        beside = message.additional_kwargs
        says_more = (beside.get("function_call") and not known) or (beside.get("refusal") and not message.text)
        return not says_more and all(_id_of(part) in known for part in parts if is_call(part))
    if isinstance(message, HumanMessage):
        return not any(isinstance(part, dict) and part.get("type") == "tool_result" for part in parts)
    return isinstance(message, SystemMessage | ToolMessage)


def _id_of(part: Any) -> Any:
    return part.get("call_id") or part.get("id")


def check_is_heard(model: Any, messages: Iterable[BaseMessage]) -> None:
    """Refuse audio that LangChain would leave out of a request without a word.

    Raises:
        ConfigurationError: a message has audio, and the model asks the Responses API (langchain-openai 1.7.3,
            `_construct_responses_api_input`).
    """
    while (bound := getattr(model, "bound", None)) is not None:
        model = bound
    if getattr(model, "use_responses_api", None) is not True:
        return
    for message in messages:
        for part in message.content if isinstance(message.content, list) else ():
            if isinstance(part, dict) and part.get("type") in ("audio", "input_audio"):
                raise ConfigurationError(
                    "a message has audio, which LangChain leaves out of requests to the Responses API: give the "
                    "pattern model=ChatOpenAI(..., use_responses_api=False)"
                )


def valid_message(message: Message) -> Message:
    """Replace a message that has text that cannot be sent by a copy without; others stay as they are."""
    changed: dict[str, Any] = {}
    for name in ("content", "tool_calls", "invalid_tool_calls") if isinstance(message, AIMessage) else ("content",):
        value = getattr(message, name)
        if value and value != (sendable := valid(value)):
            changed[name] = sendable
    return message.model_copy(update=changed) if changed else message


def with_own_call_ids(answer: AIMessage, history: Iterable[BaseMessage]) -> AIMessage:
    """Give each call of an answer an id that no other call has, in it or in what was said before."""
    if not calls_of(answer):
        return answer
    taken = (call_id for message in history if isinstance(message, AIMessage) for call_id, _, _ in calls_of(message))
    return _with_ids(answer, CallIds(taken))


def answer_open_calls(messages: Sequence[BaseMessage]) -> Iterator[BaseMessage]:
    """Answer function calls that have no output, as a run that was stopped leaves them: no API takes such a history."""
    for number, message in enumerate(messages):
        yield message
        if not isinstance(message, AIMessage) or not (calls := calls_of(message)):
            continue
        answered = {later.tool_call_id for later in messages[number + 1 :] if isinstance(later, ToolMessage)}
        for call_id, name, _ in calls:
            if call_id not in answered:
                yield ToolMessage(f"Error: {AnswerCutOff()}", tool_call_id=call_id, name=name, status="error")


def calls_of(message: AIMessage) -> list[tuple[str, str, str]]:
    """List the function calls a model asks for: id, name, and arguments as JSON or what it wrote in place of it."""
    read = [(call["id"] or "", call["name"], _to_json(call["args"])) for call in message.tool_calls]
    unread = [(call["id"] or "", call["name"] or "", call["args"] or "") for call in message.invalid_tool_calls]
    return read + unread


def _to_json(args: dict[str, Any]) -> str:
    """Write arguments by Python's own writer: it takes all that its reader gave LangChain, as numbers of any size."""
    return valid_text(json.dumps(args, ensure_ascii=False, separators=(",", ":")))


def _with_ids(message: Message, call_ids: CallIds) -> Message:
    """Give calls, and outputs, the ids that they have in a history; a copy, if that changes any."""
    if isinstance(message, ToolMessage):
        call_id = call_ids.output(message.tool_call_id, message.name).call_id
        return message if call_id == message.tool_call_id else message.model_copy(update={"tool_call_id": call_id})
    if not isinstance(message, AIMessage) or not (calls := calls_of(message)):
        return message
    given = [call_id for call_id, _, _ in calls]
    own = [call_ids.call(call_id, name) for call_id, name, _ in calls]
    if own == given:
        return message
    read = len(message.tool_calls)
    update: dict[str, Any] = {
        "tool_calls": [{**call, "id": call_id} for call, call_id in zip(message.tool_calls, own, strict=False)],
        "invalid_tool_calls": [
            {**call, "id": call_id} for call, call_id in zip(message.invalid_tool_calls, own[read:], strict=True)
        ],
    }
    if isinstance(message.content, list):
        update["content"] = _with_ids_in(message.content, list(zip(given, own, strict=True)))
    return message.model_copy(update=update)


def _with_ids_in(content: Sequence[Any], ids: list[tuple[str, str]]) -> list[Any]:
    """Give the copies of calls that are parts of a content the ids that the calls have now."""
    parts = []
    for part in content:
        name = "call_id" if isinstance(part, dict) and "call_id" in part else "id"
        pair = next((pair for pair in ids if pair[0] == part.get(name)), None) if is_call(part) else None
        if pair is not None:
            ids.remove(pair)
        parts.append({**part, name: pair[1]} if pair else part)
    return parts


def _append(messages: list[BaseMessage], item: Item) -> None:
    match item.get("type", "message"):
        case "message":
            messages.append(_message(item))
        case "function_call":
            if not (messages and isinstance(messages[-1], AIMessage)):
                messages.append(AIMessage(""))
            messages[-1] = _with_call(messages[-1], item)
        case "function_call_output":
            messages.append(ToolMessage(_content(item.get("output")), tool_call_id=item.get("call_id")))
        case "reasoning":
            pass  # bound to the API and the model that wrote it
        case kind:
            raise ConfigurationError(f"a LangChain model cannot be given an item of type {kind!r}")


def _message(item: Item) -> BaseMessage:
    content = _content(item.get("content"))
    match item["role"]:
        case "user":
            return HumanMessage(content)
        case "assistant":
            return AIMessage(content)
        case "developer":
            return SystemMessage(content, additional_kwargs={"__openai_role__": "developer"})
        case _:
            return SystemMessage(content)


def _with_call(message: BaseMessage, item: Item) -> AIMessage:
    """Add one call to a message. A copy: it may be the user's own."""
    assert isinstance(message, AIMessage)  # noqa: S101 - the caller has seen to it
    call_id, name, arguments = item.get("call_id"), item.get("name") or "", item.get("arguments") or "{}"
    try:
        call = tool_call(name=name, args=msgspec.json.decode(arguments, type=dict), id=call_id)
    except msgspec.MsgspecError as error:
        invalid = invalid_tool_call(name=name, args=arguments, id=call_id, error=str(error))
        return message.model_copy(update={"invalid_tool_calls": [*message.invalid_tool_calls, invalid]})
    return message.model_copy(update={"tool_calls": [*message.tool_calls, call]})


def _content(content: Any) -> Any:
    if content is None or isinstance(content, str):
        return content or ""
    parts: Iterable[Any] = content
    return [_part(part) for part in parts]


def _part(part: Any) -> Any:
    match part.get("type"):
        case "input_text" | "output_text":
            return {"type": "text", "text": part["text"]}
        case "refusal":  # of which other models know nothing
            return {"type": "text", "text": part["refusal"]}
        case "input_image" if "image_url" in part:
            image = {"url": part["image_url"], "detail": part.get("detail", "auto")}
            return {"type": "image_url", "image_url": image}
        case "input_file":
            return {"type": "file", "file": {key: value for key, value in part.items() if key != "type"}}
        case _:
            return part
