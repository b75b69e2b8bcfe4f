"""Numbered passages as a model reads them, and the marks with which its answer refers to them."""

import re
from collections import deque
from collections.abc import Iterator, Sequence

import msgspec

from .code import code_in
from .retriever import Passage

_RANGE = r"\d{1,3}(?:\s*[-–—\u2011]\s*\d{1,3})?"
_MARK = re.compile(rf"(?<!\\)\[({_RANGE}(?:\s*(?:[,;&]|\band\b|[,;]\s*and\b)\s*{_RANGE})*)\]")
"""Its group is a mark's numbers, and ranges of them."""
_NUMBERS = re.compile(r"(\d+)(?:\s*[-–—\u2011]\s*(\d+))?")
_LINE_MARK = re.compile(r"(^|[\r\v\f\x1c-\x1e\x85\u2028\u2029])([ \t]*)\[(?=\d{1,3}\])", re.MULTILINE)
"""Whatever a reader may take for the end of a line, not only what `^` does."""


class Citation(msgspec.Struct, frozen=True, kw_only=True):
    """A place in an answer that refers to a passage."""

    number: int
    """The passage's number, from 1."""
    start: int
    """The place in the answer where the mark begins, in characters."""
    end: int
    """The character after its last one. `[1, 2]` is one mark and two citations, as `[1-2]` is."""
    passage: Passage
    """The cited passage: `passage.source`'s text from `passage.start` to `passage.end`, where these are known."""


def number_passages(passages: Sequence[Passage]) -> str:
    """Write passages for a model to read: `[1] (source) text`, with empty lines between.

    What looks like such a mark at the beginning of a passage's own lines is written with a backslash: a source cannot
    pass for another.
    """
    return "\n\n".join(f"[{number}] {_written(passage)}" for number, passage in enumerate(passages, 1))


def find_citations(answer: str, passages: Sequence[Passage]) -> tuple[tuple[Citation, ...], tuple[int, ...]]:
    """Find citations in an answer: marks as in `number_passages`, or several numbers as in `[1, 2 and 5-7]`.

    Code has none, and neither has a bracket with a backslash before it.

    Returns:
        The citations in order; and the numbers that no passage has, each once.
    """
    citations: list[Citation] = []
    unsupported: dict[int, None] = {}
    code = deque(code_in(answer))
    for mark in _MARK.finditer(answer):
        while code and code[0][1] <= mark.start():
            code.popleft()
        if code and code[0][0] < mark.end():
            continue
        for number in _numbers(mark[1]):
            if 1 <= number <= len(passages):
                passage = passages[number - 1]
                citations.append(Citation(number=number, start=mark.start(), end=mark.end(), passage=passage))
            else:
                unsupported[number] = None
    return tuple(citations), tuple(unsupported)


def _numbers(listed: str) -> Iterator[int]:
    for first, last in _NUMBERS.findall(listed):
        yield from range(int(first), int(last or first) + 1)


def _written(passage: Passage) -> str:
    text = _LINE_MARK.sub(r"\1\2\\[", passage.text)
    source = " ".join(passage.source.split())
    return f"({source}) {text}" if source else text
