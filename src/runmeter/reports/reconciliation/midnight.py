"""Requests around midnight: a bill may have them on the day before or after the ledger's, as clocks and ways differ."""

from collections.abc import Mapping, MutableMapping, Sequence
from datetime import date, timedelta
from typing import TypeAlias

from .bill import BilledUsage
from .counts import NOTHING, Counts
from .matching import differences, find_subset
from .parts import Knowledge, LedgerPart

Key: TypeAlias = tuple[date, str | None, str]
"""Day, project and model."""
_DAY_NS = 86_400 * 10**9
_AROUND_NS = 60 * 10**9
"""Nanoseconds before and after midnight within which a request may be on either day."""


def move_over_midnight(
    parts: MutableMapping[Key, list[LedgerPart]], billed: Mapping[Key, Sequence[BilledUsage]]
) -> None:
    """Move requests around midnight to the day on which the bill has them, if their tokens say so.

    Args:
        parts: The ledger's requests, where they differ from the bill; changed in place.
        billed: The bill's usage.
    """
    for key in sorted(parts, key=lambda each: (each[0], each[1] or "", each[2])):
        day, project, model = key
        after = day + timedelta(1), project, model
        if after in parts:
            _move(parts, billed, key, after)
            _move(parts, billed, after, key)


def _move(
    parts: MutableMapping[Key, list[LedgerPart]],
    billed: Mapping[Key, Sequence[BilledUsage]],
    source: Key,
    target: Key,
) -> None:
    lack, excess = (
        differences([part for part in parts[key] if part.knowledge is Knowledge.EXACT], billed.get(key, ()))
        for key in (source, target)
    )
    for tier, difference in lack.items():
        near = [part for part in parts[source] if part.tier == tier and _is_near_midnight(part)]
        for counts in _moved([part.counts for part in near], NOTHING - difference, excess.get(tier, NOTHING)):
            part = next(part for part in near if part.counts == counts)
            near.remove(part)
            parts[source].remove(part)
            parts[target].append(part)


def _moved(near: Sequence[Counts], lack: Counts, excess: Counts) -> Sequence[Counts]:
    """Find the requests that one day lacks and the other has in excess, by whichever's tokens have no other cause."""
    lack, excess = lack.tokens_alone, excess.tokens_alone
    if not lack.lack and excess.covers(lack):
        return find_subset(near, lack) or ()
    if not excess.lack and lack.excess:
        return find_subset(near, excess) or ()
    return ()


def _is_near_midnight(part: LedgerPart) -> bool:
    if part.knowledge is not Knowledge.EXACT:
        return False
    return any(min(time % _DAY_NS, -time % _DAY_NS) <= _AROUND_NS for time in (part.start_ns, part.end_ns))
