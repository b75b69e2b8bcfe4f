"""The views of a ledger, for whoever asks it in SQL: what is not known is NULL, and sums are those of its reader."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from faulty_ledger import BOOK, open_file

from runmeter.engine import (
    Event,
    ExecutionFinished,
    ExecutionStarted,
    LedgerReader,
    ModelCallStarted,
    Provenance,
    Status,
    TokenUsage,
    Usage,
)
from runmeter.engine.ledger.roll_up import RollUp

TIME_NS = 1_790_000_000 * 10**9 + 123_000_000
KNOWN, UNKNOWN, OPEN = (f"{number:032x}" for number in (1, 2, 3))


def started(run_id: str) -> list[Event]:
    return [
        ExecutionStarted(
            run_id=run_id, seq=0, time_ns=TIME_NS, pattern="p", framework="f", root_run_id=run_id, tags={"tenant": "a"}
        ),
        ModelCallStarted(
            run_id=run_id, seq=1, time_ns=TIME_NS, call_id=1, attempt=1, provider="openai", operation="chat",
            model="gpt-6-luna",
        ),
    ]  # fmt: skip


def ended(run_id: str, usage: Usage | None) -> list[Event]:
    return [
        TokenUsage(
            run_id=run_id, seq=2, time_ns=TIME_NS, call_id=1, attempt=1, provider="openai", operation="chat",
            model="gpt-6-luna", provenance=Provenance.UNKNOWN if usage is None else Provenance.REPORTED, usage=usage,
            start_ns=TIME_NS, duration_ns=7, error_type="timeout" if usage is None else None,
        ),
        ExecutionFinished(run_id=run_id, seq=3, time_ns=TIME_NS + 9, status=Status.OK, duration_ns=9),
    ]  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "runs.db"
    store = open_file(path)
    store.append([*started(KNOWN), *ended(KNOWN, Usage(input_tokens=1_000, output_tokens=10))])
    store.append([*started(UNKNOWN), *ended(UNKNOWN, None)])
    store.append(started(OPEN))
    while RollUp(store, BOOK)("closing"):
        pass
    store.close()
    return path


@pytest.fixture
def rows(path: Path) -> Iterator[Any]:
    """Asks the ledger, as any program could."""
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        yield lambda query: [dict(row) for row in connection.execute(query)]


def test_runs(rows: Any) -> None:
    known, unknown, unended = rows("SELECT * FROM run_list ORDER BY run_id")
    assert known["run_id"] == KNOWN
    assert known["started"] == "2026-09-21T14:13:20.123Z"
    assert (known["status"], known["duration_ns"]) == ("ok", 9)
    assert json.loads(known["tags"]) == {"tenant": "a"}
    assert known["cost_low"] == known["cost_high"] > 0
    assert (unknown["cost_low"], unknown["cost_high"]) == (0, None), "what it cost at most is not known"
    assert (unended["status"], unended["duration_ns"], unended["parent_run_id"]) == (None, None, None)


def test_requests(rows: Any) -> None:
    known, unknown = rows("SELECT * FROM request_list ORDER BY run_id")
    assert (known["input_tokens"], known["output_tokens"], known["cache_read_tokens"]) == (1_000, 10, 0)
    assert (known["day"], known["pattern"], known["model"], known["provenance"]) == (
        "2026-09-21", "p", "gpt-6-luna", "reported",
    )  # fmt: skip
    assert (unknown["input_tokens"], unknown["output_tokens"], unknown["reasoning_tokens"]) == (None, None, None)
    assert (unknown["provenance"], unknown["error_type"]) == ("unknown", "timeout")


def test_days(rows: Any, path: Path) -> None:
    runs, requests = rows("SELECT * FROM day_list ORDER BY model")
    assert (runs["day"], runs["model"], runs["executions"], runs["ok"]) == ("2026-09-21", None, 3, 2)
    assert (requests["model"], requests["requests"], requests["input_tokens"]) == ("gpt-6-luna", 2, 1_000)
    with LedgerReader(path, BOOK) as reader:
        [row] = [day.cell.row for day in reader.days() if day.cell.model]
    assert Decimal(requests["cost_low"]) == row.cost.low
    assert requests["cost_high"] is None
    assert row.cost.high is None
    assert requests["unpriced"] == row.cost.unpriced
