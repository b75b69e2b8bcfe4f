"""`runmeter simulator`: the simulator in the foreground."""

import signal
import time

import anyio
import click

from runmeter.simulator import Simulator

from .ending import CommandError


def serve(port: int) -> int:
    """Serve until Ctrl-C, then show what was asked and what it would have cost in tokens.

    That is how a server ends, so the exit code is 0.

    Raises:
        CommandError: the simulator's libraries are missing, or the port is taken.
    """
    try:
        simulator = Simulator(port=port, clock=time.time)
        anyio.run(_serve, simulator)
    except (ImportError, OSError) as error:
        raise CommandError(str(error)) from None
    statistics = simulator.statistics()
    requests = sum(statistics.requests.values())
    click.echo(f"\n{requests:,} requests answered, {statistics.faults:,} of them with a fault on command")
    for model, usage in statistics.usage.items():
        cached = f" ({usage.cache_read_tokens:,} cached)" if usage.cache_read_tokens else ""
        click.echo(f"{model}: {usage.input_tokens:,} tokens in{cached}, {usage.output_tokens:,} out")
    return 0


async def _serve(simulator: Simulator) -> None:
    with anyio.open_signal_receiver(signal.SIGINT) as signals:
        async with simulator as url:
            click.echo(f"a simulated OpenAI API at {url} (any API key will do); Ctrl-C ends it")
            async for _ in signals:
                break
