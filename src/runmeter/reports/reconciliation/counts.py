"""Counts that a ledger and a bill both know: requests, and tokens by the kinds that are priced apart."""

from collections.abc import Iterable

import msgspec

from runmeter.engine import Usage

_UNBILLED = ("reasoning_tokens", "web_searches", "file_searches")
_FIELDS = tuple(field for field in Usage.__struct_fields__ if field not in _UNBILLED)
SPLITS = ("cache_write_12h_tokens",)
"""Kinds that only divide others: what agrees in all but these agrees in the tokens themselves."""


class Counts(msgspec.Struct, frozen=True):
    """Requests and their tokens, or the difference of two such: then numbers may be negative."""

    requests: int = 0
    usage: Usage = Usage()

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.requests + other.requests, self.usage + other.usage)

    def __sub__(self, other: "Counts") -> "Counts":
        less = {name: getattr(self.usage, name) - getattr(other.usage, name) for name in _FIELDS}
        return Counts(self.requests - other.requests, Usage(**less))

    def __bool__(self) -> bool:
        return self != NOTHING

    @property
    def tokens_alone(self) -> "Counts":
        """These counts without what only divides other kinds."""
        return Counts(self.requests, msgspec.structs.replace(self.usage, **dict.fromkeys(SPLITS, 0)))

    @property
    def excess(self) -> "Counts":
        """The positive numbers of a difference."""
        return self._clipped(1)

    @property
    def lack(self) -> "Counts":
        """The negative numbers of a difference, as positive ones."""
        return self._clipped(-1)

    def covers(self, other: "Counts") -> bool:
        """Tell whether no number of the other one is greater."""
        return not (self - other).lack

    def _clipped(self, sign: int) -> "Counts":
        usage = Usage(**{name: max(sign * getattr(self.usage, name), 0) for name in _FIELDS})
        return Counts(max(sign * self.requests, 0), usage)


NOTHING = Counts()


def counts_of(usage: Usage, requests: int = 1, untold: frozenset[str] = frozenset()) -> Counts:
    """Make the counts of usage, without the kinds that no bill knows and those that this one does not tell."""
    left_out = {*_UNBILLED, *untold}
    return Counts(requests, msgspec.structs.replace(usage, **dict.fromkeys(left_out, 0)))


def total(counts: Iterable[Counts]) -> Counts:
    """Add up counts."""
    return sum(counts, NOTHING)
