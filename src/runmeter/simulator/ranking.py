"""Which texts fit a query: a search by words."""

from collections import Counter
from collections.abc import Sequence
from math import log
from typing import Self

import msgspec

from .words import stems

_SATURATION = 1.2
_LENGTH_WEIGHT = 0.75
"""BM25's k1 and b, with their usual values."""


class Document(msgspec.Struct, frozen=True, gc=False):
    """A text that can be found."""

    text: str
    stems: dict[str, int]
    """How often it has each stem."""
    length: int
    """In stems."""

    @classmethod
    def of(cls, text: str) -> Self:
        """Read a text."""
        found = stems(text)
        return cls(text, dict(Counter(found)), len(found))


class Ranking:
    """Documents, and which stems are rare among them."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self._count = len(documents)
        self._containing = Counter(stem for document in documents for stem in document.stems)
        self._usual_length = sum(document.length for document in documents) / max(len(documents), 1)

    def score(self, document: Document, query: str) -> float:
        """How well one of them fits a query: 0 if they share no stem, at most 1.

        It is BM25 (Robertson, Zaragoza: "The Probabilistic Relevance Framework", 2009), divided by the most that it
        could be for this query.
        """
        asked = dict.fromkeys(stems(query))
        most = sum(self._rarity(stem) for stem in asked)
        if not most:
            return 0.0
        length = document.length / self._usual_length if self._usual_length else 1
        damping = _SATURATION * (1 - _LENGTH_WEIGHT + _LENGTH_WEIGHT * length)
        found = ((self._rarity(stem), document.stems.get(stem, 0)) for stem in asked)
        return sum(rarity * times / (times + damping) for rarity, times in found) / most

    def _rarity(self, stem: str) -> float:
        """The inverse document frequency, never negative."""
        containing = self._containing[stem]
        return log(1 + (self._count - containing + 0.5) / (containing + 0.5))
