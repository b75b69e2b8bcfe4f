"""Code that knew nothing of Runmeter: what changes in it, and that it is then counted as the simulator bills it."""

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from anyio.from_thread import start_blocking_portal
from process_support import output_of

from runmeter import CostEstimate, PriceBook, Provenance, TokenUsage, Usage, UsageStatistics
from runmeter.bench.peer import find_uv, prepare
from runmeter.bench.question import dependencies
from runmeter.simulator import Fault, Simulator

ROOT = Path(__file__).parents[3]
EXISTING = Path(__file__).with_name("existing")
RUNNER = ROOT / "tests" / "support" / "patterns" / "told_support.py"
METERED = ROOT / "examples" / "metered"
KEY = "sk-of-the-code"
IMPORT = re.compile(r"(from [\w.]+ )?import ")
FAILURES = {"pydantic_agents": 2}
"""Failures that a script outlasts: its client tries three times, and most of the libraries try again above that."""


@contextmanager
def simulator_running() -> Iterator[Simulator]:
    simulator = Simulator()
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(simulator):
        yield simulator


def settings_for(simulator: Simulator) -> dict[str, str]:
    return {"OPENAI_BASE_URL": simulator.url, "OPENAI_API_KEY": KEY, "LITELLM_LOCAL_MODEL_COST_MAP": "true"}


def check_account(told: UsageStatistics, simulator: Simulator, failures: int = 0) -> None:
    """Check what was counted against what the simulator billed to the key."""
    account, total = simulator.statistics(KEY), told.total
    assert total.requests == sum(account.requests.values())
    assert total.requests_by_provenance[Provenance.REPORTED] == total.requests
    assert sum(total.request_errors_by_type.values()) == account.faults == failures
    assert total.usage == account.total
    assert total.cost.usd == price_of(account.usage).usd
    assert total.usage.total_tokens


def price_of(billed: Mapping[str, Usage]) -> CostEstimate:
    prices = PriceBook()
    return sum((prices.cost(request_for(*each)) for each in billed.items()), start=CostEstimate())


def request_for(model: str, usage: Usage) -> TokenUsage:
    return TokenUsage(
        run_id="a",
        seq=0,
        time_ns=0,
        call_id=0,
        provider="openai",
        operation="chat",
        model=model,
        provenance=Provenance.REPORTED,
        usage=usage,
        start_ns=1_795_305_600_000_000_000,
        duration_ns=0,
    )


# --- Changes ---


class Change(NamedTuple):
    """What is changed in code that existed before.

    Args:
        added: How many lines are new, beside the import.
        edits: New lines by the old lines that they stand for.
    """

    added: int
    edits: Mapping[str, str]


CHANGES = {
    "script": Change(
        0,
        {
            "from openai import AsyncOpenAI": """\
from openai import AsyncOpenAI
from runmeter import Engine, meter""",
            "    async with AsyncOpenAI() as client:": """\
    async with Engine(), meter(AsyncOpenAI()) as client:""",
        },
    ),
    "service": Change(
        1,
        {
            "from openai import AsyncOpenAI": """\
from openai import AsyncOpenAI
from runmeter import Engine, carry, meter, tags""",
            "client = AsyncOpenAI()": "client = meter(AsyncOpenAI())",
            "    async with client:": "    async with client, Engine():",
            """
    answer = await client.responses.create(model="gpt-6-luna", input=question)
    jobs.add_task(summarize, answer.output_text)
""": """
    with tags(tenant=tenant):
        answer = await client.responses.create(model="gpt-6-luna", input=question)
        jobs.add_task(carry(summarize), answer.output_text)
""",
        },
    ),
    "graph": Change(
        1,
        {
            "from langgraph.prebuilt import ToolNode, tools_condition": """\
from langgraph.prebuilt import ToolNode, tools_condition
from runmeter import Engine, meter""",
            'model = ChatOpenAI(model="gpt-6-luna")': """\
model = ChatOpenAI(model="gpt-6-luna")
meter(model.root_async_client)""",
            "    async with asyncio.TaskGroup() as tasks:": "    async with Engine(), asyncio.TaskGroup() as tasks:",
        },
    ),
}


def changed(name: str) -> str:
    code = (EXISTING / f"{name}.py").read_text()
    for old, new in CHANGES[name].edits.items():
        assert code.count(old) == 1, old
        code = code.replace(old, new)
    return code


def lines_of(code: str) -> int:
    return sum(1 for line in code.splitlines() if line.strip() and not IMPORT.match(line))


def run(script: Path, simulator: Simulator, told: Path, interpreter: str = sys.executable) -> str:
    """Run a script that asks the simulator, and whose engine, if it has one, tells a file what it counted.

    Returns:
        What it printed.
    """
    port = simulator.url.split(":")[2].partition("/")[0]
    return output_of([interpreter, RUNNER, script, port, told], env=os.environ | settings_for(simulator))


@pytest.mark.parametrize("name", CHANGES)
def test_few_lines_are_added(name: str) -> None:
    before, after = (EXISTING / f"{name}.py").read_text(), changed(name)
    compile(after, name, "exec")
    assert lines_of(after) - lines_of(before) == CHANGES[name].added


@pytest.mark.campaign
@pytest.mark.parametrize("name", CHANGES)
def test_with_them_it_says_what_it_said_and_is_counted_as_it_is_billed(name: str, tmp_path: Path) -> None:
    said = []
    before, after = (EXISTING / f"{name}.py").read_text(), changed(name)
    for code in (before, after):
        (script := tmp_path / f"{name}.py").write_text(code)
        with simulator_running() as simulator:
            said.append(run(script, simulator, told := tmp_path / "told.json"))
        assert told.exists() == (code is after)
    assert said[0] == said[1]
    assert said[0].strip()
    usage = msgspec.json.decode(told.read_bytes(), type=UsageStatistics)
    check_account(usage, simulator)
    if name == "service":
        rows = usage.by_tag("tenant")
        assert {tenant: row.requests for tenant, row in rows.items()} == {"acme": 2, "umbrella": 2}


# --- Frameworks ---


def scripts() -> list[str]:
    return sorted(path.stem for path in METERED.glob("*.py"))


def test_each_framework_is_pinned_and_runmeter_is_this_one() -> None:
    assert len(scripts()) >= 5
    for name in scripts():
        script = METERED / f"{name}.py"
        needed = dependencies(script)
        assert "runmeter" in needed
        assert all(re.fullmatch(r"[\w.\[\]-]+==[\d.]+", each) for each in needed if each != "runmeter")
        assert 'runmeter = { path = "../..", editable = true }' in script.read_text()


@pytest.mark.campaign
@pytest.mark.parametrize("name", scripts())
def test_a_framework_is_counted_as_it_is_billed(name: str, tmp_path: Path) -> None:
    """With its client's retries and its own, in an environment of its own."""
    script, told = METERED / f"{name}.py", tmp_path / "told.json"
    failures = FAILURES.get(name, 3)
    prepare(script)
    interpreter = output_of([find_uv(), "python", "find", "--script", str(script)]).strip()
    with simulator_running() as simulator:
        simulator.inject(Fault("rate_limit", times=failures, retry_after=0))
        said = run(script, simulator, told, interpreter)
    usage = msgspec.json.decode(told.read_bytes(), type=UsageStatistics)
    check_account(usage, simulator, failures)
    assert str(usage.total.cost) in said.splitlines()[-1], "it shows what it cost"
