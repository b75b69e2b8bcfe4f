"""Counting tokens locally, with the vocabularies that ship with the package. The network is never touched.

`TokenCounter` is for code on an event loop: it counts in a worker thread. `Tokenizer` is the same without the
thread, for code that is in one already.

The text of a message is counted exactly where tiktoken knows the model's vocabulary. What surrounds it
(roles, separators, tool definitions) is counted by the rules OpenAI published for gpt-4o, the newest there
are. Images, audio and files are not counted.
"""

import functools
import gzip
import hashlib
import re
import threading
import zlib
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import anyio.to_thread
import msgspec

from .errors import TokenizerError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    import tiktoken

T = TypeVar("T")

Messages: TypeAlias = str | Sequence[Mapping[str, Any]]
"""What a request is made of: Chat Completions messages, Responses input items, or a str: one user message."""
Tools: TypeAlias = Sequence[Mapping[str, Any]]
"""Tool definitions, in the form of either API."""

FRAMING = -1
"""Stands in `Tokenizer.encode_messages` for a token that is not text. Its real number is not published."""


class TokenCount(msgspec.Struct, frozen=True, gc=False):
    """How many tokens something is."""

    tokens: int
    exact: bool
    """False where tiktoken does not know the model's vocabulary, or where framing was counted by rule."""
    encoding: str
    """The vocabulary counted with: `o200k_base` or `cl100k_base`."""


class Tokenizer:
    """One model's vocabulary. Cheap to make: it loads on first use, once a process, in about 0.3 s."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.encoding, self.exact = _encoding_of(model)

    def encode(self, text: str) -> list[int]:
        """The text's tokens. Text that looks like a special token is text like any other.

        Raises:
            TokenizerError: The shipped vocabulary is missing or damaged.
        """
        encode = _load(self.encoding).encode_ordinary
        if len(text) < _LONGEST_BLANK:
            return encode(text)
        return [token for part in _split_long_blanks(text) for token in encode(part)]

    def decode(self, tokens: Sequence[int]) -> bytes:
        """The text's UTF-8. One token alone may be only part of a character."""
        return _load(self.encoding).decode_bytes(tokens)

    def encode_messages(self, messages: Messages, *, instructions: str | None = None, tools: Tools = ()) -> list[int]:
        """A whole request as the model reads it: tools, instructions, messages; with `FRAMING` between texts.

        Raises:
            TokenizerError: The shipped vocabulary is missing or damaged.
        """
        tokens: list[int] = []
        for piece in _pieces(messages, instructions, tools):
            tokens += [FRAMING] * piece if isinstance(piece, int) else self.encode(piece)
        return tokens

    def count_text(self, text: str) -> TokenCount:
        """Count a text. Raises what `encode` raises."""
        return TokenCount(len(self.encode(text)), self.exact, self.encoding)

    def count_messages(self, messages: Messages, *, instructions: str | None = None, tools: Tools = ()) -> TokenCount:
        """Count a whole request. Never exact: the framing is counted by rule. Raises what `encode` raises."""
        tokens = self.encode_messages(messages, instructions=instructions, tools=tools)
        return TokenCount(len(tokens), exact=False, encoding=self.encoding)


class TokenCounter:
    """Counts off the event loop, in a worker thread, on asyncio and trio."""

    async def count_text(self, text: str, model: str) -> TokenCount:
        """Count a text.

        Raises:
            TokenizerError: The shipped vocabulary is missing or damaged.
        """
        return await _in_thread(lambda: Tokenizer(model).count_text(text))

    async def count_messages(
        self, messages: Messages, model: str, *, instructions: str | None = None, tools: Tools = ()
    ) -> TokenCount:
        """Count a whole request: messages or input items, instructions and tool definitions.

        Raises:
            TokenizerError: The shipped vocabulary is missing or damaged.
        """
        return await _in_thread(
            lambda: Tokenizer(model).count_messages(messages, instructions=instructions, tools=tools)
        )


async def _in_thread(count: Callable[[], T]) -> T:
    # Nothing comes of a count nobody waits for: a cancelled caller need not wait for it either.
    return await anyio.to_thread.run_sync(count, abandon_on_cancel=True)


# --- How a request is laid out ---
#
# Published for gpt-4o and gpt-4o-mini in OpenAI's cookbook, "How to count tokens with tiktoken"
# (openai/openai-cookbook, examples/How_to_count_tokens_with_tiktoken.ipynb, 2024), sections 6 and 7. It
# knows flat tool schemas only: here nested ones follow the same rule at every level. It knows no tool calls:
# here each call and each output counts as a message of its own, whose text is the name and arguments, or the
# output.

