"""The simulator as a server: its life, its determinism, what it refuses, and what it counts."""

import contextlib
import logging
import sys
import threading
from functools import partial
from typing import Any, NoReturn

import anyio
import anyio.to_thread
import httpx2
import openai
import pytest
from openai import AsyncOpenAI
from process_support import output_of, python
from simulator_support import connect
from time_support import until

from runmeter.engine import Usage
from runmeter.simulator import Fault, Prompt, Reply, Simulator, SimulatorStatistics
from runmeter.simulator.http import thread as server_thread

KEY = {"authorization": "Bearer sk-simulated"}


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "runmeter-simulator"]


REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("/responses", {"model": "gpt-6-luna", "input": "Where is parcel AB-123? It was due on Monday."}),
    (
        "/responses",
        {"model": "gpt-6-luna", "input": "Parcels are late.", "reasoning": {"effort": "low"}, "stream": True},
    ),
    ("/responses", {"model": "gpt-6-luna", "input": "Find it.", "tools": [{"type": "function", "name": "find"}]}),
    ("/chat/completions", {"model": "gpt-6-luna", "messages": [{"role": "user", "content": "Hello there."}]}),
    ("/chat/completions", {"model": "gpt-4.1", "messages": [{"role": "user", "content": "Hello."}], "stream": True}),
    ("/embeddings", {"model": "text-embedding-3-small", "input": "a parcel"}),
    ("/responses", {"model": "gpt-6-luna", "input": "x", "temperature": 0.1}),
]


async def test_the_same_requests_get_the_same_bytes_from_every_new_simulator() -> None:
    async def bodies() -> list[bytes]:
        async with Simulator() as url, httpx2.AsyncClient(headers=KEY) as http:
            return [(await http.post(url + path, json=body)).content for path, body in REQUESTS]

    first, second = await bodies(), await bodies()
    assert first == second
    assert len(set(first)) == len(REQUESTS)


async def test_the_clock_is_injected() -> None:
    async with Simulator(clock=lambda: 1_000_000.5) as url, connect(url) as client:
        response = await client.responses.create(model="gpt-6-luna", input="Hello.")
        completion = await client.chat.completions.create(
            model="gpt-6-luna", messages=[{"role": "user", "content": "Hello."}]
        )
    assert response.created_at == completion.created == 1_000_000


async def test_it_can_be_entered_again_and_remembers(simulator: Simulator, client: AsyncOpenAI) -> None:
    await client.models.list()
    other = Simulator()
    with pytest.raises(RuntimeError, match="not running"):
        _ = other.url
    for _ in range(2):
        async with other as url, connect(url) as another:
            await another.models.list()
    assert other.statistics().requests == {"GET /models": 2}
    assert simulator.statistics().requests == {"GET /models": 1}


async def test_entering_it_twice_at_once_is_an_error(simulator: Simulator) -> None:
    with pytest.raises(RuntimeError, match="running already"):
        await simulator.__aenter__()
    assert simulator.url


async def test_of_two_that_enter_at_once_one_is_refused_and_no_thread_is_left() -> None:
    simulator = Simulator()
    refused: list[str] = []

    async def enter() -> None:
        try:
            await simulator.__aenter__()
        except RuntimeError as error:
            refused.append(str(error))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(enter)
        tasks.start_soon(enter)
    assert simulator.url
    assert refused == ["this simulator is running already: make another one"]
    await simulator.__aexit__(None, None, None)
    await until(lambda: not threads())


async def test_a_busy_script_does_not_keep_it_from_being_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_thread, "PATIENCE", 0.05)
    busy, release = threading.Event(), threading.Event()

    def script(prompt: Prompt) -> None:
        busy.set()
        release.wait()

    async def ask(client: AsyncOpenAI) -> None:
        with contextlib.suppress(openai.APIConnectionError):  # or answered at the last moment
            await client.responses.create(model="gpt-6-luna", input="Hello.")

    async with anyio.create_task_group() as tasks:
        async with Simulator(script=script) as url:
            client = connect(url)
            tasks.start_soon(ask, client)
            await anyio.to_thread.run_sync(busy.wait, 20)
        (left,) = [thread for thread in threading.enumerate() if thread.name == "runmeter-simulator"]
        assert not release.is_set()  # it was left before its script returned
        release.set()
        await anyio.to_thread.run_sync(left.join, 20)
    await client.close()
    await until(lambda: not threads())


