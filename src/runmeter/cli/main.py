"""The command line: what each command takes. What they do is in the modules they call.

Wrong input is one line on stderr and exit code 2; output that cannot be written is one, and exit code 74. Ctrl-C ends
with exit code 130, as shells expect; SIGTERM and SIGHUP end all commands in the same way, with 143 and 129.
"""

import os
import sys
from importlib.metadata import version
from io import TextIOWrapper
from pathlib import Path

import click

from .ending import INTERRUPTED, LEFT, NOT_WRITTEN, ended_like_ctrl_c
from .ledger.commands import COMMANDS, FILE, pairs

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def run(arguments: list[str] | None = None) -> None:
    """Run a command line (by default the process's own), and exit."""
    _ready_output()
    with ended_like_ctrl_c() as ending:
        sys.exit(ending.code(_run(arguments)))


def _ready_output() -> None:
    """Have signs that the output's encoding lacks be escapes, as on stderr; an output that is closed takes nothing."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - to the end of the process
    elif isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _run(arguments: list[str] | None) -> int:
    try:
        code = runmeter.main(arguments, prog_name="runmeter", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        where = getattr(error, "ctx", None)
        command = where.command_path if where else "runmeter"
        message = " ".join(error.format_message().split())
        click.echo(f"{command}: {message} (see {command} --help)", err=True)
        return 2
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except (BrokenPipeError, SystemExit):  # whoever read the output has seen enough: click and rich exit by themselves
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python's own flush at the end complains
        return LEFT
    except OSError as error:  # the output is on a full disk, for example; whatever else can fail a command has handled
        click.echo(f"runmeter: {error}", err=True)
        return NOT_WRITTEN
    return code if isinstance(code, int) else 0


@click.group(context_settings=CONTEXT, no_args_is_help=False, invoke_without_command=True)
@click.version_option(version("runmeter"), "--version", message="runmeter %(version)s")
@click.pass_context
def runmeter(context: click.Context) -> None:
    """Run LLM agent patterns, and see what each run took: tokens, cost, time, tool calls.

    \b
    Start here:
      runmeter demo                          a few hundred runs on a simulated API: no key, no network
      runmeter demo --otlp http://localhost:4317   the same, with its traces in Jaeger
      OPENAI_API_KEY=... runmeter demo --live      a few runs on the real API, for real money
      runmeter run routing "Where is my parcel?" --simulated --trace
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@runmeter.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, readable=True, path_type=Path), required=False)
@click.option("--runs", type=click.IntRange(1, 100_000), help="How many runs.  [default: 300; with --live 12]")
@click.option("--concurrency", type=click.IntRange(1, 1_000), default=32, show_default=True, help="Runs at once.")
@click.option("--model", default="gpt-6-luna", show_default=True, help="The OpenAI model to ask.")
@click.option("--live", is_flag=True, help="Ask the real API, with the key in OPENAI_API_KEY. This costs money.")
@click.option("--otlp", metavar="URL", help="Send traces and metrics there: port 4318 is HTTP, any other gRPC.")
@click.option(
    "--svg", metavar="FILE", type=click.Path(dir_okay=False, writable=True, path_type=Path), help="Save a picture."
)
@click.option(
    "--events",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Append all events, as JSON lines.",
)
@click.option(
    "--ledger", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Keep all events in this ledger."
)
def demo(
    folder: Path | None,
    runs: int | None,
    concurrency: int,
    model: str,
    live: bool,
    otlp: str | None,
    svg: Path | None,
    events: Path | None,
    ledger: Path | None,
) -> int:
    """Run patterns over the texts in FOLDER, and show what they took.

    All twelve patterns answer questions about the documents (*.md, *.txt, *.rst) in FOLDER, by default Runmeter's own,
    many at a time. Then come their usage and cost, the event bus's accounting, one run's trace, and three runs that go
    wrong: a request is tried again, a stream is cut, a budget refuses. Ctrl-C stops early and still shows what was
    counted.
    """
    from .demo.command import DemoOptions, run_demo

    return run_demo(
        DemoOptions(
            folder=folder,
            runs=runs or (12 if live else 300),
            concurrency=concurrency,
            model=model,
            live=live,
            otlp=otlp,
            svg=svg,
            events=events,
            ledger=ledger,
        )
    )