_PER_MESSAGE = 3
_PER_NAME = 1
_REPLY = 3  # the answer begins with <|start|>assistant<|message|>
_TOOL_START = 7
_TOOLS_END = 12
_PROPERTIES_START = 3
_PER_PROPERTY = 3
_ENUM_START = -3
_PER_ENUM_VALUE = 3

_Piece: TypeAlias = str | int
"""Text, or a number of framing tokens."""


def _pieces(messages: Messages, instructions: str | None, tools: Tools) -> Iterator[_Piece]:
    functions = [tool.get("function", tool) for tool in tools if tool.get("type") == "function"]
    for function in functions:
        yield from _function(function)
    if functions:
        yield _TOOLS_END
    if instructions:
        yield from _message("developer", instructions)
    for item in [{"role": "user", "content": messages}] if isinstance(messages, str) else messages:
        yield from _item(item)
    yield _REPLY


def _item(item: Mapping[str, Any]) -> Iterator[_Piece]:
    """A Chat Completions message or a Responses item."""
    match item.get("type", "message"):
        case "message":
            calls = item.get("tool_calls") or ()
            if item.get("content") or not calls:
                yield from _message(item.get("role", "user"), item.get("content"), item.get("name"))
            for call in calls:
                yield from _call(call.get("function") or call.get("custom") or {})
        case "function_call" | "custom_tool_call":
            yield from _call(item)
        case "function_call_output" | "custom_tool_call_output":
            yield from _message("tool", item.get("output"))
        case "reasoning":
            yield from _message("assistant", item.get("summary"))
        case _:
            yield from _message("assistant", item.get("content"))


def _message(role: str, content: Any, name: str | None = None) -> Iterator[_Piece]:
    yield _PER_MESSAGE
    yield role
    if isinstance(content, str):
        yield content
    elif isinstance(content, Sequence):
        yield from (part.get("text") or part.get("refusal") or "" for part in content)
    if name:
        yield _PER_NAME
        yield name


def _call(function: Mapping[str, Any]) -> Iterator[_Piece]:
    yield from _message("assistant", function.get("name"))
    yield function.get("arguments") or function.get("input") or ""


def _function(function: Mapping[str, Any]) -> Iterator[_Piece]:
    yield _TOOL_START
    yield f"{function.get('name', '')}:{_description(function)}"
    yield from _properties(function.get("parameters"))


def _properties(schema: Any) -> Iterator[_Piece]:
    """The properties of a JSON schema, and of the schemas inside it."""
    if not isinstance(schema, Mapping):
        return
    properties = schema.get("properties") or {}
    if properties:
        yield _PROPERTIES_START
    for name, value in properties.items():
        yield from _property(name, value if isinstance(value, Mapping) else {})
    inner = [schema.get("items"), *(schema.get("$defs") or {}).values()]
    for combination in ("anyOf", "oneOf", "allOf"):
        inner += schema.get(combination) or ()
    for each in inner:
        yield from _properties(each)


def _property(name: str, schema: Mapping[str, Any]) -> Iterator[_Piece]:
    values = schema.get("enum") or ()
    yield _PER_PROPERTY + (_ENUM_START + _PER_ENUM_VALUE * len(values) if values else 0)
    yield from map(str, values)
    yield f"{name}:{schema.get('type', '')}:{_description(schema)}"
    yield from _properties(schema)


def _description(schema: Mapping[str, Any]) -> str:
    return (schema.get("description") or "").removesuffix(".")


# --- Vocabularies ---


class _Vocabulary(msgspec.Struct, frozen=True):
    """What makes an encoding, besides its ranks. Source: tiktoken 0.14.0, `tiktoken_ext/openai_public.py`."""

    sha256: str
    """Of the uncompressed ranks."""
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
    """The encoding a model is counted with, and whether that is known to be its own."""
    from tiktoken.model import encoding_name_for_model

    # "ft:gpt-4.1:acme::7p4l" has its base model's vocabulary; for this one tiktoken 0.14 would say gpt-4's.
    base = model.split(":")[1] if model.startswith("ft:") and model.count(":") > 1 else model
    try:
        # o200k_harmony differs in special tokens only, which text never becomes.
        name = encoding_name_for_model(base).replace("o200k_harmony", "o200k_base")
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