async def test_a_port_in_use_gives_a_clear_error() -> None:
    async with Simulator() as url:
        port = int(url.split(":")[2].split("/")[0])
        with pytest.raises(OSError, match=f"cannot listen on port {port} of 127.0.0.1.*another port"):
            await Simulator(port=port).__aenter__()
        assert len(threads()) == 1
    async with Simulator(port=port) as again:  # free again, and the port asked for is the one used
        assert again == url


@pytest.mark.parametrize("port", [-1, 65_536])
def test_a_port_out_of_range_is_refused(port: int) -> None:
    with pytest.raises(ValueError, match="between 0 and 65535"):
        Simulator(port=port)


async def test_leaving_it_breaks_open_connections_at_once_and_leaves_no_thread() -> None:
    simulator = Simulator(faults=[Fault("latency", times=None, seconds=3600, between_chunks=3600)])
    failures: list[type[Exception]] = []

    async def ask(client: AsyncOpenAI, *, stream: bool) -> None:
        try:
            await client.responses.create(model="gpt-6-luna", input="Hello.", stream=stream)
        except openai.APIConnectionError as error:
            failures.append(type(error))

    async with anyio.create_task_group() as tasks, simulator as url:
        client = connect(url)
        tasks.start_soon(lambda: ask(client, stream=True))
        tasks.start_soon(lambda: ask(client, stream=False))
        await until(lambda: simulator.statistics().requests.get("POST /responses", 0) == 2)
    await client.close()
    assert failures == [openai.APIConnectionError] * 2
    await until(lambda: not threads())


def _have_come(simulator: Simulator, number: int) -> bool:
    return sum(simulator.statistics().requests.values()) >= number


async def test_leaving_it_while_requests_pour_in_is_quiet(caplog: pytest.LogCaptureFixture) -> None:
    async def ask(http: httpx2.AsyncClient, url: str) -> None:
        try:
            await http.post(f"{url}/responses", json={"model": "gpt-6-luna", "input": "Hello.", "stream": True})
        except httpx2.TransportError:
            pass

    for moment in range(5):
        async with anyio.create_task_group() as tasks, httpx2.AsyncClient(headers=KEY) as http:
            simulator = Simulator()
            async with simulator as url:
                for _ in range(20):
                    tasks.start_soon(ask, http, url)
                await until(partial(_have_come, simulator, 5 * moment))
            tasks.cancel_scope.cancel()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    await until(lambda: not threads())


async def test_a_cancelled_caller_leaves_no_thread() -> None:
    with anyio.CancelScope() as scope:
        async with Simulator():
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    await until(lambda: not threads())


def test_it_needs_its_extra_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ImportError, match=r"needs uvicorn: pip install 'runmeter\[simulator\]'"):
        Simulator()


def test_importing_it_needs_no_extra() -> None:
    code = "import sys; sys.modules.update(starlette=None, uvicorn=None, httptools=None); import runmeter.simulator"
    output_of(python(code))


async def test_it_logs_nothing_while_all_is_well(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with Simulator() as url, httpx2.AsyncClient(headers=KEY) as http:
        assert (await http.get(f"{url}/models")).status_code == 200
        drop = {**KEY, "x-simulate": "drop"}
        with pytest.raises(httpx2.RemoteProtocolError):
            await http.get(f"{url}/models", headers=drop)
    noisy = [record for record in caplog.records if record.name.startswith(("uvicorn", "starlette", "runmeter"))]
    assert noisy == []


# --- What it refuses ---


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer"}, {"authorization": "sk-simulated"}])
async def test_without_a_key_nothing_is_answered(simulator: Simulator, headers: dict[str, str]) -> None:
    async with httpx2.AsyncClient(headers=headers) as http:
        response = await http.get(f"{simulator.url}/models")
    assert response.status_code == 401
    assert response.json()["error"]["code"] == "invalid_api_key"
    assert response.json()["error"].keys() == {"message", "type", "param", "code"}


async def test_the_clients_error_for_it_is_authentication(simulator: Simulator) -> None:
    async with connect(simulator.url, default_headers={"authorization": "Bearer"}) as client:
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/thread", 404), ("PUT", "/v1/models", 405)])
async def test_unknown_urls_and_methods_are_refused(simulator: Simulator, method: str, path: str, status: int) -> None:
    async with httpx2.AsyncClient(headers=KEY) as http:
        response = await http.request(method, simulator.url.removesuffix("/v1") + path)
    assert response.status_code == status
    assert response.json()["error"]["message"] == f"Invalid URL ({method} {path})"


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/responses", b"{not json", None),
        ("/responses", b"\xff", None),
        ("/responses", b"[]", None),
        ("/responses", b"{}", "model"),
        ("/responses", b'{"model": 1}', "model"),
        ("/responses", b'{"model": "gpt-6-luna", "input": [{"role": 1}]}', "input[0].role"),
        ("/responses/input_tokens", b"{}", "model"),
        ("/chat/completions", b'{"model": "gpt-6-luna"}', "messages"),
        ("/chat/completions", b'{"model": "gpt-6-luna", "messages": [{"content": "x"}]}', "messages[0].role"),
        ("/embeddings", b'{"model": "text-embedding-3-small"}', "input"),
    ],
)
async def test_malformed_requests_are_refused_in_the_apis_shape(
    simulator: Simulator, path: str, body: bytes, param: str | None
) -> None:
    async with httpx2.AsyncClient(headers=KEY) as http:
        response = await http.post(simulator.url + path, content=body)
    error = response.json()["error"]
    assert response.status_code == 400
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert simulator.statistics().usage == {}


