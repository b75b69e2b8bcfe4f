"""What is logged at DEBUG: what was decided, and never what a run is about."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import httpx2
import pytest
from otlp_receiver import receive_http
from pattern_support import KEY, at_once
from telemetry_support import no_variables

from runmeter.engine import Budget, BudgetExceeded, Engine, RunTimeout
from runmeter.engine.concurrency import cancellation
from runmeter.patterns import OpenAIPatternConfig, PatternRegistry, RetryPolicy
from runmeter.patterns.openai_client.clients import Clients
from runmeter.simulator import Fault, Prompt, Reply, ScriptedCall, Simulator
from runmeter.telemetry import configure

__all__ = ["no_variables"]

SECRET = "xyzzy-the-secret-of-a-run"
"""In prompts, instructions, arguments, outputs, answers, and in what errors say."""
FRAMEWORKS = pytest.mark.parametrize(
    ("pattern_type", "anyio_backend"),
    [("openai_function_calling", "asyncio"), ("openai_function_calling", "trio"), ("augmented_llm", "asyncio")],
)


async def find(number: str) -> str:
    """Find a parcel."""
    if number == "raise":
        raise LookupError(f"no {SECRET}")
    return f"{SECRET} in Lyon"


def reply(prompt: Prompt) -> Reply:
    """Call the tool, twice at once, one call of which fails; then answer."""
    if any(item.type == "function_call_output" for item in prompt.items):
        return Reply(f"Here is {SECRET}.")
    arguments = (f'{{"number": "{SECRET}"}}', '{"number": "raise"}')
    return Reply(tool_calls=tuple(ScriptedCall("find", each) for each in arguments))


class Log:
    """What `runmeter` has logged, at all levels, as it would be written."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, logger="runmeter")
        self._caplog = caplog

    @property
    def lines(self) -> list[str]:
        formatter = logging.Formatter("%(levelname)s %(message)s")
        records = [record for record in self._caplog.records if record.name.partition(".")[0] == "runmeter"]
        assert {record.name for record in records} <= {"runmeter"}, "one logger for all"
        return [formatter.format(record) for record in records]

    def check(self, *expected: str) -> None:
        """Check that these lines are there, and that none tells a secret."""
        lines = self.lines
        for pattern in expected:
            assert any(re.fullmatch(f"DEBUG {pattern}", line) for line in lines), f"{pattern!r} is none of {lines}"
        assert [line for line in lines if SECRET in line or KEY in line] == []


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    return Log(caplog)


@pytest.fixture
async def secretive() -> AsyncIterator[Simulator]:
    simulator = Simulator(script=reply)
    async with simulator:
        yield simulator


@asynccontextmanager
async def pattern_of(pattern_type: str, url: str, registry: PatternRegistry, **settings: Any) -> AsyncIterator[Any]:
    config = OpenAIPatternConfig(name="clerk", api_key=KEY, base_url=url, system_prompt=f"Keep {SECRET}.", **settings)
    options = {"retry": RetryPolicy(max_retries=2, sleep=at_once)}
    async with registry.create_pattern(pattern_type, config, [find], cached=True, **options) as pattern:
        yield pattern


@FRAMEWORKS
async def test_a_run_with_retries_says_what_was_decided(log: Log, secretive: Simulator, pattern_type: str) -> None:
    registry = PatternRegistry()
    secretive.inject(Fault("rate_limit", retry_after=0.5))
    secretive.inject(Fault("server_error"))
    async with pattern_of(pattern_type, secretive.url, registry) as pattern, Engine() as engine:
        result = await engine.run(pattern, f"Where is {SECRET}?", tags={"tenant": "acme"})
    assert SECRET in result.content
    run_id = result.run_id
    log.check(
        rf"pattern '{pattern_type}' is registered, on \w+",
        rf"pattern 'clerk' \({pattern_type}, 1 tools\) created",
        rf"run {run_id}: attempt 1 ended in \w+ \(429\): tried again in 0\.\d+ s",
        rf"run {run_id}: attempt 2 ended in \w+ \(500\): tried again in \d\.\d+ s",
    )


@FRAMEWORKS
@pytest.mark.parametrize("status", [400, 401, 429])
async def test_what_a_server_quotes_is_not_logged(
    log: Log, monkeypatch: pytest.MonkeyPatch, pattern_type: str, status: int
) -> None:
    error = {"message": f"{SECRET} is not for {KEY}", "code": "insufficient_quota", "type": SECRET, "param": SECRET}

    def refuse(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status, json={"error": error})

    async with pattern_of(pattern_type, "http://127.0.0.1:1/v1", PatternRegistry()) as pattern, Engine() as engine:
        clients: Clients = getattr(pattern, "clients", None) or pattern._clients
        client = clients.get()
        monkeypatch.setattr(client, "_client", httpx2.AsyncClient(transport=httpx2.MockTransport(refuse)))
        with pytest.raises(Exception, match=SECRET) as raised:
            await engine.run(pattern, f"Where is {SECRET}?")
    name = type(raised.value).__name__
    log.check(
        rf"run \w+: attempt 1 ended in {name} \({status}\): final",
        rf"run \w+ of clerk ended: error, by {name}, after \d+\.\d\d\d s",
    )


