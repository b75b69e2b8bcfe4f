"""What the tests of patterns play in: a simulator that notes what it is asked, and what talks to it."""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from inspect import signature
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import anyio
from pattern_support import KEY

from runmeter.patterns import BasePattern, OpenAIPatternConfig, RetryPolicy
from runmeter.simulator import Prompt, Reply, Simulator

PatternT = TypeVar("PatternT", bound=BasePattern)


class SimulatorScene:
    """A simulator that notes what it is asked, and says what is scripted; attempts at it do not wait."""

    def __init__(self) -> None:
        self.simulator = Simulator(script=self._note)
        self.prompts: list[Prompt] = []
        """What the model was asked, but for what `simulator.script` has answered."""
        self.replies: deque[Reply] = deque()
        """What the model says next."""
        self.slept: list[float] = []
        """Seconds between attempts, which nothing waits for."""

    async def __aenter__(self) -> Self:
        await self.simulator.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.simulator.__aexit__(exc_type, exc, tb)

    @property
    def url(self) -> str:
        """The simulator's base URL."""
        return self.simulator.url

    @property
    def arrived(self) -> int:
        """How many requests came."""
        return sum(self.simulator.statistics().requests.values())

    def count(self, endpoint: str) -> int:
        """Count the requests that came to an endpoint."""
        return self.simulator.statistics().requests.get(endpoint, 0)

    def script(self, *replies: str | Reply) -> None:
        """Have the model say something next."""
        self.replies.extend(Reply(each) if isinstance(each, str) else each for each in replies)

    def reply(self, prompt: Prompt) -> Reply | None:
        """Reply to a prompt: with what is scripted next, if anything is."""
        return self.replies.popleft() if self.replies else self.improvise(prompt)

    def improvise(self, prompt: Prompt) -> Reply | None:
        """Reply to what no reply is scripted for; None leaves it to the simulator."""
        return None

    def config(self, **settings: Any) -> OpenAIPatternConfig:
        """Make a config for what talks to the simulator."""
        return OpenAIPatternConfig(**{"base_url": self.url, "api_key": KEY, **settings})

    def retry(self, max_retries: int = 2) -> RetryPolicy:
        """Make a policy whose waits are noted, and not waited for."""
        return RetryPolicy(max_retries=max_retries, sleep=self.sleep, random=lambda: 0.0)

    async def sleep(self, seconds: float) -> None:
        """Note how long to sleep, and go on."""
        self.slept.append(seconds)
        await anyio.lowlevel.checkpoint()

    def _note(self, prompt: Prompt) -> Reply | None:
        self.prompts.append(prompt)
        return self.reply(prompt)


class PatternScene(SimulatorScene, Generic[PatternT]):
    """A simulator, and patterns of one kind that talk to it.

    Args:
        kind: The patterns' class.
        defaults: Settings of each pattern that is not given others.
    """

    def __init__(self, kind: type[PatternT], **defaults: Any) -> None:
        super().__init__()
        self.hanging = anyio.Event()
        """Whether `hang` was called."""
        self._kind = kind
        self._defaults = defaults

    def config(self, **settings: Any) -> OpenAIPatternConfig:
        """Make the config of a pattern."""
        settings = {"base_url": self.url, "api_key": KEY, **self._defaults, **settings}
        config = self._kind.config_type(**settings)
        assert isinstance(config, OpenAIPatternConfig)
        return config

    @asynccontextmanager
    async def pattern(self, *tools: Any, **settings: Any) -> AsyncIterator[PatternT]:
        """Make a pattern, and close it. What its class takes goes there, all other settings into its config."""
        options = {name: settings.pop(name) for name in signature(self._kind).parameters if name in settings}
        config = self.config(**settings)
        make: Any = self._kind
        async with make(config, tools, **{"retry": self.retry(config.max_retries), **options}) as pattern:
            yield pattern

    async def hang(self) -> None:
        """Never return."""
        self.hanging.set()
        await anyio.sleep_forever()