@pytest.mark.parametrize("model", ["gpt-9", "gpt-4-1106-preview", "text-embedding-3-small"])
async def test_unknown_retired_and_unfit_models_are_not_found(client: AsyncOpenAI, model: str) -> None:
    for ask in (
        lambda: client.responses.create(model=model, input="Hi."),
        lambda: client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hi."}]),
    ):
        with pytest.raises(openai.NotFoundError) as caught:
            await ask()
        assert caught.value.code == "model_not_found"


# --- Models ---


async def test_models_are_listed_and_retrieved(client: AsyncOpenAI) -> None:
    models = {model.id: model async for model in client.models.list()}
    assert {"gpt-6-luna", "gpt-6.2-sol", "gpt-5.6-luna", "text-embedding-3-small"} < models.keys()
    assert "gpt-4-1106-preview" not in models
    assert models["gpt-5"].shutdown_date == "2026-12-11"
    luna = await client.models.retrieve("gpt-6-luna")
    assert luna == models["gpt-6-luna"]
    assert luna.shutdown_date is None
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("gpt-4-1106-preview")


# --- Its own account ---


async def test_it_counts_requests_and_usage_by_itself(simulator: Simulator, client: AsyncOpenAI) -> None:
    usages = []
    for model in ("gpt-6-luna", "gpt-6-luna", "gpt-4.1"):
        response = await client.responses.create(model=model, input=f"Hello from {model}.")
        assert response.usage is not None
        usages.append(Usage(response.usage.input_tokens, response.usage.output_tokens))
    with pytest.raises(openai.NotFoundError):
        await client.responses.create(model="gpt-9", input="Hello.")
    statistics = simulator.statistics()
    assert statistics.requests == {"POST /responses": 4}
    assert statistics.usage == {"gpt-6-luna": usages[0] + usages[1], "gpt-4.1": usages[2]}
    assert statistics.total == usages[0] + usages[1] + usages[2]
    assert (statistics.faults, statistics.tool_calls) == (0, 0)


async def test_its_account_equals_what_many_clients_were_told(simulator: Simulator, client: AsyncOpenAI) -> None:
    told = Usage()
    tool_calls = 0
    tools: list[Any] = [{"type": "function", "name": "find", "parameters": {"type": "object", "properties": {}}}]

    async def ask(number: int) -> None:
        nonlocal told, tool_calls
        text = f"Parcel {number} is late. " * (number % 7 * 60 + 1)
        response = await client.responses.create(
            model="gpt-6-luna", input=text, tools=tools if number % 2 else [], reasoning={"effort": "low"}
        )
        usage = response.usage
        assert usage is not None
        told += Usage(
            usage.input_tokens,
            usage.output_tokens,
            usage.input_tokens_details.cached_tokens,
            usage.input_tokens_details.cache_write_tokens,
            reasoning_tokens=usage.output_tokens_details.reasoning_tokens,
        )
        tool_calls += sum(item.type == "function_call" for item in response.output)

    async with anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(ask, number)
    statistics = simulator.statistics()
    assert statistics.usage == {"gpt-6-luna": told}
    assert statistics.tool_calls == tool_calls == 50
    assert told.cache_write_tokens > 0


# --- Scripts ---


