"""Ingestion: files become documents, and documents the passages that are searched.

Passages keep their place: a passage's text is `document.text[passage.start:passage.end]`.
"""

import os
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import anyio.to_thread
import msgspec
from msgspec import Meta

from runmeter.engine import ConfigurationError, Tokenizer

from ..config import Checked
from ..errors import IngestionError
from ..text import valid_text
from .retriever import Passage

TEXT_FILES = ("*.md", "*.txt", "*.rst")
"""Which files of a folder are read, unless said otherwise."""

PathLike: TypeAlias = str | os.PathLike[str]
Paths: TypeAlias = PathLike | Iterable[PathLike]
"""Files and folders: one or several."""
Progress: TypeAlias = Callable[[int, int], object]
"""A callback that is told how much is done, and of how much."""

_PARAGRAPH_END = re.compile(r"\n\s*\n")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|[\u3002\uff01\uff1f]")
_BLANK = re.compile(r"\s+")
_BREAKS = (_PARAGRAPH_END, _SENTENCE_END, _BLANK)
"""The places where a text may be cut, the best first."""


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A text that passages are taken from. A lone surrogate in it, which cannot be sent, becomes a question mark.

    Raises:
        ConfigurationError: a field is not a string.
    """

    source: str
    """The document's name in citations: a file's path or a URL. No two documents have the same."""
    text: str

    def __post_init__(self) -> None:
        for name, value in (("source", self.source), ("text", self.text)):
            if not isinstance(value, str):
                raise ConfigurationError(f"Document.{name}: expected a string, got {type(value).__name__}")
            msgspec.structs.force_setattr(self, name, valid_text(value))


@dataclass(frozen=True, kw_only=True)
class Chunking(Checked):
    """Settings of the size of passages.

    Raises:
        ConfigurationError: a number lies outside its range.
    """

    tokens: Annotated[int, Meta(ge=16, le=4096)] = 400
    """Tokens of a passage at most, about: it ends with a paragraph, a sentence or at least a word if it can."""
    overlap: Annotated[float, Meta(ge=0, le=0.5)] = 0.15
    """Part of a passage that the next one begins with, about: 0 for none, at most 0.5."""


async def read_files(paths: Paths, patterns: Sequence[str] = TEXT_FILES) -> list[Document]:
    """Read text files as documents. A document's source is its path as given, folders joined with slashes.

    Args:
        paths: Files, and folders in which files are looked for at any depth. What is hidden is left out.
        patterns: Which files of the folders are read.

    Raises:
        ConfigurationError: one of `paths` is not a path.
        IngestionError: there is no such file or folder, a folder has no such file, or a file is not text in UTF-8.
    """
    files = await anyio.to_thread.run_sync(find_files, path_list(paths), patterns, abandon_on_cancel=True)
    return [await anyio.to_thread.run_sync(_read, file, abandon_on_cancel=True) for file in files]


def path_list(paths: Paths) -> list[Path]:
    """Make a list of one path or several.

    Raises:
        ConfigurationError: one is not a path, or an empty string: that would be the whole current folder.
    """
    try:
        several = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
        if "" in several:
            raise ConfigurationError("a path of a file or folder is an empty string: '.' is the current folder")
        return list(map(Path, several))
    except TypeError as error:
        raise ConfigurationError(f"expected paths of files and folders: {error}") from error


def document_list(documents: Any) -> list[Document]:
    """Make a list of one document or several, and check that they are such.

    Raises:
        ConfigurationError: one of them is not a `Document`.
    """
    several = list(documents) if isinstance(documents, Iterable) else [documents]
    for each in several:
        if not isinstance(each, Document):
            raise ConfigurationError(f"expected Documents, got {type(each).__name__}: files are added by add_files")
    return several


def find_files(paths: Paths, patterns: Sequence[str] = TEXT_FILES) -> list[Path]:
    """Find the files that `read_files` reads, each once; those of a folder in the order of their paths.

    Raises:
        ConfigurationError: one of `paths` is not a path.
        IngestionError: there is no such file or folder, or a folder has no such file.
    """
    several = (patterns,) if isinstance(patterns, str) else patterns  # one letter each would be all files
    found: dict[Path, None] = {}
    for path in path_list(paths):
        try:
            found |= dict.fromkeys(_files_at(path, several))
        except (OSError, NotImplementedError) as error:  # the latter is what pathlib says of an absolute pattern
            raise IngestionError(f"cannot look for {', '.join(several)} files in {str(path)!r}: {error}") from error
    return list(found)


def split(document: Document, chunking: Chunking, model: str) -> list[Passage]:
    """Cut a document into passages. It takes a second for a few megabytes: call it in a thread.

    Args:
        document: What to cut. Every character of it but blanks is in a passage.
        chunking: How large passages are.
        model: Whose tokens are counted.
    """
    text = document.text
    places = _places(text, Tokenizer(model))
    overlap = int(chunking.tokens * chunking.overlap)
    passages: list[Passage] = []
    first = start = end = 0
    while True:
        furthest = places[min(first + chunking.tokens, len(places) - 1)]
        least = max(end, start + (furthest - start) // 2)
        end = furthest if furthest == len(text) else _best_end(text, least, furthest)
        passage = _passage(document.source, text, start, end)
        if passage and passages and passages[-1].start == passage.start:
            passages.pop()  # blanks were all that it began with before: it is in this one
        if passage:
            passages.append(passage)
        if end >= len(text):
            return passages
        # The token that the end is in, so that nothing is lost between two passages.
        first = max(bisect_right(places, end) - 1 - overlap, first + 1)
        start = _best_start(text, places[first], end)


def _files_at(path: Path, patterns: Sequence[str]) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise IngestionError(f"there is no file or folder {str(path)!r}")
    inside = {file for pattern in patterns for file in path.rglob(pattern) if _is_open(file, path)}
    if not inside:
        raise IngestionError(f"there are no {', '.join(patterns)} files in {str(path)!r}")
    return sorted(inside)


def _is_open(file: Path, folder: Path) -> bool:
    """Tell whether it is a file, and neither hidden nor in a hidden folder below the one that was named."""
    return file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts)


def _read(file: Path) -> Document:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise IngestionError(f"cannot read {str(file)!r} as text in UTF-8: {error}") from error
    return Document(source=file.as_posix(), text=text)


def _places(text: str, tokenizer: Tokenizer) -> list[int]:
    """The character that each token begins with, or that comes next if it begins in the middle of one; and the end."""
    # All bytes of a character but the first have 10 as their first two bits.
    begun = (sum(byte & 0xC0 != 0x80 for byte in tokenizer.decode([token])) for token in tokenizer.encode(text))
    return [0, *accumulate(begun)]


def _best_end(text: str, least: int, furthest: int) -> int:
    """Find the last good place to cut between two places; the furthest if there is none."""
    for pattern in _BREAKS:
        places = [found.end() for found in pattern.finditer(text, least, furthest)]
        if places:
            return places[-1]
    return furthest


def _best_start(text: str, start: int, end: int) -> int:
    """Find the first good place to begin before the end of the passage before; `start` if there is none."""
    for pattern in _BREAKS:
        found = pattern.search(text, start, end)
        if found and found.end() < end:
            return found.end()
    return start


def _passage(source: str, text: str, start: int, end: int) -> Passage | None:
    """Make a passage of what is between, without the blanks around it; None if there are only blanks."""
    kept = text[start:end].strip()
    if not kept:
        return None
    start = text.index(kept, start)
    return Passage(text=kept, source=source, start=start, end=start + len(kept))
