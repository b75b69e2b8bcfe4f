"""The example of an API key from a secrets manager: expiry, caching, and one fetch however many wait."""

import importlib.util
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from pattern_support import Run

from runmeter.patterns import OpenAIPatternConfig, PatternRegistry, RetryPolicy
from runmeter.patterns.openai_client.clients import Clients
from runmeter.simulator import Simulator

_spec = importlib.util.spec_from_file_location(
    "secrets_manager", Path(__file__).parents[2] / "examples/secrets_manager.py"
)
assert _spec is not None
assert _spec.loader is not None
example: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(example)


class Vault:
    """A secrets manager whose time and moods a test decides."""

    def __init__(self, seconds: float = 100.0) -> None:
        self.now = 0.0
        self.seconds = seconds
        self.reads = 0
        self.error: Exception | None = None
        self.reading: Callable[[], Awaitable[object]] = anyio.lowlevel.checkpoint

    async def read(self) -> Any:
        """Give out the next key."""
        self.reads += 1
        key = f"sk-key-{self.reads}"
        await self.reading()
        if self.error is not None:
            raise self.error
        return example.Secret(key, self.seconds)

    def key(self, **options: Any) -> Any:
        """A cached key out of it."""
        return example.CachedKey(self, monotonic=lambda: self.now, **options)


async def ask_at_once(key: Any, number: int = 20) -> list[str | Exception]:
    answers: list[str | Exception] = []

    async def ask() -> None:
        try:
            answers.append(await key())
        except Exception as error:
            answers.append(error)

    async with anyio.create_task_group() as tasks:
        for _ in range(number):
            tasks.start_soon(ask)
    return answers


async def test_a_key_is_fetched_once_and_kept_until_shortly_before_it_expires() -> None:
    vault = Vault()
    key = vault.key(early=10)
    assert await ask_at_once(key) == ["sk-key-1"] * 20
    vault.now = 89.0
    assert await ask_at_once(key) == ["sk-key-1"] * 20
    assert vault.reads == 1
    vault.now = 90.0
    assert await ask_at_once(key) == ["sk-key-2"] * 20
    assert vault.reads == 2


async def test_a_key_that_lives_shorter_than_it_is_renewed_early_is_kept_for_half_its_life() -> None:
    vault = Vault(seconds=8)
    key = vault.key(early=60)
    await key()
    vault.now = 3.9
    assert await key() == "sk-key-1"
    vault.now = 4.0
    assert await key() == "sk-key-2"


async def test_the_old_key_serves_while_no_new_one_can_be_had() -> None:
    vault = Vault()
    key = vault.key(early=10, pause=2)
    await key()
    vault.now, vault.error = 95.0, ConnectionError("down")
    assert await ask_at_once(key) == ["sk-key-1"] * 20
    assert vault.reads == 2, "one has tried"
    vault.now = 97.0
    assert await key() == "sk-key-1"
    assert vault.reads == 3
    vault.now = 101.0
    assert await ask_at_once(key) == [vault.error] * 20
    assert vault.reads == 4
    vault.now, vault.error = 104.0, None
    assert await key() == "sk-key-5"


async def test_a_key_that_never_could_be_had_is_asked_for_again_after_a_pause() -> None:
    vault = Vault()
    vault.error = PermissionError("sealed")
    key = vault.key(pause=2)
    assert await ask_at_once(key) == [vault.error] * 20
    assert await ask_at_once(key) == [vault.error] * 20
    assert vault.reads == 1
    vault.now, vault.error = 2.0, None
    assert await ask_at_once(key) == ["sk-key-2"] * 20


async def test_whoever_waits_is_served_when_the_one_who_fetches_is_cancelled() -> None:
    vault = Vault()
    key, began = vault.key(), anyio.Event()

    async def hang() -> None:
        began.set()
        await anyio.sleep_forever()

    vault.reading = hang
    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as first:

            async def cancel() -> None:
                await began.wait()
                vault.reading = anyio.lowlevel.checkpoint
                tasks.start_soon(waits)
                await anyio.lowlevel.checkpoint()
                first.cancel()

            async def waits() -> None:
                assert await key() == "sk-key-2"

            tasks.start_soon(cancel)
            await key()
    assert first.cancelled_caught
    assert vault.reads == 2


@pytest.mark.parametrize(
    ("pattern_type", "anyio_backend"),
    [("openai_function_calling", "asyncio"), ("openai_function_calling", "trio"), ("augmented_llm", "asyncio")],
)
async def test_patterns_of_both_frameworks_send_the_key_that_is_good(simulator: Simulator, pattern_type: str) -> None:
    sent: list[str] = []

    async def look(request: httpx2.Request) -> None:
        sent.append(request.headers["authorization"])

    vault = Vault()
    pattern: Any = PatternRegistry().create_pattern(
        pattern_type, OpenAIPatternConfig(api_key=vault.key(early=10), base_url=simulator.url)
    )
    clients: Clients = getattr(pattern, "clients", None) or pattern._clients
    clients.get()._client.event_hooks["request"].append(look)
    run = Run()
    with run():
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(pattern.execute, "Why is the sea salty?")
        vault.now = 90.0
        await pattern.execute("How deep is it?")
    await pattern.aclose()
    assert sent == ["Bearer sk-key-1"] * 5 + ["Bearer sk-key-2"]
    assert len(run.requests) == 6


async def test_the_stand_in_gives_its_secret_to_its_token_only() -> None:
    with example.secrets_manager("sk-behind", expires_in=30) as manager:
        assert await example.HttpSecrets(manager.url, manager.token).read() == ("sk-behind", 30)
        with pytest.raises(PermissionError, match="it answers 403"):
            await example.HttpSecrets(manager.url, "another").read()
    assert manager.reads == 1
    with pytest.raises(ConnectionError, match="no answer from the secrets manager: ConnectError"):
        await example.HttpSecrets(manager.url, manager.token).read()


async def test_a_secrets_manager_that_is_down_is_tried_again_by_the_pattern(simulator: Simulator) -> None:
    vault, waited = Vault(), []
    vault.error = ConnectionError("down")

    async def wait(seconds: float) -> None:
        waited.append(seconds)
        vault.now, vault.error = vault.now + 1, None

    pattern = PatternRegistry().create_pattern(
        "openai_function_calling",
        OpenAIPatternConfig(api_key=vault.key(), base_url=simulator.url),
        retry=RetryPolicy(sleep=wait),
    )
    async with pattern:
        assert (await pattern.execute("Why is the sea salty?")).content
    assert (vault.reads, len(waited)) == (2, 1)