@FRAMEWORKS
async def test_what_budgets_decide_is_told(log: Log, secretive: Simulator, pattern_type: str) -> None:
    budgets = [
        Budget(calls=3, name="calls"),
        Budget(tokens=100_000, name="tokens", when_exceeded="lower", per="tenant"),
    ]
    made = pattern_of(pattern_type, secretive.url, PatternRegistry(), openai_max_tokens=120_000)
    async with made as pattern, Engine(budgets=budgets) as engine:
        result = await engine.run(pattern, f"Where is {SECRET}?", tags={"tenant": "acme"})
        with pytest.raises(BudgetExceeded):
            await engine.run(pattern, f"Where is {SECRET}?", tags={"tenant": "acme"})
    about, tokens = rf"run {result.run_id}: a request to gpt-6-luna is", r"tokens \[acme\] [\d,]+ tokens"
    log.check(
        rf"{about} limited to \d+ output tokens and reserved: calls 1 call, {tokens}",
        rf"{about} settled: calls 1 call, {tokens}",
        r"run \w+: a request to gpt-6-luna is refused: calls 1 call, .*",
        r"run \w+ of clerk ended: budget_exceeded, by BudgetExceeded, after \d+\.\d\d\d s",
    )


@FRAMEWORKS
async def test_ends_before_the_end_are_told(log: Log, secretive: Simulator, pattern_type: str) -> None:
    secretive.inject(Fault("latency", seconds=3600, times=None))
    async with pattern_of(pattern_type, secretive.url, PatternRegistry()) as pattern, Engine(drain_timeout=0) as engine:
        with pytest.raises(RunTimeout):
            await engine.run(pattern, f"Where is {SECRET}?", timeout=0.01)
        async with engine.stream(pattern, f"Where is {SECRET}?") as stream:
            await anext(stream)
        async with anyio.create_task_group() as tasks:
            going_on = engine.stream(pattern, f"Where is {SECRET}?")
            await anext(going_on)
            tasks.cancel_scope.cancel()
            await engine.__aexit__(None, None, None)
    log.check(
        r"run \w+ of clerk ended: timeout, by RunTimeout, after \d+\.\d\d\d s",
        "a stream is left before its end: its run is cancelled",
        r"run \w+ of clerk ended: cancelled, by \w+, after \d+\.\d\d\d s",
        "closing cancels 1 runs",
    )


async def test_what_exporters_say_is_not_what_the_run_was_about(
    log: Log, secretive: Simulator, no_variables: None
) -> None:
    with receive_http() as receiver:
        receiver.refusing = True
        telemetry = configure(endpoint=receiver.endpoint, metrics_exporter="none")
        made = pattern_of("openai_function_calling", secretive.url, PatternRegistry())
        async with made as pattern, Engine(telemetry=telemetry) as engine:
            await engine.run(pattern, f"Where is {SECRET}?", tags={"tenant": "acme"})
            while not receiver.refusals:
                await telemetry.flush(0.05)
            receiver.refusing = False
            await engine.run(pattern, f"Where is {SECRET}?", tags={"tenant": "acme"})
        telemetry.shutdown()
    assert any("traces to " in line for line in log.lines)
    log.check()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_graph_that_takes_its_time_to_end_is_told_of(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancellation, "CANCEL_AGAIN", 0.01)

    async def stubborn(secret: str) -> None:
        with suppress(asyncio.CancelledError):
            await anyio.sleep_forever()
        await anyio.sleep_forever()

    with anyio.move_on_after(0.01):
        await cancellation.await_foreign(stubborn(SECRET))
    log.check(r"what was cancelled has not ended within 0\.01 s")


async def test_the_registry_says_what_it_hands_out(log: Log) -> None:
    registry = PatternRegistry()
    config = OpenAIPatternConfig(name="clerk", api_key=KEY, system_prompt=SECRET)
    first, second = (registry.create_pattern("openai_rag", config, cached=True, retriever=find) for _ in range(2))
    assert first is second
    await registry.aclose()
    log.check(
        r"pattern 'clerk' \(openai_rag, 0 tools\) created",
        r"pattern 'clerk' \(openai_rag, 0 tools\) is in use already, made of the same things: handed out again",
        "closing 1 patterns",
    )
