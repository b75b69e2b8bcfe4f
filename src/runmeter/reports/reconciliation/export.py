"""Bills in files: exports of usage and of costs from OpenAI's dashboard, as CSV or with tabs.

A file's header says which of the two it is. The columns are those of the endpoints, with `amount_value` for an amount
(an export of 2025-10, xavierjflanagan/Guardian).
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from .bill import BilledCost, BilledFigures, BilledUsage, BillError, cost_told, usage_told

_USAGE, _COSTS = {"start_time", "model", "input_tokens", "num_model_requests"}, {"start_time", "amount_value"}
_WAY_OUT = (
    "export it from OpenAI's dashboard, usage grouped by model (also by service tier and project), costs by line item"
)


class ExportedBill:
    """A bill from exported files, each of usage or of costs.

    Args:
        paths: The files.
        projects: The only projects that count; none for all.
    """

    def __init__(self, paths: Sequence[Path], projects: Sequence[str] = ()) -> None:
        self._paths = paths
        self._projects = projects
        self.is_live = False

    def read(self, first: date, end: date) -> BilledFigures:
        """Read the bill of the days from one on to before another.

        Raises:
            BillError: A file cannot be read, or is no such export.
        """
        usage: list[BilledUsage] = []
        costs: list[BilledCost] = []
        untold: set[str] = set()
        headers = [self._read(path, usage, costs, untold) for path in self._paths]
        of_usage = [header for header in headers if header >= _USAGE]

        def counts(each: BilledUsage | BilledCost) -> bool:
            return first <= each.day < end and (not self._projects or each.project in self._projects)

        return BilledFigures(
            [each for each in usage if counts(each)],
            [each for each in costs if counts(each)],
            frozenset(untold),
            has_usage=bool(of_usage),
            has_costs=any(header >= _COSTS for header in headers),
            has_tiers=all("service_tier" in header for header in of_usage),
        )

    def minutes(self, day: date) -> Sequence[BilledUsage] | None:
        """Tell that an export knows days alone."""
        return None

    def _read(self, path: Path, usage: list[BilledUsage], costs: list[BilledCost], untold: set[str]) -> frozenset[str]:
        """Read a file into the lists, and return the names of its columns."""
        try:
            rows = list(_rows(path))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise BillError(f"{path}: {error}") from None
        header = frozenset(rows[0] if rows else ())
        if not (header >= _USAGE or header >= _COSTS):
            raise BillError(f"{path}: neither an export of usage nor of costs; {_WAY_OUT}")
        for number, row in enumerate(rows[1:], 2):
            try:
                _take(row, header, usage, costs, untold)
            except (ValueError, ArithmeticError) as error:
                raise BillError(f"{path}, line {number}: {error}; {_WAY_OUT}") from None
        return header


def _rows(path: Path) -> Iterator[Mapping[str, str]]:
    """Read a table: first its header, as a row of itself, then its rows."""
    text = path.read_text(encoding="utf-8-sig")
    delimiter = "\t" if "\t" in text.partition("\n")[0] else ","
    reader = csv.DictReader(text.splitlines(), delimiter=delimiter, strict=True)
    if reader.fieldnames:
        yield dict.fromkeys(reader.fieldnames, "")
    yield from reader


def _take(
    row: Mapping[str, Any],
    header: frozenset[str],
    usage: list[BilledUsage],
    costs: list[BilledCost],
    untold: set[str],
) -> None:
    start = _seconds(row["start_time"])
    if header >= _USAGE:
        if (told := usage_told(start, row)) is not None:
            usage.append(told[0])
            untold.update(told[1])
    elif row["amount_value"]:  # a day without costs is a row without an amount
        currency = row.get("amount_currency") or "usd"
        if currency.lower() != "usd":
            raise ValueError(f"amounts in {currency}, not in USD")
        costs.append(cost_told(start, row.get("line_item"), row.get("project_id"), row["amount_value"]))


def _seconds(text: str) -> int:
    """Read a time: seconds since the Unix epoch, or a date as ISO 8601 has it."""
    if text.isdigit():
        return int(text)
    moment = datetime.fromisoformat(text)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
