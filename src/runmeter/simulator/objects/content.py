"""Pieces of content in a request: which kinds a message, an output and a thought may have, and what is read of them.

Source: openai 3.54.0, `types/responses/response_input_message_content_list_param.py` and its neighbours,
`types/chat/chat_completion_content_part_param.py` (2026-11). Text is read, and an image that the request itself
holds is counted. Files, sounds and images elsewhere are not simulated: nobody here knows how large they are.
"""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from ..errors import not_simulated

_Detail: TypeAlias = Literal["auto", "low", "high", "original"]


class _Piece(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, tag_field="type"):
    prompt_cache_breakpoint: Any = None


class InputText(_Piece, tag="input_text", kw_only=True):
    """Text in a message or an output."""

    text: str


class InputImage(_Piece, tag="input_image", kw_only=True):
    """An image in a message or an output."""

    image_url: str | None = None
    detail: _Detail | None = None
    file_id: str | None = None


class InputFile(_Piece, tag="input_file", kw_only=True):
    """A file in a message or an output."""

    file_id: str | None = None
    file_data: str | None = None
    file_url: str | None = None
    filename: str | None = None
    detail: Literal["auto", "low", "high"] | None = None


class InputAudio(_Piece, tag="input_audio", kw_only=True):
    """A sound in a message."""

    input_audio: Any


class SaidText(_Piece, tag="output_text", kw_only=True):
    """Text that a model said."""

    text: str
    annotations: Any = None
    logprobs: Any = None


class SaidRefusal(_Piece, tag="refusal", kw_only=True):
    """A refusal of a model, in its own words."""

    refusal: str


class ThoughtSummary(_Piece, tag="summary_text", kw_only=True):
    """A summary of what a model thought."""

    text: str


class ThoughtText(_Piece, tag="reasoning_text", kw_only=True):
    """Something that a model thought."""

    text: str


class ChatText(_Piece, tag="text", kw_only=True):
    """Text in a message of Chat Completions."""

    text: str


class ImageURL(msgspec.Struct, forbid_unknown_fields=True):
    """The place of an image, and how closely it is to be looked at."""

    url: str
    detail: _Detail | None = None


class ChatImage(_Piece, tag="image_url", kw_only=True):
    """An image in a message of Chat Completions."""

    image_url: ImageURL


class ChatFile(_Piece, tag="file", kw_only=True):
    """A file in a message of Chat Completions."""

    file: Any


InputPiece: TypeAlias = InputText | InputImage | InputFile | InputAudio
SaidPiece: TypeAlias = SaidText | SaidRefusal
ChatPiece: TypeAlias = ChatText | ChatImage | InputAudio | ChatFile
ChatSaidPiece: TypeAlias = ChatText | SaidRefusal


def check_pieces(pieces: str | Sequence[Any] | None, at: str) -> None:
    """Check that what `at` this parameter is in pieces can be simulated.

    Raises:
        ApiError: 400: it is a file, a sound, or an image that is elsewhere, or marks where to cache.
    """
    for index, piece in enumerate(() if isinstance(pieces, str) else pieces or ()):
        where = f"{at}[{index}]"
        match piece:
            case InputImage(image_url=str(url)) | ChatImage(image_url=ImageURL(url=url)) if url.startswith("data:"):
                pass
            case InputImage() | ChatImage():
                raise not_simulated("an image that is not in the request itself, as a data URL", where)
            case InputFile() | ChatFile():
                raise not_simulated("a file in a message", where)
            case InputAudio():
                raise not_simulated("a sound in a message", where)
        if piece.prompt_cache_breakpoint is not None:
            raise not_simulated("a breakpoint of the prompt cache", f"{where}.prompt_cache_breakpoint")
