"""Counting tokens locally, with the vocabularies that ship with the package. The network is never touched.

`TokenCounter` is for code on an event loop: it counts in a worker thread. `Tokenizer` is the same without the
thread, for code that is in one already.

The text of a message is counted exactly where tiktoken knows the model's vocabulary. What surrounds it
(roles, separators, tool definitions) is counted by the rules OpenAI published for gpt-4o, the newest there
are, and images by those for each model. What cannot be counted (files, audio, images by URL, encrypted reasoning)
makes a count incomplete.
"""

import functools
import re
import threading
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import anyio.to_thread
import msgspec

from ..errors import TokenizerError
from ..models.names import base_model
from .images import Image
from .prompt_layout import Messages, Opaque, Tools, lay_out, to_json

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    import tiktoken

T = TypeVar("T")

FRAMING = -1
"""Number that stands in `Tokenizer.encode_messages` for a token that is not text. Its real number is not published."""

_SPARE = 8
"""Tokens added to each text of a bound, for framing other than the published, and for what the texts' joints cost."""
_SPARE_ONCE = 64
"""Tokens added to each bound, for what may be said to the model around a request."""


class TokenCount(msgspec.Struct, frozen=True, gc=False):
    """A count of tokens, and how far it can be trusted."""

    tokens: int
    exact: bool
    """False where tiktoken does not know the model's vocabulary, or where framing was counted by rule."""
    encoding: str
    """The vocabulary counted with: `o200k_base` or `cl100k_base`."""
    complete: bool = True
    """False where there is more than was counted: files, audio, images of unknown size, encrypted reasoning, items and
    tools of a kind that only OpenAI can count."""


