"""Code in a text of Markdown, where brackets are not marks of citations.

Source: CommonMark 0.31.2, spec.commonmark.org, sections 4.4 (indented code), 4.5 (fences) and 6.1 (code spans). Of
quotations and lists it knows as much as tells what in them is code.
"""

import re
from collections.abc import Iterator

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|\Z)")
_FENCE = re.compile(r"(?:\s*>)*\s*(?:[-*+]\s+|\d{1,9}[.)]\s+)?(`{3,}(?=[^`]*$)|~{3,})")
_ITEM = re.compile(r"\s*(?:[-*+]|\d{1,9}[.)])(?:\s+|$)")
_TICKS = re.compile(r"(?<!\\)`+")
_INDENT = 4
"""Columns beyond those of the text around it that make a line code."""


def code_in(text: str) -> list[tuple[int, int]]:
    """Find the code in a text: its blocks and spans in order, each from its first character to its end."""
    blocks = _Blocks(text)
    for line in _LINE.finditer(text):
        if line[0]:
            blocks.take(line.start(), line[0])
    return blocks.end()


class _Blocks:
    """The blocks of a text, as far as its lines have been read."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._found: list[tuple[int, int]] = []
        self._fence = ""
        """The marks that the code we are in began with; empty outside."""
        self._code = 0
        """The place where that code begins."""
        self._prose: int | None = None
        """The place where the paragraph begins that we are in."""
        self._margin = 0
        """Columns before the text of the item of a list that we are in; 0 outside."""

    def take(self, start: int, line: str) -> None:
        """Take the next line."""
        if self._fence:
            if _closes(line, self._fence):
                self._found.append((self._code, start + len(line)))
                self._fence = ""
        elif fence := _FENCE.match(line.rstrip("\r\n")):
            self._end_prose(start)
            self._fence, self._code = fence[1], start
        elif not line.strip():
            self._end_prose(start)
        elif self._prose is None and _indent(line) >= self._margin + _INDENT:
            self._found.append((start, start + len(line)))
        else:
            self._take_prose(start, line)

    def _take_prose(self, start: int, line: str) -> None:
        if item := _ITEM.match(line):
            self._margin = len(item[0].expandtabs(_INDENT))
        elif self._prose is None:
            self._margin = min(self._margin, _indent(line))
        if self._prose is None:
            self._prose = start

    def _end_prose(self, end: int) -> None:
        if self._prose is not None:
            self._found += _spans(self._text, self._prose, end)
            self._prose = None

    def end(self) -> list[tuple[int, int]]:
        """End the text, and with it the block that it ends in."""
        if self._fence:
            self._found.append((self._code, len(self._text)))
        self._end_prose(len(self._text))
        return self._found


def _indent(line: str) -> int:
    expanded = line.expandtabs(_INDENT)
    return len(expanded) - len(expanded.lstrip())


def _closes(line: str, fence: str) -> bool:
    """Tell whether a line ends the block that a fence has begun: by one of its kind, as long or longer."""
    mark = line.strip().lstrip("> ")
    return len(mark) >= len(fence) and set(mark) == {fence[0]}


def _spans(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Find code between backticks: as many at its end as at its beginning, else they are only backticks."""
    runs = list(_TICKS.finditer(text, start, end))
    index = 0
    while index < len(runs):
        length = len(runs[index][0])
        last = next((at for at in range(index + 1, len(runs)) if len(runs[at][0]) == length), None)
        if last is not None:
            yield runs[index].start(), runs[last].end()
            index = last
        index += 1
