"""What the tests of metered clients play in: a simulator, an engine that is listened to, and clients of both kinds."""

from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from openai import AsyncOpenAI, OpenAI
from pattern_support import KEY, check_whole
from simulator_support import PATIENT

from runmeter import (
    Engine,
    Event,
    ExecutionFinished,
    ExecutionStarted,
    ModelCallStarted,
    Notice,
    Provenance,
    TokenUsage,
    Usage,
    current_execution,
    meter,
    open_model_call,
)
from runmeter.patterns.openai_client.metering.client_call import client_call
from runmeter.patterns.openai_client.metering.trouble import trouble
from runmeter.simulator import Fault, Reply, Simulator

UNAVAILABLE = Fault("unavailable")
"""A failure after which a client tries again."""
ASKED: Any = [{"role": "user", "content": "How deep is the sea?"}]


class MeterScene:
    """A simulator, an engine, and what the engine's runs say.

    Args:
        simulator: Answers.
        engine: Counts.
    """

    def __init__(self, simulator: Simulator, engine: Engine) -> None:
        self.simulator = simulator
        self.engine = engine
        self.events: list[Event] = []
        self._troubles = trouble.count
        self._before = simulator.statistics()
        engine.subscribe(self._take, name="test", lane="lossless")

    @classmethod
    @asynccontextmanager
    async def open(cls, answer: str | None = None, **options: Any) -> AsyncIterator["MeterScene"]:
        """Run a simulator and an engine; at the end all that was said must be whole, and nothing kept.

        Args:
            answer: What the model says to everything.
            options: What `Engine` takes.
        """
        simulator = Simulator(script=lambda _: Reply(answer) if answer else None)
        async with simulator:
            async with Engine(**options) as engine:
                scene = cls(simulator, engine)
                yield scene
            scene.check()

    def _take(self, events: Iterable[Event]) -> None:
        self.events += events

    def client(self, **settings: Any) -> AsyncOpenAI:
        """Make a metered client for the simulator, which tries once unless told otherwise."""
        return meter(AsyncOpenAI(**{**self.settings(), **settings}))

    def sync_client(self, **settings: Any) -> OpenAI:
        """Make a metered client that is sync."""
        return meter(OpenAI(**{**self.settings(), **settings}))

    def settings(self) -> dict[str, Any]:
        """Make a client's settings."""
        return {"base_url": self.simulator.url, "api_key": KEY, **PATIENT}

    @property
    def arrived(self) -> int:
        """How many requests came."""
        return sum(self.simulator.statistics().requests.values())

    async def settled(self) -> None:
        """Have the events that were published come here."""
        await self.engine._bus._delivered("lossless")

    async def begin_anew(self) -> None:
        """Check what was said so far, and forget it and what was billed."""
        await self.settled()
        self.check()
        self.events.clear()
        self._before = self.simulator.statistics()

    @property
    def billed(self) -> dict[str, Usage]:
        """What the simulator has billed since, by model."""
        now, before = self.simulator.statistics().usage, self._before.usage
        return {model: _less(usage, before.get(model, Usage())) for model, usage in now.items()}

    @property
    def arrived_anew(self) -> int:
        """How many requests came since."""
        return self.arrived - sum(self._before.requests.values())

    def of(self, kind: type[Any]) -> list[Any]:
        """The events of a kind, in order."""
        return [event for event in self.events if type(event) is kind]

    @property
    def ends(self) -> list[TokenUsage]:
        """How each attempt ended."""
        return self.of(TokenUsage)

    @property
    def runs(self) -> list[tuple[str, str]]:
        """Each run that has ended, by name, and how."""
        names = {event.run_id: event.pattern for event in self.of(ExecutionStarted)}
        return [(names[event.run_id], str(event.status)) for event in self.of(ExecutionFinished)]

    @property
    def notices(self) -> list[str]:
        """The kinds of the notices given."""
        return [event.kind for event in self.of(Notice)]

    def check(self) -> None:
        """Check that each run is whole, that metering did not fail, and that nothing is left of it here."""
        runs: dict[str, list[Event]] = defaultdict(list)
        for event in self.events:
            runs[event.run_id].append(event)
        for events in runs.values():
            check_whole(events)
        assert trouble.count == self._troubles
        assert client_call.get() is None
        assert open_model_call() is None
        assert not current_execution().is_metered


async def check_once(ask: Callable[[Any], Awaitable[None]], *, retried: bool, where: str) -> None:
    """Check that what is asked by a metered client, and by other meters besides, is counted once.

    Args:
        ask: Asks, by a client that tries twice.
        retried: Whether the first try is to fail.
        where: `in a run` or `in none`.
    """
    async with MeterScene.open() as scene:
        client = scene.client(max_retries=1)
        if retried:
            scene.simulator.inject(UNAVAILABLE)

        async def pattern(messages: Any, context: Any) -> None:
            await ask(client)
            assert open_model_call() is None

        await (scene.engine.run(pattern, "") if where == "in a run" else ask(client))
        await client.close()
        await scene.settled()
        assert len(scene.runs) == 1
        assert [event.attempt for event in scene.ends] == ([1, 2] if retried else [1])
        provenance = [Provenance.UNKNOWN, Provenance.REPORTED] if retried else [Provenance.REPORTED]
        assert [event.provenance for event in scene.ends] == provenance
        assert scene.ends[-1].usage == sum(scene.billed.values(), Usage())
        assert len(scene.of(ModelCallStarted)) == scene.arrived == len(scene.ends)
        if retried:
            assert scene.ends[0].bound is not None, "what may have been billed is bounded"
            assert scene.ends[0].error_type == "InternalServerError"


def _less(usage: Usage, before: Usage) -> Usage:
    counts = zip(msgspec.structs.astuple(usage), msgspec.structs.astuple(before), strict=True)
    return Usage(*(now - then for now, then in counts))
