"""Cutting of a file into chunks.

Source of the sizes: openai 3.54.0, `types/static_file_chunking_strategy.py` (2026-11). Which vocabulary the
real service counts with is not published: here it is that of the embedding models.
"""

from itertools import accumulate
from typing import Annotated

import msgspec

from runmeter.engine import Tokenizer

from ..model.ranking import RankedDocument

_MODEL = "text-embedding-3-large"


class ChunkSize(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The size of chunks, in tokens.

    Raises:
        ValueError: They overlap by more than half.
    """

    max_chunk_size_tokens: Annotated[int, msgspec.Meta(ge=100, le=4_096)]
    chunk_overlap_tokens: Annotated[int, msgspec.Meta(ge=0)]

    def __post_init__(self) -> None:
        if self.chunk_overlap_tokens * 2 > self.max_chunk_size_tokens:
            raise ValueError("chunk_overlap_tokens must not exceed half of max_chunk_size_tokens")


def cut(text: str, size: ChunkSize) -> list[RankedDocument]:
    """Cut a text into chunks of equal size, the last one of what is left. No character is cut in two."""
    tokenizer = Tokenizer(_MODEL)
    tokens = tokenizer.encode(text)
    raw = text.encode(errors="replace")
    starts = [0, *accumulate(len(tokenizer.decode([token])) for token in tokens)]

    def place(token: int) -> int:
        """Find where a token begins, or the character that it is in the middle of."""
        at = starts[min(token, len(tokens))]
        while at < len(raw) and raw[at] & 0xC0 == 0x80:  # UTF-8's continuation bytes
            at -= 1
        return at

    step = size.max_chunk_size_tokens - size.chunk_overlap_tokens
    firsts = range(0, max(len(tokens) - size.chunk_overlap_tokens, 1), step)
    return [
        RankedDocument.of(raw[place(first) : place(first + size.max_chunk_size_tokens)].decode()) for first in firsts
    ]
