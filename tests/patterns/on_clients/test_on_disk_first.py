"""Where a ledger promises that a request is on disk before it leaves: who waits for that, and who is blocked."""

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from faulty_ledger import LUNA, Faults, faulty
from meter_support import ASKED, UNAVAILABLE, MeterScene
from time_support import until

from runmeter import Budget, LedgerReader, Provenance, SQLiteLedger, TokenUsage, Usage, current_execution

MODEL = "gpt-6-luna"


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    with faulty(monkeypatch) as faults:
        yield faults


def scene_on(path: Path, **options: Any) -> Any:
    return MeterScene.open(ledger=SQLiteLedger(path, commit="request"), **options)


@pytest.mark.parametrize("budgets", [[], [Budget(calls=100)]], ids=["free", "budgeted"])
@pytest.mark.parametrize("where", ["in a run", "in none", "in a call"])
async def test_an_async_client_waits_and_blocks_nobody(
    tmp_path: Path, faults: Faults, where: str, budgets: list[Budget]
) -> None:
    async with scene_on(tmp_path / "runs.db", budgets=budgets) as scene, scene.client() as client:
        holds = where != "in a call"

        async def ask(messages: Any = None, context: Any = None) -> str:
            if holds:
                faults.hold()
            answer: Any = await client.responses.create(model=MODEL, input=ASKED)
            return str(answer.output_text)

        async def within(messages: Any, context: Any) -> str:
            async with current_execution().model_call(LUNA) as call:
                return await ask() + str(call.has_left)

        async with anyio.create_task_group() as tasks:
            works: dict[str, Any] = {"in a run": partial(scene.engine.run, ask, ""), "in none": ask}
            tasks.start_soon(works.get(where, partial(scene.engine.run, within, "")))
            if holds:
                await until(faults.held_up.is_set)
                await anyio.wait_all_tasks_blocked()  # and so the loop goes on
                assert scene.arrived == 0
                with LedgerReader(tmp_path / "runs.db") as reader:
                    assert not reader.unended_requests()
                faults.release()
        assert scene.arrived == 1
        await scene.settled()
        assert [event.provenance for event in scene.ends] == ["reported" if holds else Provenance.UNKNOWN]


async def test_each_attempt_is_on_disk_before_it_leaves(tmp_path: Path, faults: Faults) -> None:
    path = tmp_path / "runs.db"
    async with scene_on(path) as scene, scene.client(max_retries=1) as client:
        scene.simulator.inject(UNAVAILABLE)

        async def ask(messages: Any, context: Any) -> None:
            async with current_execution().model_call(LUNA) as call:
                faults.hold()
                await client.responses.create(model=MODEL, input=ASKED)
                call.record(Usage(input_tokens=1))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(scene.engine.run, ask, "")
            await until(faults.held_up.is_set)
            await anyio.wait_all_tasks_blocked()
            assert scene.arrived == 1, "the first had been on disk when the call was entered"
            faults.release()
        assert scene.arrived == 2
        await scene.settled()
        assert [event.attempt for event in scene.ends] == [1, 2]


@pytest.mark.parametrize("where", ["in a run", "in a call"])
async def test_cancelled_before_it_left_it_has_used_nothing(tmp_path: Path, faults: Faults, where: str) -> None:
    path = tmp_path / "runs.db"
    async with scene_on(path) as scene, scene.client() as client:

        async def ask(messages: Any, context: Any) -> None:
            faults.hold()
            if where == "in a run":
                await client.responses.create(model=MODEL, input=ASKED)
            else:
                async with current_execution().model_call(LUNA):
                    raise AssertionError

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(scene.engine.run, ask, "")
            await until(faults.held_up.is_set)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        faults.release()
        await scene.settled()
        assert scene.arrived == 0
        [end] = scene.ends
        assert (end.provenance, end.usage) == (Provenance.REPORTED, Usage())
    with LedgerReader(path) as reader:
        assert not reader.unended_requests()
        assert [event for event in reader.events() if isinstance(event, TokenUsage)] == [end]


async def test_a_sync_client_blocks_its_thread(tmp_path: Path, faults: Faults) -> None:
    async with scene_on(tmp_path / "runs.db") as scene:
        client = scene.sync_client()
        leaves = threading.Event()

        def ask() -> None:
            faults.hold()
            leaves.set()
            client.responses.create(model=MODEL, input=ASKED)

        async def run(messages: Any, context: Any) -> None:
            await anyio.to_thread.run_sync(ask)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(scene.engine.run, run, "")
            await until(faults.held_up.is_set)
            assert leaves.is_set()
            assert scene.arrived == 0
            faults.release()
        assert scene.arrived == 1
        client.close()


async def test_it_leaves_all_the_same_where_the_ledger_cannot_take_it(tmp_path: Path, faults: Faults) -> None:
    async with scene_on(tmp_path / "runs.db") as scene, scene.client() as client:

        async def ask(messages: Any, context: Any) -> str:
            faults.error = "its disk is full"
            answer: Any = await client.responses.create(model=MODEL, input=ASKED)
            await client.responses.create(model=MODEL, input=ASKED)
            return str(answer.output_text)

        result = await scene.engine.run(ask, "")
        assert result.value
        assert result.durable is False
        assert scene.arrived == 2
        faults.error = None
        await scene.settled()
        assert scene.notices == ["ledger", "ledger"], "once for the model, and for the run"
        assert scene.events.pop().kind == "ledger", "the last one, after the end of the run that it is about"
