"""The cost of an answer in tokens, counted with the real vocabularies and with the API's rules for prompt caching."""

import codecs
import sys
from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal
from zlib import crc32

import msgspec

from runmeter.engine import Tokenizer, Usage

from .prompt import Prompt
from .replies import Reply

TOKENS_PER_DELTA = 4
"""A stream's deltas are this long, where the real API's are one token: a fourth of the events, and the same to read."""

CACHE_MINIMUM = 1024
CACHE_STEP = 128
"""Prefixes are cached from 1,024 tokens on, in steps of 128 (developers.openai.com/api/docs/guides/prompt-caching)."""
CACHE_CAPACITY = 200_000
"""Steps remembered in all; the oldest are forgotten."""


class Piece(msgspec.Struct, frozen=True, gc=False):
    """A few tokens of output, as text: an empty one for a tool's name, or where a character is not complete yet."""

    text: str
    tokens: int


class Block(msgspec.Struct, frozen=True):
    """A text, or a tool call's arguments, as far as it was generated."""

    tool: str | None
    """The tool's name; None for text."""
    pieces: tuple[Piece, ...]
    complete: bool

    @property
    def text(self) -> str:
        """The text of the block, or the arguments."""
        return "".join(piece.text for piece in self.pieces)

    @property
    def tokens(self) -> int:
        """The tokens of the block, a tool's name included."""
        return sum(piece.tokens for piece in self.pieces)


class Generation(msgspec.Struct, frozen=True):
    """An answer, token by token: first the reasoning, then the blocks."""

    blocks: tuple[Block, ...]
    finish: Literal["stop", "tool_calls", "length"]
    usage: Usage

    @property
    def tool_calls(self) -> int:
        """The number of tool calls it asks for."""
        return sum(block.tool is not None for block in self.blocks)

    def usage_after(self, tokens: int) -> Usage:
        """Compute the usage if only so many tokens of output were generated."""
        reasoning = min(tokens, self.usage.reasoning_tokens)
        return msgspec.structs.replace(self.usage, output_tokens=tokens, reasoning_tokens=reasoning)


class Meter:
    """A meter that counts, and remembers the prompts it has seen."""

    def __init__(self) -> None:
        self._cache = PromptCache()

    def generate(
        self, prompt: Prompt, reply: Reply, tokens: Sequence[int] | None = None, *, half: bool = False
    ) -> Generation:
        """Cut a reply to the output limit, and count what it and its prompt cost.

        Args:
            prompt: What the model was given. From now on it is in the prompt cache.
            reply: What the model wants to say.
            tokens: The prompt's tokens, where they are known.
            half: Stop in the middle, as if that were the limit.
        """
        generation = _compose(prompt, reply, prompt.max_output_tokens)
        if half:
            generation = _compose(prompt, reply, generation.usage.output_tokens // 2)
        tokens = prompt_tokens(prompt) if tokens is None else tokens
        return msgspec.structs.replace(generation, usage=generation.usage + self._input(prompt, tokens))

    def _input(self, prompt: Prompt, tokens: Sequence[int]) -> Usage:
        cached, written = self._cache.look_up(prompt.model.id, tokens)
        written = written if prompt.model.reports_cache_writes else 0
        return Usage(
            input_tokens=len(tokens),
            cache_read_tokens=cached,
            cache_write_tokens=written,
            cache_write_12h_tokens=written if prompt.cache_12h else 0,
        )


def prompt_tokens(prompt: Prompt) -> list[int]:
    """Count the prompt's tokens: tools, instructions and items, with framing as `engine/tokens` lays it out."""
    tools = [{"type": "function", **msgspec.to_builtins(tool)} for tool in prompt.tools]
    items = msgspec.to_builtins(prompt.items)
    return Tokenizer(prompt.model.id).encode_messages(items, instructions=prompt.instructions, tools=tools)


class PromptCache:
    """A cache of the prefixes of prompts each model has seen. They never expire; only the oldest are forgotten."""

    def __init__(self, capacity: int = CACHE_CAPACITY) -> None:
        self._seen: OrderedDict[int, None] = OrderedDict()
        self._capacity = capacity

    def look_up(self, model: str, tokens: Sequence[int]) -> tuple[int, int]:
        """Tell how many of a prompt's first tokens were cached, and how many more are from now on."""
        cached = total = 0
        digest = crc32(model.encode())
        for end in range(CACHE_STEP, len(tokens) + 1, CACHE_STEP):
            # Numbers hash alike in every process, unlike text. Each digest stands for the whole prefix.
            digest = hash((digest, *tokens[end - CACHE_STEP : end]))
            if end < CACHE_MINIMUM:
                continue
            total = end
            if digest in self._seen:
                cached = end
            self._remember(digest)
        return cached, total - cached

    def _remember(self, digest: int) -> None:
        self._seen[digest] = None
        self._seen.move_to_end(digest)
        if len(self._seen) > self._capacity:
            self._seen.popitem(last=False)


def _compose(prompt: Prompt, reply: Reply, limit: int | None) -> Generation:
    """Compose the reply as far as it fits into a limit of tokens; the usage is that of the output only."""
    budget = limit if limit is not None else sys.maxsize
    reasoning = min(reply.reasoning_tokens, budget)
    spent = reasoning
    complete = reasoning == reply.reasoning_tokens
    blocks: list[Block] = []
    parts = _parts(reply, prompt.stops)
    for tool, text in parts:
        block = _block(Tokenizer(prompt.model.id), tool, text, budget - spent) if complete else None
        if block is None:
            complete = False
            break
        blocks.append(block)
        spent += block.tokens
        complete = block.complete
    finish: Literal["stop", "tool_calls"] = "tool_calls" if any(tool for tool, _ in parts) else "stop"
    usage = Usage(output_tokens=spent, reasoning_tokens=reasoning)
    return Generation(tuple(blocks), finish if complete else "length", usage)


def _parts(reply: Reply, stops: Sequence[str]) -> list[tuple[str | None, str]]:
    """Divide a reply into text and calls, as (tool, text). A reply with neither is an empty text.

    The text ends before the first of `stops`, and so does the reply.
    """
    calls: list[tuple[str | None, str]] = [(call.name, call.arguments) for call in reply.tool_calls]
    if found := [at for at in map(reply.text.find, filter(None, stops)) if at >= 0]:
        return [(None, reply.text[: min(found)])]
    return [(None, reply.text), *calls] if reply.text or not calls else calls


def _block(tokenizer: Tokenizer, tool: str | None, text: str, budget: int) -> Block | None:
    """Cut a text or call to what fits, or None if nothing does. A call costs its name and its arguments."""
    name = tokenizer.encode(tool) if tool else []
    tokens = tokenizer.encode(text)
    room = budget - len(name)
    if room < 0 or (room == 0 and tokens):
        return None
    # A token may end inside a character: then that character comes with the next piece.
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    pieces = [Piece("", len(name))] if tool else []
    for start in range(0, min(room, len(tokens)), TOKENS_PER_DELTA):
        some = tokens[start : min(start + TOKENS_PER_DELTA, room)]
        pieces.append(Piece(decoder.decode(tokenizer.decode(some)), len(some)))
    return Block(tool, tuple(pieces), complete=len(tokens) <= room)
