"""Numbered passages as a model reads them, and the marks with which its answer refers to them."""

import re
from collections.abc import Sequence

import msgspec

from .retrieval import Passage

_NUMBERS = r"\d{1,3}(?:\s*[,;]\s*\d{1,3})*"
_MARK = re.compile(rf"\[({_NUMBERS})\]")
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`", re.DOTALL)
_LINE_MARK = re.compile(r"^([ \t]*)\[(?=\d{1,3}\])", re.MULTILINE)


class Citation(msgspec.Struct, frozen=True, kw_only=True):
    """A place in an answer that refers to a passage."""

    number: int
    """The passage's, from 1."""
    start: int
    """Where in the answer the mark begins, in characters."""
    end: int
    """The character after its last one. `[1, 2]` is one mark and two citations."""
    passage: Passage
    """What is cited. It is `passage.source`'s text from `passage.start` to `passage.end`, where these are known."""


def number_passages(passages: Sequence[Passage]) -> str:
    """Passages for a model to read: `[1] (source) text`, with empty lines between.

    What looks like such a mark at the beginning of a passage's own lines is written with a backslash: a source cannot
    pass for another.
    """
    return "\n\n".join(f"[{number}] {_written(passage)}" for number, passage in enumerate(passages, 1))


def find_citations(answer: str, passages: Sequence[Passage]) -> tuple[tuple[Citation, ...], tuple[int, ...]]:
    """What an answer cites: marks as in `number_passages`, or several numbers in one as `[1, 2]`. Code has none.

    Returns:
        The citations in order; and the numbers that no passage has, each once.
    """
    code = [found.span() for found in _CODE.finditer(answer)]
    citations: list[Citation] = []
    unsupported: dict[int, None] = {}
    for mark in _MARK.finditer(answer):
        if any(start <= mark.start() < end for start, end in code):
            continue
        for number in map(int, re.findall(r"\d+", mark[1])):
            if 1 <= number <= len(passages):
                passage = passages[number - 1]
                citations.append(Citation(number=number, start=mark.start(), end=mark.end(), passage=passage))
            else:
                unsupported[number] = None
    return tuple(citations), tuple(unsupported)


def _written(passage: Passage) -> str:
    text = _LINE_MARK.sub(r"\1\\[", passage.text)
    source = " ".join(passage.source.split())
    return f"({source}) {text}" if source else text
