"""Which texts fit a query: a search by words."""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import log
from typing import Self

import msgspec

from .words import stems

_SATURATION = 1.2
_LENGTH_WEIGHT = 0.75
"""BM25's k1 and b, with their usual values."""
_LONGEST_QUERY = 200
"""Different stems of a query that are looked for."""


class RankedDocument(msgspec.Struct, frozen=True, gc=False):
    """A text that can be found."""

    text: str
    stems: dict[str, int]
    """The number of times it has each stem."""
    length: int
    """The document's length in stems."""

    @classmethod
    def of(cls, text: str) -> Self:
        """Read the stems of a text."""
        found = stems(text)
        return cls(text, dict(Counter(found)), len(found))


class Ranking:
    """Documents, and the rarity of stems among them."""

    def __init__(self, documents: Sequence[RankedDocument]) -> None:
        self._documents = documents
        self._containing = Counter(stem for document in documents for stem in document.stems)
        self._usual_length = sum(document.length for document in documents) / max(len(documents), 1)

    def scores(self, query: str) -> list[float]:
        """Score each document's fit to a query: 0 if they share no stem, at most 1.

        It is BM25 (Robertson, Zaragoza: "The Probabilistic Relevance Framework", 2009), divided by its upper
        bound for this query.
        """
        rarities = {stem: self._rarity(stem) for stem in list(dict.fromkeys(stems(query)))[:_LONGEST_QUERY]}
        most = sum(rarities.values())
        return [self._score(document, rarities) / most if most else 0.0 for document in self._documents]

    def _score(self, document: RankedDocument, rarities: Mapping[str, float]) -> float:
        length = document.length / self._usual_length if self._usual_length else 1
        damping = _SATURATION * (1 - _LENGTH_WEIGHT + _LENGTH_WEIGHT * length)
        found = ((rarity, document.stems.get(stem, 0)) for stem, rarity in rarities.items())
        return sum(rarity * times / (times + damping) for rarity, times in found)

    def _rarity(self, stem: str) -> float:
        """The inverse document frequency of a stem, never negative."""
        containing = self._containing[stem]
        return log(1 + (len(self._documents) - containing + 0.5) / (containing + 0.5))
