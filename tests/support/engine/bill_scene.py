"""What the tests of reconciliation play in: a metered client, a simulator that bills it, and seeded differences."""

import csv
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
from openai import AsyncOpenAI
from simulator_support import connect
from time_support import until

from runmeter import Engine, ExecutionFinished, ModelCallStarted, PriceBook, TokenUsage, Usage, meter
from runmeter.engine import SQLiteLedger
from runmeter.engine.testing import ManualClock, Recorder
from runmeter.patterns.openai_client.organization import OrganizationFigures
from runmeter.reports.reconcile import DayRange, Reconciliation, reconcile
from runmeter.reports.reconciliation.bill import BillSource
from runmeter.reports.reconciliation.causes import Cause
from runmeter.reports.reconciliation.endpoints import ToldBill
from runmeter.reports.reconciliation.parts import LedgerPart, ended_parts, unended_part
from runmeter.simulator import Fault, Simulator

LUNA = "gpt-6-luna"
ADMIN = "sk-admin-simulated"
DAY = date(2026, 11, 22)
MORNING = int(datetime(2026, 11, 22, 9, tzinfo=UTC).timestamp())
HOUR, MINUTE = 3_600.0, 60.0
DELAY = HOUR
"""Seconds after which the simulator bills."""
STORY = "It was a dark and stormy night in the old harbour. " * 120
BOOK = PriceBook()
"""The ledger's prices."""
_OVERLAY = """
[[prices]]
provider = "openai"
model = "gpt-6-luna"
tiers = { ultrafast = 6 }
"""


def with_ultrafast(folder: Path) -> PriceBook:
    """Make the prices of a bill that has one more tier than the ledger's."""
    path = folder / "prices.toml"
    path.write_text(_OVERLAY)
    return PriceBook(path)


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]) if rows else ["start_time"])
        table.writeheader()
        table.writerows(rows)