class Tokenizer:
    """A tokenizer with one model's vocabulary. Cheap to make: it loads on first use, once a process, in about 0.3 s."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.encoding, self.exact = _encoding_of(model)

    def encode(self, text: str) -> list[int]:
        """Encode a text as tokens. Text that looks like a special token is text like any other.

        Raises:
            TokenizerError: The shipped vocabulary is missing or damaged.
        """
        encode = _load(self.encoding).encode_ordinary
        if len(text) < _LONGEST_BLANK:
            return encode(text)
        return [token for part in _split_long_blanks(text) for token in encode(part)]

    def decode(self, tokens: Sequence[int]) -> bytes:
        """Decode tokens to a text's UTF-8. One token alone may be only part of a character."""
        return _load(self.encoding).decode_bytes(tokens)

    def encode_messages(
        self,
        messages: Messages,
        *,
        instructions: str | None = None,
        tools: Tools = (),
        text_format: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """Encode a whole request as the model reads it: tools, instructions, messages; with `FRAMING` between texts.

        Images are `FRAMING` too; what cannot be counted is left out.

        Raises:
            TokenizerError: The shipped vocabulary is missing or damaged.
        """
        tokens: list[int] = []
        for piece in lay_out(messages, instructions, tools, text_format):
            match piece:
                case str():
                    tokens += self.encode(piece)
                case int():
                    tokens += [FRAMING] * piece
                case Image():
                    tokens += [FRAMING] * (piece.tokens(self.model) or 0)
        return tokens

    def count_text(self, text: str) -> TokenCount:
        """Count the tokens of a text. Raises what `encode` raises."""
        return TokenCount(len(self.encode(text)), self.exact, self.encoding)

    def count_messages(
        self,
        messages: Messages,
        *,
        instructions: str | None = None,
        tools: Tools = (),
        text_format: Mapping[str, Any] | None = None,
    ) -> TokenCount:
        """Count a whole request's tokens. Never exact: the framing is counted by rule. Raises what `encode` raises."""
        tokens, complete = 0, True
        for piece in lay_out(messages, instructions, tools, text_format):
            match piece:
                case str():
                    tokens += len(self.encode(piece))
                case int():
                    tokens += piece
                case Image():
                    counted = piece.tokens(self.model)
                    tokens += counted or 0
                    complete = complete and counted is not None
                case Opaque():
                    complete = False
        return TokenCount(tokens, exact=False, encoding=self.encoding, complete=complete)

    def bound_messages(
        self,
        messages: Messages,
        *,
        instructions: str | None = None,
        tools: Tools = (),
        text_format: Mapping[str, Any] | None = None,
        by_bytes: bool = False,
    ) -> int | None:
        """Find the upper bound of a whole request's tokens: for budgets, which must hold.

        A text is counted where its vocabulary is known to be the model's, and has else no more tokens than bytes of
        UTF-8, since a token is at least one. On top come the published framing, a generous allowance for framing that
        is not published (8 tokens for each text, 64 once), and the JSON of tools and schema once more. Encrypted
        reasoning counts a token for each character.

        Args:
            messages: The request's messages, or the text of one.
            instructions: What goes before them.
            tools: As they are sent.
            text_format: The schema of the answer.
            by_bytes: Count bytes in any case: at once, where counting would load a vocabulary first.

        Returns:
            None if something in it has no bound: an image of unknown size, a file, audio, a tool that OpenAI runs, an
            item that refers to another.

        Raises:
            TokenizerError: The shipped vocabulary is missing or damaged.
        """
        measure = self._length if self.exact and not by_bytes else _bytes
        total = _SPARE_ONCE + sum(measure(to_json(each)) for each in (*tools, *filter(None, [text_format])))
        for piece in lay_out(messages, instructions, tools, text_format):
            match piece:
                case str():
                    most: int | None = measure(piece) + _SPARE
                case int():
                    most = piece
                case Image():
                    most = piece.bound(self.model)
                case Opaque():
                    most = piece.bound
            if most is None:
                return None
            total += most
        return total

    def _length(self, text: str) -> int:
        return len(self.encode(text))


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


class TokenCounter:
    """Counts off the event loop, in a worker thread, on asyncio and trio."""

    async def count_text(self, text: str, model: str) -> TokenCount:
        """Count the tokens of a text.

        Raises:
            TokenizerError: The shipped vocabulary is missing or damaged.
        """
        return await _in_thread(lambda: Tokenizer(model).count_text(text))

    async def count_messages(
        self,
        messages: Messages,
        model: str,
        *,
        instructions: str | None = None,
        tools: Tools = (),
        text_format: Mapping[str, Any] | None = None,
    ) -> TokenCount:
        """Count the tokens of a whole request: messages or input items, instructions and tool definitions.

        Args:
            messages: Chat Completions messages, Responses input items, or the text of one user message.
            model: Whose vocabulary and image rules to count with.
            instructions: What the model is told before all messages.
            tools: Tool definitions, in the form of either API.
            text_format: What the answer must look like: `text.format` of Responses, or `response_format`.

        Raises:
            TokenizerError: The shipped vocabulary is missing or damaged.
        """
        return await _in_thread(
            lambda: Tokenizer(model).count_messages(
                messages, instructions=instructions, tools=tools, text_format=text_format
            )
        )

    async def bound_messages(
        self,
        messages: Messages,
        model: str,
        *,
        instructions: str | None = None,
        tools: Tools = (),
        text_format: Mapping[str, Any] | None = None,
    ) -> int | None:
        """Find the upper bound of a whole request's tokens; None if there is none. See `Tokenizer.bound_messages`.

        What the request only refers to (`previous_response_id`, a conversation) is not in it: ask no bound then.

        Raises:
            TokenizerError: The shipped vocabulary is missing or damaged.
        """
        return await _in_thread(
            lambda: Tokenizer(model).bound_messages(
                messages, instructions=instructions, tools=tools, text_format=text_format
            )
        )


async def _in_thread(count: Callable[[], T]) -> T:
    # Nothing comes of a count without a caller: a cancelled one need not wait for it either.
    return await anyio.to_thread.run_sync(count, abandon_on_cancel=True)


# --- Vocabularies ---


class _Vocabulary(msgspec.Struct, frozen=True):
    """The parts of an encoding besides its ranks. Source: tiktoken 0.14.0, `tiktoken_ext/openai_public.py`."""

    sha256: str
    """Checksum of the uncompressed ranks."""
    pattern: str
    special_tokens: dict[str, int]


_VOCABULARIES = {
    "o200k_base": _Vocabulary(
        sha256="446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
        pattern="|".join(
            [
                r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
                r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
                r"""\p{N}{1,3}""",
                r""" ?[^\s\p{L}\p{N}]+[\r\n/]*""",
                r"""\s*[\r\n]+""",
                r"""\s+(?!\S)""",
                r"""\s+""",
            ]
        ),
        special_tokens={"<|endoftext|>": 199999, "<|endofprompt|>": 200018},
    ),
    "cl100k_base": _Vocabulary(
        sha256="223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
        pattern=r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s""",  # noqa: E501 - verbatim
        special_tokens={
            "<|endoftext|>": 100257,
            "<|fim_prefix|>": 100258,
            "<|fim_middle|>": 100259,
            "<|fim_suffix|>": 100260,
            "<|endofprompt|>": 100276,
        },
    ),
}
_NEWEST = "o200k_base"


def _encoding_of(model: str) -> tuple[str, bool]:
    """Find the encoding a model is counted with, and whether it is known to be its own."""
    from tiktoken.model import encoding_name_for_model

    # "ft:gpt-4.1:acme::7p4l" has its base model's vocabulary; for this one tiktoken 0.14 would say gpt-4's.
    try:
        # o200k_harmony differs in special tokens only, which text never becomes.
        name = encoding_name_for_model(base_model(model)).replace("o200k_harmony", "o200k_base")
    except KeyError:
        return _NEWEST, False
    return (name, True) if name in _VOCABULARIES else (_NEWEST, False)


_loading = threading.Lock()


def _load(name: str) -> "tiktoken.Encoding":
    with _loading:  # or two threads might both do the work
        return _load_once(name)


@functools.cache
def _load_once(name: str) -> "tiktoken.Encoding":
    import tiktoken

    vocabulary = _VOCABULARIES[name]
    from importlib.resources import files  # here, with all that it imports, because few programs count tokens

    folder = files(__package__) / "vocab"
    ranks = _read_ranks(folder / f"{name}.tiktoken.gz", vocabulary.sha256)
    return tiktoken.Encoding(
        name, pat_str=vocabulary.pattern, mergeable_ranks=ranks, special_tokens=vocabulary.special_tokens
    )


def _read_ranks(file: "Traversable", sha256: str) -> dict[bytes, int]:
    """Read lines of a token in base64 and its rank."""
    import gzip  # here, with the others, because few processes need them
    import hashlib
    import zlib

    try:
        data = gzip.decompress(file.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise TokenizerError(f"cannot read the vocabulary {file.name}: {error}. Reinstall runmeter") from error
    if (found := hashlib.sha256(data).hexdigest()) != sha256:
        raise TokenizerError(
            f"the vocabulary {file.name} is damaged: its SHA-256 is {found}, not {sha256}. Reinstall runmeter"
        )
    return {b64decode(token): int(rank) for token, rank in map(bytes.split, data.splitlines())}


# tiktoken 0.14 panics on a million blanks in a row (its regex engine's stack is full). A text is cut inside
# such a run, at the price of a token more or less.
_LONGEST_BLANK = 250_000
_LONG_BLANK = re.compile(rf"\s{{{_LONGEST_BLANK}}}")


def _split_long_blanks(text: str) -> Iterator[str]:
    start = 0
    for blank in _LONG_BLANK.finditer(text):
        yield text[start : blank.end()]
        start = blank.end()
    yield text[start:]
