"""The texts that the demo's patterns work on, and the tools with which these look into them."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import metadata
from itertools import cycle, islice
from pathlib import Path

from runmeter.simulator.model.questions import topics

from ..ending import CommandError

SUFFIXES = (".md", ".txt", ".rst")
MAX_CHARACTERS = 5_000_000
PASSAGE = 900
"""Characters of a passage, about."""
OVERVIEW = 9_000
"""Characters of the overview that every question comes with: long enough to be worth caching."""

_WORD = re.compile(r"\w+")
_NO_PROSE = re.compile(r"^(```|~~~).*?^\1[ \t]*$|^[ \t]*<[^\n]*$", re.MULTILINE | re.DOTALL)
"""Code, and lines of HTML."""


@dataclass(frozen=True)
class Documents:
    """The texts of documents, by name."""

    texts: dict[str, str]
    paths: tuple[Path, ...] = ()
    """The files they were read from, if they are files."""

    def overview(self) -> str:
        """The beginning of the documents, in one text of bounded length."""
        return "\n\n".join(f"# {name}\n{text}" for name, text in self.texts.items())[:OVERVIEW]

    def passages(self) -> Iterator[tuple[str, str]]:
        """The documents' prose cut at empty lines into passages, each with its document's name."""
        for name, text in self.texts.items():
            passage = ""
            for paragraph in re.split(r"\n\s*\n", _NO_PROSE.sub("", text)):
                passage = f"{passage}\n\n{paragraph.strip()}".strip()
                if len(passage) >= PASSAGE:
                    yield name, passage[: 2 * PASSAGE]
                    passage = ""
            if passage:
                yield name, passage[: 2 * PASSAGE]

    def questions(self, count: int) -> list[str]:
        """Make as many questions about passages as asked for, beginning again where the documents end."""
        asked = [_question(name, passage) for name, passage in islice(self.passages(), count)]
        return list(islice(cycle(asked), count))

    # What follows is given to the patterns as tools: their names, types and docstrings are what a model sees.

    def find_passages(self, words: str, limit: int = 2) -> list[str]:
        """Find the passages of the documents that share the most words with a text.

        Args:
            words: The words to look for.
            limit: How many passages to give, at most.
        """
        wanted = _words(words)
        ranked = sorted(self.passages(), key=lambda item: len(wanted & _words(item[1])), reverse=True)
        return [f"{name}: {passage}" for name, passage in ranked[: max(1, min(limit, 5))]]

    def count_words(self, text: str) -> dict[str, int]:
        """Count the words of a text, and how many of them differ.

        Args:
            text: Any text.
        """
        return {"words": len(_WORD.findall(text)), "different": len(_words(text))}


def load_documents(folder: Path | None) -> Documents:
    """The documents in a folder and the folders below it; without one, Runmeter's own.

    Raises:
        CommandError: the folder holds none, or none that can be read.
    """
    if folder is None:
        return _own_documents()
    texts: dict[str, str] = {}
    paths: list[Path] = []
    total = 0
    for path in _files(folder):
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        total += len(text)
        if text.strip():
            name = str(path.relative_to(folder))
            texts[name.encode("utf-8", "replace").decode()] = text  # a file's name need not be valid text
            paths.append(path)
        if total > MAX_CHARACTERS:
            break
    if not texts:
        raise CommandError(f"no text in {folder}: put {', '.join(f'*{suffix}' for suffix in SUFFIXES)} files there")
    return Documents(texts, tuple(paths))


def _files(folder: Path) -> list[Path]:
    """Find the files that may be documents. What cannot be looked into, or goes away meanwhile, is left out."""
    found = (Path(place, name) for place, _, names in os.walk(folder) for name in names)
    return sorted(path for path in found if path.suffix in SUFFIXES and os.path.isfile(path))


def _own_documents() -> Documents:
    root = Path(__file__).parents[4]
    if (root / "pyproject.toml").exists():
        named = [root / "README.md", root / "CONTRIBUTING.md", *sorted(root.glob("docs/*.md"))]
        paths = tuple(path for path in named if path.exists())
        return Documents({path.name: path.read_text(encoding="utf-8") for path in paths}, paths)
    return Documents({"README.md": str(metadata("runmeter").json["description"])})


def _question(name: str, passage: str) -> str:
    *first, last = topics(passage, 3) or ["it"]
    subjects = f"{', '.join(first)} and {last}" if first else last
    return f"What matters about {subjects} in this passage of {name}?\n\n{passage}"


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))