class BillScene:
    """A ledger, made by a metered client, and the bill that a simulator makes of the same requests."""

    def __init__(self, simulator: Simulator, clock: ManualClock, prices: PriceBook) -> None:
        self.simulator = simulator
        self.clock = clock
        self.truth: dict[Cause, Decimal] = {}
        """What each seeded difference adds to what the ledger knows exactly, in USD."""
        self._prices = prices
        self._recorder = Recorder()
        self._lost: set[tuple[str, int]] = set()

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path, ledger: Path | None = None) -> AsyncIterator["BillScene"]:
        """Run a simulator that bills an hour late, and an engine, which may keep a ledger."""
        clock, prices = ManualClock(MORNING * 10**9), with_ultrafast(folder)
        simulator = Simulator(clock=lambda: clock.time_ns() / 1e9, billing_delay=DELAY, prices=prices)
        async with simulator as url, connect(url) as plain, connect(url) as metered:
            scene = cls(simulator, clock, prices)
            kept = None if ledger is None else SQLiteLedger(ledger, commit="run")
            async with Engine(clock=clock, prices=BOOK, ledger=kept) as engine:
                engine.subscribe(scene._recorder, name="ledger", lane="lossless")
                scene.client, scene.stranger = meter(metered, provider="openai"), plain
                scene.engine = engine
                yield scene

    client: AsyncOpenAI
    stranger: AsyncOpenAI
    """A client that is not metered."""
    engine: Engine

    async def ask(
        self, text: str = "Where is my parcel?", tags: Mapping[str, str] | None = None, **settings: Any
    ) -> None:
        """Ask through the metered client."""

        async def run(_messages: Any, _context: Any) -> None:
            await self.client.responses.create(model=LUNA, input=text, **settings)

        result = await self.engine.run(run, text, tags=tags)
        await until(lambda: any(isinstance(event, ExecutionFinished) for event in self._recorder.of(result.run_id)))

    async def seed(self, cause: Cause) -> None:
        """Make a difference of one cause, and note what it is worth."""
        match cause:
            case Cause.UNENDED:
                with self._worth(cause, known=False):
                    await self.ask("Does anybody hear me out there, in the dark, where the sea is deep and cold?")
                last = [event for event in self.events if isinstance(event, TokenUsage)][-1]
                self._lost.add((last.run_id, last.seq))
            case Cause.ESTIMATED:
                self.simulator.inject(Fault("no_usage"))
                with self._worth(cause, known=False):
                    await self.ask("How many words is a picture worth, by your count?")
            case Cause.TIER:
                self.simulator.inject(Fault("billed_tier", tier="priority"))
                with self._worth(cause, tier="priority"):
                    await self.ask("Is there a faster way to the station from here?")
            case Cause.CACHE_LIFETIME:
                self.simulator.inject(Fault("billed_12h"))
                with self._worth(cause, for_12h=True):
                    await self.ask(STORY)
            case Cause.UNPRICED:
                with self._worth(cause, known=False, tier="ultrafast"):
                    await self.ask("How fast is fast?", service_tier="ultrafast")
            case Cause.OUTSIDE:
                with self._worth(cause, known=False):
                    await self.stranger.responses.create(
                        model=LUNA, input="Who goes there? Friend or foe, or neither of the two?"
                    )
            case Cause.NOT_YET_BILLED:
                self.clock.advance(2 * HOUR)
                with self._worth(cause, billed=False):
                    await self.ask("What is new, and what is old?")
            case Cause.UNEXPLAINED:
                raise ValueError("it has no seed")

    @property
    def events(self) -> Sequence[Any]:
        """The events of the ledger so far."""
        return self._recorder.events

    def parts(self) -> Sequence[LedgerPart]:
        """Read the ledger: what never ended is without its end."""
        ended = [event for event in self.events if isinstance(event, TokenUsage)]
        kept = [event for event in ended if (event.run_id, event.seq) not in self._lost]
        lost_calls = {(event.run_id, event.call_id) for event in ended if event not in kept}
        parts = [part for event in kept for part in ended_parts(event, None, BOOK)]
        for event in self.events:
            if isinstance(event, ModelCallStarted) and (event.run_id, event.call_id) in lost_calls:
                part = unended_part(event, None, BOOK)
                assert part is not None
                parts.append(part)
        return parts

    def reconcile(self, *, projects: Sequence[str] = (), **settings: Any) -> Reconciliation:
        """Compare the ledger with what the endpoints tell now."""
        figures = OrganizationFigures(ADMIN, self.simulator.url)
        try:
            return self.reconcile_with(ToldBill(figures, projects), **settings)
        finally:
            figures.close()

    def reconcile_with(
        self, source: BillSource, parts: Iterable[LedgerPart] | None = None, **settings: Any
    ) -> Reconciliation:
        """Compare the ledger, or these parts of it, with a bill."""
        today = datetime.fromtimestamp(self.clock.time_ns() / 1e9, UTC).date()
        period = DayRange(DAY - timedelta(3), DAY + timedelta(3), today)
        return reconcile(self.parts() if parts is None else parts, source, period, BOOK, **settings)

    def export(self, folder: Path) -> tuple[Path, Path]:
        """Write what the endpoints tell now as OpenAI's dashboard exports it: usage and costs, by day."""
        usage, costs = folder / "completions_usage.csv", folder / "cost.csv"
        rows = self._told("completions", ["project_id", "model", "service_tier", "batch"])
        _write(usage, [{"start_time": start, "project_id": None, **result} for start, result in rows])
        amounts = [
            {
                "start_time": start,
                "amount_value": result["amount"]["value"],
                "amount_currency": "usd",
                "line_item": result["line_item"],
                "project_id": result["project_id"],
            }
            for start, result in self._told("costs", ["project_id", "line_item"])
        ]
        _write(costs, amounts)
        return usage, costs

    def _told(self, figure: Any, group_by: Sequence[str]) -> Sequence[tuple[int, Any]]:
        figures = OrganizationFigures(ADMIN, self.simulator.url)
        try:
            pages = list(figures.pages(figure, MORNING - 5 * 86_400, MORNING + 5 * 86_400, group_by=group_by))
        finally:
            figures.close()
        buckets = [bucket for page in pages for bucket in json.loads(page, parse_float=Decimal)["data"]]
        return [(bucket["start_time"], result) for bucket in buckets for result in bucket["results"]]

    @contextmanager
    def _worth(
        self,
        cause: Cause,
        *,
        known: bool = True,
        billed: bool = True,
        tier: str = "default",
        for_12h: bool = False,
    ) -> Any:
        """Note what the request made inside is worth: on the bill, less what the ledger knows of it."""
        before = self.simulator.statistics().total
        yield
        after = self.simulator.statistics().total
        names = Usage.__struct_fields__
        usage = Usage(*(getattr(after, name) - getattr(before, name) for name in names))
        written = usage.cache_write_tokens if for_12h else usage.cache_write_12h_tokens
        as_billed = msgspec.structs.replace(usage, cache_write_12h_tokens=written)
        on_bill = self._cost(as_billed, tier) if billed else Decimal(0)
        in_ledger = self._cost(usage, "default") if known else Decimal(0)
        self.truth[cause] = self.truth.get(cause, Decimal(0)) + on_bill - in_ledger

    def _cost(self, usage: Usage, tier: str) -> Decimal:
        cost = self._prices.cost_of_sum("openai", LUNA, tier, usage, MORNING * 10**9).usd
        assert cost is not None
        return cost