async def test_a_script_of_replies_is_used_up_then_the_simulator_improvises(
    simulator: Simulator, client: AsyncOpenAI
) -> None:
    async def ask() -> str:
        return (await client.responses.create(model="gpt-6-luna", input="The sun is shining today.")).output_text

    improvised = await ask()
    simulator.script(Reply("One."), Reply("Two."))
    assert [await ask(), await ask(), await ask()] == ["One.", "Two.", improvised]


async def test_a_script_may_be_a_function_of_the_prompt() -> None:
    def script(prompt: Prompt) -> Reply | None:
        return Reply(prompt.user_text.upper()) if prompt.instructions == "Shout." else None

    async with Simulator(script=script) as url, connect(url) as client:
        shouted = await client.responses.create(model="gpt-6-luna", input="Hi there.", instructions="Shout.")
        plain = await client.responses.create(model="gpt-6-luna", input="Hi there.")
    assert shouted.output_text == "HI THERE."
    assert plain.output_text != "HI THERE."


async def test_a_script_that_raises_is_a_500_that_says_so(caplog: pytest.LogCaptureFixture) -> None:
    def script(_prompt: Prompt) -> NoReturn:
        raise KeyError("oops")

    async with (
        Simulator(script=script) as url,
        connect(url) as client,
    ):
        with pytest.raises(openai.InternalServerError, match=r"KeyError\('oops'\)"):
            await client.responses.create(model="gpt-6-luna", input="Hi.")
        await client.models.list()
    assert [record.name for record in caplog.records if record.levelno == logging.ERROR] == ["runmeter"]


# --- Accounts ---


async def test_each_api_key_has_an_account_and_all_add_up(simulator: Simulator, client: AsyncOpenAI) -> None:
    simulator.inject(Fault("server_error", endpoint="/chat/completions"))
    other = client.with_options(api_key="sk-other")
    await client.responses.create(model="gpt-6-luna", input="Hello.")
    await other.responses.create(model="gpt-6-luna", input="Hello there, you.")
    await other.embeddings.create(model="text-embedding-3-small", input="Hello.")
    with pytest.raises(openai.InternalServerError):
        await other.chat.completions.create(model="gpt-6-luna", messages=[{"role": "user", "content": "Hello."}])
    async with httpx2.AsyncClient() as http:
        assert (await http.get(f"{simulator.url}/models")).status_code == 401
    one, two, nobody = (simulator.statistics(key) for key in ("sk-simulated", "sk-other", ""))
    assert (one.requests, set(one.usage), one.faults) == ({"POST /responses": 1}, {"gpt-6-luna"}, 0)
    assert (set(two.usage), two.faults) == ({"gpt-6-luna", "text-embedding-3-small"}, 1)
    assert nobody == SimulatorStatistics({"GET /models": 1})
    assert simulator.statistics("sk-nobody") == SimulatorStatistics()
    assert one + two + nobody == simulator.statistics()
    assert one.total + two.total == simulator.statistics().total


# --- Out of file handles ---

OUT_OF_HANDLES = """
import asyncio, errno, resource, socket
import anyio
from runmeter.simulator import Simulator
from runmeter.simulator.http import thread

thread.RETRY_ACCEPT = 0.05
tries = []
accept = thread._Connections._accept
thread._Connections._accept = lambda self, listener: (tries.append(1), accept(self, listener))[1]


async def main():
    simulator = Simulator()
    async with simulator as url:
        loop = simulator._thread._loop
        waiting = socket.socket()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        held = [socket.socket()]
        resource.setrlimit(resource.RLIMIT_NOFILE, (held[0].fileno() + 20, hard))
        try:
            while True:
                held.append(socket.socket())
        except OSError as error:
            assert error.errno == errno.EMFILE
        waiting.connect(("127.0.0.1", simulator._thread.port))
        turns = asyncio.run_coroutine_threadsafe(turn(), loop)  # made before it is looked at how often it tried
        turns.result()
        print("tried in 200 turns:", len(tries))
        for each in held:
            each.close()
        waiting.sendall(b"GET /v1/models HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
        waiting.settimeout(None)
        print(waiting.recv(12))


async def turn():
    while not tries:
        await asyncio.sleep(0)
    for _ in range(200):
        await asyncio.sleep(0)


anyio.run(main)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such limits there")
def test_out_of_file_handles_it_waits_instead_of_spinning_and_then_serves() -> None:
    counted, answered = output_of(python(OUT_OF_HANDLES)).splitlines()
    tried = int(counted.removeprefix("tried in 200 turns: "))
    assert 1 <= tried < 20, "each turn of the loop would be a try"
    assert answered == "b'HTTP/1.1 401'"
