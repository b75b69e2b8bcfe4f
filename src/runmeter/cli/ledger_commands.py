"""The commands about ledgers: what each takes. What they do is in the modules they call."""

import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import cast

import click

from .ending import CommandError

DAY = click.DateTime(["%Y-%m-%d"])
TIME = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"])
FILE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)
NEW_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("files", metavar="[LEDGER|LOG]...", type=FILE, nargs=-1, required=True)
@click.option("--by", metavar="NAME,NAME", multiple=True, help="day, pattern, framework, model, tag:NAME.  [pattern]")
@click.option("--since", metavar="DAY", type=DAY, help="The first UTC day, as 2026-11-01.")
@click.option("--until", metavar="DAY", type=DAY, help="The UTC day after the last, as 2026-12-01.")
@click.option("--where", metavar="NAME=VALUE", multiple=True, help="Only these: pattern=routing, tag:tenant=acme.")
@click.option("--format", "form", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True)
@click.option("--prices", metavar="FILE", type=FILE, help="Prices of your own, for event logs and the newest events.")
def usage(
    files: tuple[Path, ...],
    by: tuple[str, ...],
    since: datetime | None,
    until: datetime | None,
    where: tuple[str, ...],
    form: str,
    prices: Path | None,
) -> int:
    """Show what runs used and cost, from ledgers and event logs: several add up.

    A request is on the UTC day in which it left. What is not known is an interval, or counted as such, and never zero:
    requests that never ended are apart, possibly billed up to their bounds. The cost is of the requests themselves,
    the inclusive one of the runs with all the runs within them.

    \b
      runmeter usage runs.db --by tag:tenant,model --since 2026-11-01 --until 2026-12-01
      runmeter usage monday.db tuesday.jsonl --by day --where pattern=routing --format csv
    """
    from runmeter.engine import ConfigurationError
    from runmeter.reports.bill import BillQuery

    from .usage import Format, UsageOptions, show_usage

    names = tuple(name.strip() for each in by for name in each.split(",")) or ("pattern",)
    try:
        query = BillQuery(by=names, since=_day(since), until=_day(until), where=pairs("--where", where))
    except ConfigurationError as error:
        raise CommandError(str(error)) from None
    return show_usage(UsageOptions(files=files, query=query, format=cast("Format", form), prices=prices), sys.stdout)


@click.command()
@click.argument("file", metavar="LEDGER|LOG", type=FILE)
@click.option(
    "-o", "--output", metavar="FILE", type=NEW_FILE, default="report.html", show_default=True, help="The page."
)
@click.option("--since", metavar="DAY", type=DAY, help="The first UTC day, as 2026-11-01.")
@click.option("--until", metavar="DAY", type=DAY, help="The UTC day after the last, as 2026-12-01.")
@click.option("--prices", metavar="FILE", type=FILE, help="The prices of your own that the engine had.")
def report(file: Path, output: Path, since: datetime | None, until: datetime | None, prices: Path | None) -> int:
    """Write a page about a ledger or an event log.

    It shows costs by day and model, pattern and tag; latency, tokens and caching; errors, retries and what they cost;
    budgets; the slowest and dearest runs; and what is not known. The page is one file, needs no network, and can be
    printed.

    \b
      runmeter report runs.db -o november.html --since 2026-11-01 --until 2026-12-01
    """
    from .report import ReportOptions, make_report

    if since is not None and until is not None and until <= since:
        raise CommandError("--until is the day after the last: give one after --since")
    return make_report(ReportOptions(file=file, output=output, since=_day(since), until=_day(until), prices=prices))


COMMANDS = (usage, report)


def pairs(option: str, texts: tuple[str, ...]) -> dict[str, str]:
    """Read the values of an option that takes NAME=VALUE.

    Raises:
        UsageError: one is not of that form.
    """
    split = [text.partition("=") for text in texts]
    if not all(name and equals for name, equals, _ in split):
        raise click.UsageError(f"{option} takes NAME=VALUE")
    return {name: value for name, _, value in split}


def _day(time: datetime | None) -> date | None:
    return None if time is None else time.date()


def _time_ns(time: datetime | None) -> int | None:
    """Count the nanoseconds from the Unix epoch to a UTC time."""
    return None if time is None else int(time.replace(tzinfo=UTC).timestamp()) * 10**9