@runmeter.command("run")
@click.argument("pattern")
@click.argument("text")
@click.option("--stream", is_flag=True, help="Print the answer as it comes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; with --stream one a line.")
@click.option(
    "--config", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Settings, as TOML."
)
@click.option("--model", help="The OpenAI model to ask, whatever the settings say.")
@click.option("--tag", "tags", metavar="NAME=VALUE", multiple=True, help="A tag of the run. May be repeated.")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), help="Seconds the run may take.")
@click.option("--max-usd", metavar="AMOUNT", help="US dollars the run may cost at most.")
@click.option("--trace", is_flag=True, help="Show what happened in the run.")
@click.option("--otlp", metavar="URL", help="Send traces and metrics there: port 4318 is HTTP, any other gRPC.")
@click.option("--simulated", is_flag=True, help="Ask a simulated API: no key, no network, no cost.")
@click.option(
    "--events",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Append all events, as JSON lines.",
)
@click.option(
    "--ledger", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Keep all events in this ledger."
)
def run_command(
    pattern: str,
    text: str,
    stream: bool,
    as_json: bool,
    config: Path | None,
    model: str | None,
    tags: tuple[str, ...],
    timeout: float | None,
    max_usd: str | None,
    trace: bool,
    otlp: str | None,
    simulated: bool,
    events: Path | None,
    ledger: Path | None,
) -> int:
    """Run PATTERN once on TEXT, or on what comes from the standard input if that is "-".

    The answer goes to the standard output, what it took to the standard error. The names of the patterns are listed by
    `runmeter patterns`; what a settings file may say is in docs/patterns.md. The key is taken from OPENAI_API_KEY.

    \b
      runmeter run augmented_llm "What is a histogram?" --simulated
      runmeter run routing "My card was charged twice" --config support.toml --trace
      runmeter run openai_rag "Who may sign?" --config contracts.toml --json --max-usd 0.50

    With --max-usd no request leaves that could cost more than what is left. Answers are made shorter where that is
    enough, and else the run ends with an error.
    """
    from .run import RunOptions, run_pattern

    named = pairs("--tag", tags)
    text = sys.stdin.read() if text == "-" else text
    options = RunOptions(
        pattern=pattern,
        text=text,
        config=config,
        model=model,
        stream=stream,
        as_json=as_json,
        trace=trace,
        simulated=simulated,
        tags=named,
        timeout=timeout,
        otlp=otlp,
        events=events,
        ledger=ledger,
        max_usd=max_usd,
    )
    return run_pattern(options, sys.stdout)


@runmeter.command()
@click.option("--port", type=click.IntRange(0, 65_535), default=8080, show_default=True, help="0 takes a free one.")
def simulator(port: int) -> int:
    """Serve a simulated OpenAI API on this machine until Ctrl-C.

    It answers like the real one (Responses, Chat Completions, Embeddings, models, token counts), costs nothing, and
    misbehaves on command: see docs/simulator.md. When it ends it shows what it would have billed.

    \b
      runmeter simulator --port 8080 &
      export OPENAI_BASE_URL=http://127.0.0.1:8080/v1 OPENAI_API_KEY=any
    """
    from .serve import serve

    return serve(port)


@runmeter.command()
def patterns() -> int:
    """List the patterns, their frameworks, and which of them can be run."""
    from rich.console import Console

    from runmeter.patterns import get_pattern_registry

    from .views import pattern_table

    console = Console()
    console.print(pattern_table(get_pattern_registry(), console.width))
    return 0


