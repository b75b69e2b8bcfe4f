"""Matching of a ledger's requests with a bill: what agrees, and what is left over on either side.

Where a bill is told by the minute, whatever agrees in a minute is set aside first: so the difference that is left is of
few requests. It is by the time that requests left or ended, whichever agrees in more of them, as no document says by
which OpenAI counts.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TypeAlias

import msgspec

from .bill import BilledUsage
from .counts import NOTHING, Counts, total
from .parts import LedgerPart

Tier: TypeAlias = str | None
ByTier: TypeAlias = Mapping[Tier, Counts]
_STEPS = 20_000
"""Combinations of requests that are tried."""
_SECOND_NS = 10**9


@dataclass
class Match:
    """The difference between a ledger's exact requests and a bill, as far as it can be told what it is of.

    `moved` adds up to nothing over the tiers; `surplus` and `missing` are what is left.
    """

    moved: MutableMapping[Tier, Counts] = field(default_factory=lambda: defaultdict(lambda: NOTHING))
    """Usage billed in a tier, and in which the ledger has it: negative."""
    moved_requests: int = 0
    lifetimes: MutableMapping[Tier, tuple[int, int]] = field(default_factory=dict)
    """Tokens written to the cache for 12 hours by the bill, and for half an hour by the ledger, from so many to so
    many; or the other way round, where negative."""
    surplus: MutableMapping[Tier, Counts] = field(default_factory=dict)
    """Usage that only the bill has."""
    missing: MutableMapping[Tier, Counts] = field(default_factory=dict)
    """Usage that only the ledger has."""

    def shift(self, tier: Tier, low: int, high: int) -> None:
        """Note tokens of another cache lifetime."""
        before = self.lifetimes.get(tier, (0, 0))
        self.lifetimes[tier] = before[0] + low, before[1] + high


def compare(parts: Sequence[LedgerPart], billed: Sequence[BilledUsage], width: int) -> Match:
    """Compare the exact requests of a day to one model with what the bill has of it.

    Args:
        parts: The ledger's requests.
        billed: The bill's usage.
        width: Seconds that the bill counts together.
    """
    comparisons = [_Leftover(parts, billed, width, time) for time in ("start_ns", "end_ns")]
    best = max(comparisons, key=lambda leftover: leftover.agreed)
    return best.comparison()


class _Leftover:
    """The requests and usage left on both sides once what agrees within a time of the bill's is set aside."""

    def __init__(self, parts: Sequence[LedgerPart], billed: Sequence[BilledUsage], width: int, time: str) -> None:
        self._found = Match()
        self._parts: list[LedgerPart] = []
        self._billed: list[BilledUsage] = []
        self.agreed = 0
        """Requests that agree."""
        time_of = attrgetter(time)
        slots: dict[int, tuple[list[LedgerPart], list[BilledUsage]]] = defaultdict(lambda: ([], []))
        for part in parts:
            slots[time_of(part) // _SECOND_NS // width][0].append(part)
        for usage in billed:
            slots[usage.start // width][1].append(usage)
        for own, told in slots.values():
            if _settle(differences(own, told), self._found):
                self.agreed += len(own)
            else:
                self._parts += own
                self._billed += told

    def comparison(self) -> Match:
        """Explain what is left, as far as it goes."""
        left = differences(self._parts, self._billed)
        while not _settle(left, self._found):
            if (move := self._find_move(left)) is None:
                self._keep(left)
                break
            source, target, counts = move
            _move(self._found, source, target, counts)
            left = {**left, source: left[source] + counts, target: left[target] - counts}
        return self._found

    def _find_move(self, left: ByTier) -> tuple[Tier, Tier, Counts] | None:
        """Find requests that the bill has in another tier than the ledger: by their very tokens, on either side."""
        differences = {tier: difference.tokens_alone for tier, difference in left.items() if difference.tokens_alone}
        for source, target in ((s, t) for s in differences for t in differences if s != t):
            lack, excess = differences[source], differences[target]
            if not lack.excess and lack.requests and excess.covers(lack.lack):
                return source, target, left[source].lack
            if excess.lack or not _is_short(lack):
                continue
            own = [part.counts for part in self._parts if part.tier == source]
            if found := find_subset(own, excess):
                return source, target, total(found)
        return None

    def _keep(self, left: ByTier) -> None:
        for tier, difference in left.items():
            rest = self._lifetime(tier, difference)
            if excess := rest.excess:
                self._found.surplus[tier] = excess
            if lack := rest.lack:
                self._found.missing[tier] = lack

    def _lifetime(self, tier: Tier, difference: Counts) -> Counts:
        """Note the tokens that must have another cache lifetime, and may have; return what is left of a difference."""
        more, written = difference.usage.cache_write_12h_tokens, difference.usage.cache_write_tokens
        own = total(part.counts for part in self._parts if part.tier == tier).usage
        short = own.cache_write_tokens - own.cache_write_12h_tokens
        high = min(more, short) if more > 0 else max(more, -own.cache_write_12h_tokens)
        low = max(more - max(written, 0), 0) if more > 0 else min(more - min(written, 0), 0)
        if not high:
            return difference
        self._found.shift(tier, *sorted((low, high)))
        return _with_12h(difference, more - (low or high))


def differences(parts: Iterable[LedgerPart], billed: Iterable[BilledUsage]) -> Mapping[Tier, Counts]:
    """Compute what a bill has more than exact requests, by tier; negative where it has less."""
    found: dict[Tier, Counts] = defaultdict(lambda: NOTHING)
    for usage in billed:
        found[usage.tier] += usage.counts
    for part in parts:
        found[part.tier] -= part.counts
    return found


def _settle(left: ByTier, found: Match) -> bool:
    """Explain differences between tiers and lifetimes alone; False if there is more to them."""
    if total(left.values()).tokens_alone:
        return False
    shifted = total(left.values()).usage.cache_write_12h_tokens
    if shifted:
        tier = max(left, key=lambda each: abs(left[each].usage.cache_write_12h_tokens))
        found.shift(tier, shifted, shifted)
        left = {**left, tier: _with_12h(left[tier], left[tier].usage.cache_write_12h_tokens - shifted)}
    for tier, difference in left.items():
        found.moved[tier] += difference
        found.moved_requests += max(difference.requests, 0)
    return True


def _is_short(difference: Counts) -> bool:
    """Tell whether requests must be missing: more requests of others alone cannot make such a difference."""
    return difference.requests < 1 or bool(difference.lack)


def _move(found: Match, source: Tier, target: Tier, counts: Counts) -> None:
    found.moved[source] -= counts
    found.moved[target] += counts
    found.moved_requests += counts.requests


def _with_12h(counts: Counts, tokens: int) -> Counts:
    return Counts(counts.requests, msgspec.structs.replace(counts.usage, cache_write_12h_tokens=tokens))


def find_subset(own: Sequence[Counts], wanted: Counts) -> Sequence[Counts] | None:
    """Find requests that add up to just what is wanted, whatever the lifetime of their cache writes."""
    fitting = [counts for counts in own if wanted.covers(counts.tokens_alone)]
    fitting.sort(key=lambda counts: counts.usage.total_tokens, reverse=True)
    steps = iter(range(_STEPS))
    return _search(fitting, wanted, steps) if wanted.requests > 0 else None


def _search(own: Sequence[Counts], wanted: Counts, steps: Iterator[int]) -> list[Counts] | None:
    if not wanted:
        return []
    tried = None
    for at, counts in enumerate(own):
        if next(steps, None) is None:
            return None
        if counts == tried or not wanted.covers(counts.tokens_alone):
            continue  # one just like it did not do
        tried = counts
        if (rest := _search(own[at + 1 :], wanted - counts.tokens_alone, steps)) is not None:
            return [counts, *rest]
    return None
