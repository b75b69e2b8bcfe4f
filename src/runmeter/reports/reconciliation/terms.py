"""The terms on which a ledger and a bill can be compared: those names and kinds that both know."""

from collections.abc import Iterable, Iterator
from datetime import date

import msgspec

from runmeter.engine.models.names import undated

from .bill import BilledFigures, BilledUsage
from .counts import Counts, counts_of
from .parts import LedgerPart


class Terms:
    """Brings both sides to the same terms.

    Args:
        bill: The bill.
        by_project: The ledger's requests know their project. Else all projects of the bill are compared as one.
    """

    def __init__(self, bill: BilledFigures, *, by_project: bool) -> None:
        self._untold = bill.untold
        self._has_tiers = bill.has_tiers
        self._by_project = by_project
        projects = bill.projects
        self._only = projects[0] if len(projects) == 1 else None
        self._models = {billed.model for billed in bill.usage} | {cost.item for cost in bill.costs}

    def project(self, name: str | None) -> str | None:
        """Name the project that stands for one; None stands for all."""
        return name if self._by_project else self._only

    def parts(
        self, parts: Iterable[LedgerPart], first: date, end: date, *, by_end: bool = False
    ) -> Iterator[LedgerPart]:
        """Bring the ledger's requests of some days to these terms.

        Args:
            parts: The requests.
            first: The first day.
            end: The day after the last one.
            by_end: Requests count on the day in which they ended, not on that in which they left.
        """
        for given in parts:
            part = (
                msgspec.structs.replace(given, is_by_end=True) if by_end and given.end_ns != given.start_ns else given
            )
            if first <= part.day < end:
                yield msgspec.structs.replace(
                    part,
                    project=self.project(part.project),
                    model=self._billed_name(part.model),
                    tier=part.tier if self._has_tiers else None,
                    counts=self._told(part.counts),
                    bound=None if part.bound is None else self._told(part.bound),
                )

    def usage(self, usage: Iterable[BilledUsage]) -> Iterator[BilledUsage]:
        """Bring a bill's usage to these terms."""
        for billed in usage:
            counts = self._told(billed.counts)
            tier = billed.tier if self._has_tiers else None
            yield msgspec.structs.replace(billed, project=self.project(billed.project), counts=counts, tier=tier)

    def _told(self, counts: Counts) -> Counts:
        return counts_of(counts.usage, counts.requests, self._untold)

    def _billed_name(self, model: str) -> str:
        """Find the bill's name of a model: one side may know its version, and the other not."""
        if model in self._models:
            return model
        bare = undated(model)
        if model != bare:
            return bare if bare in self._models else model
        versions = [name for name in self._models if undated(name) == model]
        return max(versions, default=model)
