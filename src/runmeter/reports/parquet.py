"""Export of a ledger as Parquet: one row an event, with a fixed schema, and money in decimals.

Costs have 18 decimals, the lower bound rounded down and the upper one up where a price has more: they hold the truth.
"""

from collections.abc import Callable, Iterator, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped] # it has no types of its own
import pyarrow.parquet as pq  # type: ignore[import-untyped] # likewise

from runmeter.engine import JSON, CostEstimate, Event, LedgerReader, PriceBook, TokenUsage, UnknownEvent, Usage
from runmeter.engine.events import ExecutionFinished, ExecutionStarted, RunReported
from runmeter.engine.ledger.reader import RunRecord
from runmeter.engine.prices.units import MONEY
from runmeter.engine.usage.cell import reported_request

ROWS = 50_000
"""Events of one row group."""
_MONEY = pa.decimal128(38, 18)
_SMALLEST = Decimal(1).scaleb(-18)
_TIME = pa.timestamp("ns", tz="UTC")
_TEXTS = ("provider", "operation", "model", "response_model", "response_id", "service_tier", "provenance", "error_type")
_NUMBERS = ("attempt", "duration_ns", "first_chunk_ns")

SCHEMA = pa.schema(
    [
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("seq", pa.int64(), nullable=False),
        pa.field("time", _TIME, nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("pattern", pa.string()),
        pa.field("framework", pa.string()),
        pa.field("root_run_id", pa.string()),
        pa.field("parent_run_id", pa.string()),
        pa.field("tags", pa.map_(pa.string(), pa.string()), nullable=False),
        pa.field("status", pa.string()),
        pa.field("start", _TIME),
        *(pa.field(name, pa.string()) for name in _TEXTS),
        *(pa.field(name, pa.int64()) for name in _NUMBERS),
        *(pa.field(name, pa.int64()) for name in Usage.__struct_fields__),
        pa.field("cost_low_usd", _MONEY),
        pa.field("cost_high_usd", _MONEY),
        pa.field("is_unpriced", pa.bool_()),
        pa.field("event", pa.string(), nullable=False),
    ]
)
"""The columns. Tokens and costs are those of a request that has ended; `event` is all of the event, as JSON."""


def export_parquet(
    ledger: LedgerReader, path: Path, prices: PriceBook, progress: Callable[[int], None] = lambda _: None
) -> int:
    """Write all events to a Parquet file.

    Args:
        ledger: The ledger.
        path: Where to write.
        prices: What tokens cost.
        progress: Told now and then how many events were written since the last time.

    Returns:
        How many events there are.

    Raises:
        OSError: the file cannot be written.
    """
    count, events = 0, ledger.events_with_runs()
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        while rows := [_row(run, event, prices) for run, event in islice(events, ROWS)]:
            writer.write_table(pa.Table.from_arrays(list(_columns(rows)), schema=SCHEMA))
            count += len(rows)
            progress(len(rows))
    return count


def _columns(rows: Sequence[dict[str, Any]]) -> Iterator[Any]:
    for field in SCHEMA:
        yield pa.array([row.get(field.name) for row in rows], field.type)


def _row(run: RunRecord, event: Event, prices: PriceBook) -> dict[str, Any]:
    kind = event.kind if isinstance(event, UnknownEvent) else str(type(event).__struct_config__.tag)
    row: dict[str, Any] = {
        "run_id": event.run_id,
        "seq": event.seq,
        "time": event.time_ns,
        "kind": kind,
        "pattern": run.pattern,
        "framework": run.framework,
        "root_run_id": run.root_run_id,
        "parent_run_id": run.parent_run_id,
        "tags": list(run.tags.items()),
        "start": getattr(event, "start_ns", None),
        "event": JSON.encode(event).decode(),
    }
    if isinstance(event, UnknownEvent | ExecutionStarted):
        return row
    row |= {name: getattr(event, name, None) for name in (*_TEXTS, *_NUMBERS)}
    if isinstance(event, ExecutionFinished | RunReported):
        row["status"] = event.status
    request = reported_request(event) if isinstance(event, RunReported) else event
    if isinstance(request, TokenUsage):
        if (usage := request.usage) is not None:
            row |= {name: getattr(usage, name) for name in Usage.__struct_fields__}
        row |= _cost(prices.cost(request))
    return row


def _cost(cost: CostEstimate) -> dict[str, Any]:
    high = cost.high
    return {
        "cost_low_usd": cost.low.quantize(_SMALLEST, ROUND_FLOOR, MONEY),
        "cost_high_usd": None if high is None else high.quantize(_SMALLEST, ROUND_CEILING, MONEY),
        "is_unpriced": bool(cost.unpriced),
    }
