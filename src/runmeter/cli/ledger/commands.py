"""The commands about ledgers: what each takes. What they do is in the modules they call."""

import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import cast

import click

from ..ending import CommandError

DAY = click.DateTime(["%Y-%m-%d"])
TIME = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"])
FILE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)
STATUSES = ("ok", "error", "cancelled", "timeout", "budget_exceeded")
"""The ways that a run ends. Named here, as the engine is only loaded by what a command does."""
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
@click.argument("ledger", type=FILE)
@click.argument("run_id", required=False)
@click.option("--pattern", metavar="NAME", help="Runs of this pattern only.")
@click.option("--status", type=click.Choice([*STATUSES]), help="Runs that ended so.")
@click.option("--tag", "tags", metavar="NAME=VALUE", multiple=True, help="Runs with this tag. May be repeated.")
@click.option("--since", metavar="TIME", type=TIME, help="Begun then or later: 2026-11-01, or 2026-11-01T08:30 (UTC).")
@click.option("--until", metavar="TIME", type=TIME, help="Begun before that (UTC).")
@click.option("--nested", is_flag=True, help="Also runs within other runs.")
@click.option("--slowest", "order", flag_value="slowest", help="The slowest first.")
@click.option("--dearest", "order", flag_value="dearest", help="The dearest first, with the runs within them.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="How many.")
@click.option("--follow", is_flag=True, help="Go on, and show runs as they end, until Ctrl-C.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--prices", metavar="FILE", type=FILE, help="Prices of your own.")
@click.option(
    "--trace-url",
    metavar="URL",
    envvar="RUNMETER_TRACE_URL",
    help="Where a trace is shown: http://localhost:16686/trace/{trace_id}.  [env: RUNMETER_TRACE_URL]",
)
def runs(
    ledger: Path,
    run_id: str | None,
    pattern: str | None,
    status: str | None,
    tags: tuple[str, ...],
    since: datetime | None,
    until: datetime | None,
    nested: bool,
    order: str | None,
    limit: int,
    follow: bool,
    form: str,
    prices: Path | None,
    trace_url: str | None,
) -> int:
    """List the runs in LEDGER, or show what happened in the one whose id is or begins with RUN_ID.

    Costs are of the runs with all the runs within them. A run that never ended is lost if its process has gone.

    \b
      runmeter runs runs.db --status error --tag tenant=acme --since 2026-11-01
      runmeter runs runs.db --dearest --limit 10
      runmeter runs runs.db 1f3a9c
    """
    from runmeter.engine import Status

    from .runs import Order, RunsOptions, show_runs

    if follow and (order or run_id):
        raise click.UsageError("--follow shows runs as they end: without --slowest, --dearest and RUN_ID")
    _check_order(since, until)
    options = RunsOptions(
        ledger=ledger,
        run_id=run_id,
        pattern=pattern,
        status=None if status is None else Status(status),
        tags=pairs("--tag", tags),
        since_ns=0 if since is None else _time_ns(since),
        until_ns=2**63 - 1 if until is None else _time_ns(until),
        nested=nested,
        order=cast("Order", order or "newest"),
        limit=limit,
        follow=follow,
        as_json=form == "json",
        prices=prices,
        trace_url=trace_url,
    )
    return show_runs(options, sys.stdout)


@click.command()
@click.argument("ledger", type=FILE)
@click.option(
    "-o", "--output", metavar="FILE", type=NEW_FILE, required=True, help="Where to; - is the standard output."
)
@click.option("--format", "form", type=click.Choice(["jsonl", "parquet"]), help="By default what FILE's name says.")
@click.option("--prices", metavar="FILE", type=FILE, help="Prices of your own, for the costs in Parquet.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def export(ledger: Path, output: Path, form: str | None, prices: Path | None, force: bool) -> int:
    """Write all events in LEDGER to a file: JSON Lines, as --events does, or Parquet with costs.

    \b
      runmeter export runs.db -o events.jsonl
      runmeter export runs.db -o events.parquet
    """
    from .transfer import ExportFormat, export_ledger

    return export_ledger(ledger, output, cast("ExportFormat | None", form), prices, force=force)


@click.command("import")
@click.argument("logs", metavar="LOG...", type=FILE, nargs=-1, required=True)
@click.option("--into", "ledger", metavar="LEDGER", type=NEW_FILE, required=True, help="It is made if there is none.")
@click.option("--prices", metavar="FILE", type=FILE, help="Prices of your own, for the statistics of days.")
def import_command(logs: tuple[Path, ...], ledger: Path, prices: Path | None) -> int:
    """Add the events of event logs to a ledger. Those that it has already count once.

    Damaged lines are told and skipped. An import that was stopped can be done again.

    \b
      runmeter import monday.jsonl tuesday.jsonl --into runs.db
    """
    from .transfer import import_logs

    return import_logs(logs, ledger, prices)


@click.command()
@click.argument("ledger", type=FILE)
@click.option("--prices", metavar="FILE", type=FILE, required=True, help="The other prices, as docs/money.md has them.")
@click.option("--since", metavar="DAY", type=DAY, help="The first UTC day, as 2026-11-01.")
@click.option("--until", metavar="DAY", type=DAY, help="The UTC day after the last.")
@click.option("--format", "form", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True)
def reprice(ledger: Path, prices: Path, since: datetime | None, until: datetime | None, form: str) -> int:
    """Show what the requests in LEDGER cost at other prices, and the difference, by day and model.

    It needs the events: where they are not kept, there is no difference.

    \b
      runmeter reprice runs.db --prices next-year.toml
    """
    from .reprice import show_repriced
    from .usage import Format

    _check_order(since, until)
    return show_repriced(ledger, prices, _day(since), _day(until), cast("Format", form), sys.stdout)


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

    _check_order(since, until)
    return make_report(ReportOptions(file=file, output=output, since=_day(since), until=_day(until), prices=prices))


@click.command()
@click.argument("ledger", type=FILE)
@click.option("--tag", "tag", metavar="NAME=VALUE", required=True, help="The tag, such as customer=acme.")
@click.option("--dry-run", is_flag=True, help="Say what would be replaced, and change nothing.")
def forget(ledger: Path, tag: str, dry_run: bool) -> int:
    """Replace the value of a tag in all of LEDGER by `forgotten`; sums stay as they are. It cannot be undone.

    It is replaced as a tag of runs, statistics and budgets, and as a word in errors, notices and ids of conversations
    of the runs that have it. Processes that write the ledger may go on, but bring the value back with their next run
    that has the tag. Copies elsewhere are not touched: backups, logs, exports.

    \b
      runmeter forget runs.db --tag customer=acme --dry-run
    """
    from rich.console import Console
    from rich.progress import Progress

    from runmeter.engine import ConfigurationError, LedgerError
    from runmeter.engine.formats import format_count
    from runmeter.engine.ledger.forgetting import count_tagged, forget_tag

    [(name, value)] = pairs("--tag", (tag,)).items()
    try:
        if dry_run:
            done = count_tagged(ledger, name, value)
        else:
            with Progress(console=Console(stderr=True), transient=True) as progress:
                bar = progress.add_task("runs")
                done = forget_tag(
                    ledger, name, value, lambda count, total: progress.update(bar, completed=count, total=total)
                )
    except (ConfigurationError, LedgerError) as error:
        raise CommandError(str(error)) from None
    counts = (
        format_count(done.runs, "run"),
        format_count(done.events, "event"),
        format_count(done.day_rows, "row") + " of days",
        format_count(done.budgets, "budget"),
    )
    click.echo(f"{'would replace' if dry_run else 'replaced'} it in {', '.join(counts)}")
    if not done.log_is_empty:
        click.echo(
            "a program that reads the ledger keeps the value in its log: end it, and do the same again", err=True
        )
        return 1
    return 0


@click.command()
@click.argument("ledger", type=FILE)
@click.option("--since", metavar="DAY", type=DAY, help="The first UTC day, as 2026-11-01.  [default: 30 days]")
@click.option("--until", metavar="DAY", type=DAY, help="The UTC day after the last.  [default: tomorrow]")
@click.option("--base-url", metavar="URL", help="Where the bill is asked for.  [default: OPENAI_BASE_URL, or OpenAI]")
@click.option(
    "--csv", "exports", metavar="FILE", multiple=True, type=FILE, help="An export of usage or costs; or both."
)
@click.option("--project", "projects", metavar="ID", multiple=True, help="Only this OpenAI project; may be repeated.")
@click.option("--project-tag", metavar="TAG", help="The tag of runs that holds the id of their OpenAI project.")
@click.option("--prices", metavar="FILE", type=FILE, help="Prices of your own, as the engine had.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with exact amounts.")
def reconcile(
    ledger: Path,
    since: datetime | None,
    until: datetime | None,
    base_url: str | None,
    exports: tuple[Path, ...],
    projects: tuple[str, ...],
    project_tag: str | None,
    prices: Path | None,
    as_json: bool,
) -> int:
    """Hold LEDGER against OpenAI's bill, by day, project and model, and say what each difference comes from.

    The bill is asked for at OpenAI's endpoints of usage and costs, with the admin key in OPENAI_ADMIN_KEY, or taken
    from files that were exported from its dashboard. Differences come from requests that never ended, usage that was
    not reported, service tiers, cache lifetimes, prices that are not known, requests that the ledger never saw, and the
    newest day, which is not billed in full yet. What is left is shown as unexplained.

    \b
      OPENAI_ADMIN_KEY=... runmeter reconcile runs.db --since 2026-11-01 --until 2026-12-01
      runmeter reconcile runs.db --csv completions_usage.csv --csv cost.csv --project proj_support
    """
    from .reconcile import ReconcileOptions, reconcile_ledger

    options = ReconcileOptions(
        ledger=ledger,
        since=_day(since),
        until=_day(until),
        base_url=base_url,
        exports=exports,
        projects=projects,
        project_tag=project_tag,
        prices=prices,
        as_json=as_json,
    )
    return reconcile_ledger(options, sys.stdout)


COMMANDS = (forget, usage, runs, report, reconcile, export, import_command, reprice)


def pairs(option: str, texts: tuple[str, ...]) -> dict[str, str]:
    """Read the values of an option that takes NAME=VALUE.

    Raises:
        UsageError: one is not of that form, or two are of one name.
    """
    split = [text.partition("=") for text in texts]
    if not all(name and equals for name, equals, _ in split):
        raise click.UsageError(f"{option} takes NAME=VALUE")
    values = {name: value for name, _, value in split}
    if len(values) < len(split):
        raise click.UsageError(f"{option} takes one value for each NAME")
    return values


def _day(time: datetime | None) -> date | None:
    return None if time is None else time.date()


def _check_order(since: datetime | None, until: datetime | None) -> None:
    if since is not None and until is not None and since >= until:
        raise click.UsageError("nothing is between them: --until is exclusive, give one after --since")


def _time_ns(time: datetime) -> int:
    """Count the nanoseconds from the Unix epoch to a UTC time."""
    return int(time.replace(tzinfo=UTC).timestamp()) * 10**9
