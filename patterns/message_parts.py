"""Parts of a message's content, in the forms of several APIs and of LangChain, as parts of OpenAI's Responses API.

Sources: openai 3.54.0, `types/responses/response_input_content_param.py` and `types/chat/`; langchain-core 1.7.2,
`messages/content.py` and `messages/block_translators/`; Anthropic's Messages API (2026-11).
"""

import mimetypes
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from runmeter.engine import ConfigurationError

Part: TypeAlias = dict[str, Any]

_OWN: Mapping[str, tuple[str, ...]] = {
    "input_text": ("text",),
    "output_text": ("text",),
    "refusal": ("refusal",),
    "input_image": ("image_url", "file_id"),
    "input_file": ("file_id", "file_url", "file_data"),
    "input_audio": ("input_audio",),
}
"""Parts of the Responses API itself, and what each needs one of; all else that it says of them stays."""
LEFT_OUT = frozenset(
    (
        *("reasoning", "thinking", "redacted_thinking"),  # bound to the API and the model that wrote it
        *("web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call"),
        *("mcp_call", "mcp_list_tools", "tool_search_call", "tool_search_output"),
        *("server_tool_use", "server_tool_call", "server_tool_result", "web_search_tool_result"),
    )
)
"""Parts in which an answer tells how it came about: reasoning, and calls of tools that an API ran. They are of no use
without each other, and none is kept."""
_FILE = ("file_id", "file_data", "filename")
_AUDIO = {"mp3": "mp3", "mpeg": "mp3", "wav": "wav", "x-wav": "wav", "wave": "wav"}
"""Formats of audio that the API takes, by the second half of a media type."""


def to_part(part: Any, *, assistant: bool) -> Part:
    """Write a content part in the form of the Responses API.

    Args:
        part: The part, or a text.
        assistant: Whether the model has said it.

    Raises:
        ConfigurationError: the form is not known, or the API has no such part.
        KeyError, TypeError, AttributeError: it is not built as its type says.
    """
    if isinstance(part, str):
        part = {"type": "text", "text": part}
    kind = part.get("type")
    if not isinstance(kind, str) or (kind not in _OWN and kind not in _WRITERS):
        raise ConfigurationError(f"a message has a content part of an unknown type: {kind!r:.100}")
    if kind in _OWN:
        return _whole(dict(part))
    if assistant and kind in ("text", "text-plain"):
        return {"type": "output_text", "text": _text(part), "annotations": []}
    return _whole(_WRITERS[kind](part))


def _whole(part: Part) -> Part:
    """Check that a part has something in it."""
    needed = _OWN[part["type"]]
    if all(part.get(name) is None for name in needed):
        raise ConfigurationError(f"a message's {part['type']} has no {' or '.join(needed)}")
    return part


def _text(part: Part) -> str:
    text = part["text"]
    if not isinstance(text, str):
        raise TypeError(f"its text is of type {type(text).__name__}")
    return text


def _chat_image(part: Part) -> Part:
    image = part["image_url"]
    image = {"url": image} if isinstance(image, str) else image
    return {"type": "input_image", "image_url": image["url"], "detail": image.get("detail") or "auto"}


def _image(part: Part) -> Part:
    detail = part.get("detail") or (part.get("extras") or {}).get("detail") or "auto"
    source = _Source(part)
    place = {"file_id": source.file_id} if source.file_id else {"image_url": source.url or source.data_url("image")}
    return {"type": "input_image", **place, "detail": detail}


def _file(part: Part) -> Part:
    if "file" in part:  # of Chat Completions
        return {"type": "input_file", **{name: part["file"].get(name) for name in _FILE if part["file"].get(name)}}
    source = _Source(part)
    if source.text is not None:
        return {"type": "input_text", "text": source.text}
    if source.file_id:
        return {"type": "input_file", "file_id": source.file_id}
    if source.url:
        return {"type": "input_file", "file_url": source.url}
    data_url = source.data_url("file")  # which the API takes with a name only
    return {"type": "input_file", "filename": source.filename, "file_data": data_url}


def _audio(part: Part) -> Part:
    source = _Source(part)
    form = _AUDIO.get(source.media_type.partition("/")[2].lower())
    if source.data is None or form is None:
        raise ConfigurationError(
            "audio in a message must be given as base64, with the media type audio/mp3 or audio/wav"
        )
    return {"type": "input_audio", "input_audio": {"data": source.data, "format": form}}


class _Source:
    """The place where the data of a part are, in whatever form that is said."""

    def __init__(self, part: Part) -> None:
        nested = part.get("source")
        of = nested if isinstance(nested, Mapping) else part  # as Anthropic has it, or beside the rest
        kind = of.get("source_type") or (of.get("type") if of is nested else None)
        names = ("mime_type", "media_type", "mimeType", "mediaType")
        self.media_type = str(next((of[name] for name in names if of.get(name)), ""))
        self.url: str | None = of.get("url")
        self.file_id: str | None = of.get("file_id") or (of.get("id") if kind == "id" else None)
        self.data: str | None = of.get("base64") or of.get("data")
        self.text: str | None = (of.get("text") or of.get("data")) if kind == "text" else None
        beside = (part, part.get("extras") or {}, part.get("metadata") or {})
        named = (each.get(name) for each in beside for name in ("filename", "name", "title"))
        extension = mimetypes.guess_extension(self.media_type) or ""
        self.filename = str(next(filter(None, named), f"file{extension}"))

    def data_url(self, what: str) -> str:
        """Write the data as a URL.

        Raises:
            ConfigurationError: there are none, or they have no media type.
        """
        data = self.data
        if not isinstance(data, str):
            raise ConfigurationError(f"a message's {what} has neither data as base64, nor a URL, nor the id of a file")
        if data.startswith("data:"):
            return data
        if not self.media_type:
            raise ConfigurationError(f"a message's {what} is given as base64 without its media type, such as image/png")
        return f"data:{self.media_type};base64,{data}"


_WRITERS: Mapping[str, Callable[[Part], Part]] = {
    "text": lambda part: {"type": "input_text", "text": _text(part)},
    "text-plain": lambda part: {"type": "input_text", "text": _text(part)},
    "image_url": _chat_image,
    "image": _image,
    "file": _file,
    "document": _file,
    "audio": _audio,
}