@runmeter.command()
@click.option("--all", "everything", is_flag=True, help="Also what has been shut down, and other providers' models.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def models(everything: bool, as_json: bool) -> int:
    """List OpenAI's models: what they cost, how much they read, and when they are shut down.

    Prices are those that costs are computed with: genai-prices', and the shipped ones for what it lacks.
    """
    from .models import print_models

    print_models(everything=everything, as_json=as_json)
    return 0


@runmeter.command()
@click.argument("events", type=FILE, required=False)
@click.option("--ledger", metavar="FILE", type=FILE, help="Take the history from this ledger.")
@click.option("--by", metavar="TAG", help="Runs with the same value of this tag did the same work.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def advise(events: Path | None, ledger: Path | None, by: str | None, as_json: bool) -> int:
    """Say what the history in EVENTS, an event log or a ledger, gives reason to do.

    Which pattern or model did the same work cheaper or faster, what prompt caching saved and could have saved, and what
    eats tokens. By default the runs of one pattern did the same work, and its models are compared; where a tag says
    what the work was, all patterns that did it are compared. What the data do not bear out is not told.

    \b
      runmeter demo --events history.jsonl
      runmeter advise history.jsonl
      runmeter advise --ledger runs.db --json
    """
    from .advise import advise as show_advice

    if by == "":
        raise click.UsageError("--by takes the name of a tag")
    history = events or ledger
    if history is None or (events and ledger):
        raise click.UsageError("one history, please: EVENTS or --ledger FILE")
    return show_advice(history, by, sys.stdout, as_json=as_json)


@runmeter.command()
@click.argument("questions", metavar="[QUESTION]...", nargs=-1)
@click.option("--peers", metavar="NAME,NAME", default="", help="Only these, and what they are compared with.")
@click.option("--quick", is_flag=True, help="A few minutes instead of ten or more: fewer rounds, and no slow cases.")
@click.option("--rounds", type=click.IntRange(1, 1_000), help="How many rounds.  [default: what there is time for]")
@click.option("--json", "as_json", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Save all.")
@click.option("--svg", metavar="FOLDER", type=click.Path(file_okay=False, path_type=Path), help="Save charts there.")
@click.option(
    "--compare",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Tell what has changed beyond noise since what --json saved there.",
)
@click.option(
    "--results",
    metavar="FOLDER",
    type=click.Path(file_okay=False, path_type=Path),
    help="Save RESULTS.md, results.json and charts there.",
)
@click.option(
    "--folder",
    metavar="FOLDER",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where the questions are.  [default: those that come with Runmeter]",
)
@click.option("--pattern", metavar="MODULE:OBJECT", help="Bench this pattern on a simulated API, instead of questions.")
@click.option(
    "--config", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Its settings."
)
@click.option("--text", default="What is honey made of?", show_default=True, help="What it is asked.")
def bench(
    questions: tuple[str, ...],
    peers: str,
    quick: bool,
    rounds: int | None,
    as_json: Path | None,
    svg: Path | None,
    compare: Path | None,
    results: Path | None,
    folder: Path | None,
    pattern: str | None,
    config: Path | None,
    text: str,
) -> int:
    """Measure what frameworks cost, and what Runmeter adds: all questions, or each QUESTION named.

    The questions are frameworks, metering, bus, engine and growth, and import, which is about all of their peers. Each
    peer runs in a process and an environment of its own; environments are made on first use, which needs the network.
    How it is measured, and what the figures do not tell, is in benchmarks/README.md.

    \b
      runmeter bench bus --quick
      runmeter bench frameworks --peers langgraph,runmeter_langgraph
      runmeter bench --json today.json --compare yesterday.json
      runmeter bench --pattern mymodule:MyPattern --config settings.toml
    """
    from runmeter.bench.command import BenchOptions, run_bench
    from runmeter.bench.own_pattern import OwnPattern
    from runmeter.bench.question import SHIPPED

    if pattern is None and config is not None:
        raise click.UsageError("--config is of a --pattern")
    if pattern is not None and (questions or peers or folder):
        raise click.UsageError("--pattern is benched by itself: name no questions, peers or folder")
    names = tuple(name for name in peers.split(",") if name)
    own = None if pattern is None else OwnPattern(pattern, text, config)
    options = BenchOptions(
        questions=questions,
        peers=names,
        quick=quick,
        rounds=rounds,
        json=as_json,
        svg=svg,
        compare=compare,
        results=results,
        folder=folder or SHIPPED,
        pattern=own,
    )
    return run_bench(options)


for command in COMMANDS:
    runmeter.add_command(command)
