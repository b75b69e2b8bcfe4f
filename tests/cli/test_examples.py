"""The examples as their readers run them: each a process of its own, against the simulator, over real HTTP."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
from anyio.from_thread import start_blocking_portal
from otlp_receiver import ReceivedSpan, Receiver, receive_http
from process_support import eventually, run_command, started

from runmeter.engine import Usage
from runmeter.simulator import Fault, Reply, ScriptedCall, Simulator

EXAMPLES = Path(__file__).parents[2] / "examples"
KEY = "sk-not-to-be-seen-anywhere"
TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
FROM_CALLER = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
QUESTION = {"question": "Where is parcel 7?"}
CALL = Reply(tool_calls=(ScriptedCall("find_parcel", '{"number": "7"}'),))
LONG = Reply(text="It is on its way. " * 200)
LONG_QUESTION: dict[str, Any] = {"question": "Tell me all about my parcel.", "timeout": 120}


def environment(simulator: Simulator, **more: str) -> dict[str, str]:
    """What an example finds in its environment: no telemetry but what a test asks for."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "OPENAI_"))}
    return inherited | {"OPENAI_BASE_URL": simulator.url, "OPENAI_API_KEY": KEY} | more


@pytest.fixture(scope="module")
def running_simulator() -> Iterator[Simulator]:
    # Not in the queue of `Simulator.script`, where what a client that leaves early does not take stays for the next.
    simulator = Simulator(script=lambda prompt: LONG if prompt.user_text == LONG_QUESTION["question"] else None)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(simulator):
        yield simulator


@pytest.fixture
def simulator(running_simulator: Simulator) -> Iterator[Simulator]:
    """One for all tests of the module, as the service under test must know its address; faults end with their test."""
    yield running_simulator
    running_simulator.recover()


# The scripts


def run(example: str, simulator: Simulator) -> tuple[str, Usage]:
    """Run a script to its end.

    Returns:
        What it printed, and what the simulator billed it.
    """
    before = simulator.statistics().total
    command = [sys.executable, "-W", "error::DeprecationWarning:__main__", str(EXAMPLES / example)]
    done = run_command(command, env=environment(simulator))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    after = simulator.statistics().total
    return done.stdout, Usage(
        input_tokens=after.input_tokens - before.input_tokens, output_tokens=after.output_tokens - before.output_tokens
    )


def test_quickstart_prints_the_answer_and_what_was_billed(simulator: Simulator) -> None:
    simulator.script(Reply(text="Rivers bring salt."))
    printed, billed = run("quickstart.py", simulator)
    answer, bill = printed.splitlines()
    assert answer == "Rivers bring salt."
    tokens, cost = bill.split("$")
    assert tokens == f"{billed.input_tokens} tokens in, {billed.output_tokens} out, "
    assert Decimal(cost) > 0


def test_own_pattern_is_metered_request_by_request(simulator: Simulator) -> None:
    simulator.script(
        Reply(text="Town goes skating on a lake that froze over last Tuesday"),
        Reply(text="Lake freezes, town skates"),
        Reply(text="Rain"),
    )
    printed, billed = run("own_pattern.py", simulator)
    assert "acme: Lake freezes, town skates\n" in printed
    assert "umbrella: Rain\n" in printed

    reported = re.findall(r"gpt-6-luna: (\d+) tokens in, (\d+) out", printed)
    assert len(reported) == 3
    metered = Usage(sum(int(tokens) for tokens, _ in reported), sum(int(tokens) for _, tokens in reported))
    assert metered == billed
    assert printed.count("count_words: ok") == printed.count("ok after ") == 2

    owed = re.findall(r"(\w+) owes \$(\S+): (\d) requests, (\d+) tokens", printed)
    assert [(tag, requests) for tag, _, requests, _ in owed] == [("acme", "2"), ("umbrella", "1")]
    assert sum(int(tokens) for *_, tokens in owed) == billed.total_tokens
    assert all(Decimal(cost) > 0 for _, cost, *_ in owed)


def test_secrets_manager_is_asked_once_for_all_requests_of_both_frameworks(simulator: Simulator) -> None:
    printed, billed = run("secrets_manager.py", simulator)
    assert printed.splitlines() == [
        "openai_function_calling: 4 answers",
        "augmented_llm: 4 answers",
        "8 requests, and the key was read 1 time",
    ]
    assert billed.total_tokens
    assert KEY not in printed


def test_own_pattern_says_what_failed(simulator: Simulator) -> None:
    simulator.inject(Fault("server_error"))
    done = run_command([sys.executable, EXAMPLES / "own_pattern.py"], env=environment(simulator))
    assert done.returncode == 1
    assert "  gpt-6-luna: InternalServerError\n" in done.stdout
    assert KEY not in done.stderr


# The service


class Service(NamedTuple):
    """The FastAPI example, served by its own command, and a client of it."""

    client: httpx2.Client
    process: "subprocess.Popen[str]"

    def usage(self) -> Any:
        """The statistics so far."""
        return self.client.get("/usage").raise_for_status().json()

    def row(self, tenant: str) -> Any:
        """A tenant's statistics."""
        return self.usage()["by_tenant"][tenant]

    def stop(self) -> str:
        """Ctrl-C.

        Returns:
            All it has logged since it began to serve.
        """
        self.process.send_signal(signal.SIGINT)
        _, logged = self.process.communicate()
        return logged


@contextmanager
def served(simulator: Simulator, receiver: Receiver, **variables: str) -> Iterator[Service]:
    """Start the service; when the block has done its work, it ends in good order and has logged nothing bad."""
    variables |= {"PORT": "0", "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "50"}
    command = [sys.executable, "-u", "-W", "always::ResourceWarning", str(EXAMPLES / "fastapi_app.py")]
    with (
        started(command, stdout=subprocess.DEVNULL, env=environment(simulator, **variables)) as process,
        httpx2.Client(base_url=address(process), timeout=None) as client,
    ):
        service = Service(client, process)
        yield service
        logged = service.stop()
    assert "Finished server process" in logged
    # A bare socket is none of the service's, whose connections are transports of its event loop: it is one that the
    # OTLP exporter leaves to the garbage collector.
    bad = "Traceback|WARNING|ERROR|unclosed (?!<socket)|was never|was destroyed"
    assert re.findall(bad, logged) == [], logged
    assert KEY not in logged


def address(process: "subprocess.Popen[str]") -> str:
    """Where it serves: it says so once it does."""
    assert process.stderr is not None
    stderr = process.stderr.fileno()  # and not the file, in whose buffer `select` sees nothing
    logged = ""
    while not (url := re.search(r"running on (http://\S+) ", logged)):
        said = os.read(stderr, 4096)
        assert said, f"it does not serve: {logged}"
        logged += said.decode()
    return url[1]


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receive_http() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def running_service(running_simulator: Simulator, receiver: Receiver) -> Iterator[Service]:
    with served(running_simulator, receiver, OTEL_SERVICE_NAME="support-desk") as service:
        yield service


@pytest.fixture
def service(running_service: Service, simulator: Simulator) -> Service:
    return running_service


def events(response: httpx2.Response) -> Iterator[tuple[str, Any]]:
    """A stream's events as they come: name and data."""
    name = ""
    for line in response.iter_lines():
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)


def test_without_a_key_it_says_what_to_set() -> None:
    done = run_command([sys.executable, EXAMPLES / "fastapi_app.py"], env=os.environ | {"OPENAI_API_KEY": ""})
    assert done.returncode == 1
    assert done.stderr.startswith("OPENAI_API_KEY is not set.")
    assert "runmeter simulator --port 8080" in done.stderr


def test_an_answer_comes_with_what_was_billed(service: Service, simulator: Simulator) -> None:
    before = simulator.statistics().total
    simulator.script(CALL, Reply(text="In Lyon."))
    answer = service.client.post("/answer", json=QUESTION, headers={"X-Tenant": "acme"}).raise_for_status().json()
    after = simulator.statistics().total
    assert answer["content"] == "In Lyon."
    assert answer["usage"]["input_tokens"] == after.input_tokens - before.input_tokens
    assert answer["usage"]["output_tokens"] == after.output_tokens - before.output_tokens
    assert Decimal(answer["cost"]["low"]) == Decimal(answer["cost"]["high"]) > 0

    row = service.row("acme")
    assert row["executions"] == row["function_calls"] == 1
    assert row["requests_by_provenance"] == {"reported": 2}
    assert row["usage"] == answer["usage"]
    assert row["cost"] == answer["cost"]
    assert row["p50"] > 0


def test_a_stream_is_deltas_then_the_result(service: Service, simulator: Simulator) -> None:
    simulator.script(CALL, Reply(text="It is in Lyon, and will be with you tomorrow."))
    with service.client.stream("POST", "/stream", json=QUESTION, headers={"X-Tenant": "streamed"}) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        *deltas, (last, result) = events(response)
    assert len(deltas) > 1
    assert {name for name, _ in deltas} == {"delta"}
    assert "".join(data["text"] for _, data in deltas) == "It is in Lyon, and will be with you tomorrow."
    assert last == "result"
    assert result["content"] == "It is in Lyon, and will be with you tomorrow."
    row = service.row("streamed")
    assert row["usage"] == result["usage"]
    assert row["cost"] == result["cost"]
    assert Decimal(result["cost"]["low"]) > 0


def test_deltas_come_while_the_model_writes_and_leaving_stops_it(service: Service, simulator: Simulator) -> None:
    before = simulator.statistics().total.output_tokens
    simulator.inject(Fault("latency", seconds=0, between_chunks=0.1))  # it would take most of a minute
    with service.client.stream("POST", "/stream", json=LONG_QUESTION, headers={"X-Tenant": "leaver"}) as response:
        coming = events(response)  # while it is held: collecting it closes the connection
        assert next(coming)[0] == "delta"
        assert service.row("leaver")["in_flight"] == 1

    eventually(lambda: service.row("leaver")["in_flight"] == 0)  # the run ends
    row = service.row("leaver")
    assert (row["executions"], row["cancelled"], row["failures"]) == (1, 1, 0)
    assert row["requests_by_provenance"] == {"partial": 1}
    high = row["cost"]["high"]  # none where the machine is too busy to work it out at once
    assert high is None or Decimal(row["cost"]["low"]) < Decimal(high), "nobody knows it exactly"
    eventually(lambda: simulator.statistics().total.output_tokens > before)  # the simulator sees its client leave
    billed = simulator.statistics().total.output_tokens - before
    assert 0 < row["usage"]["output_tokens"] <= billed < 200


def test_many_that_leave_at_any_time_leave_nothing_open(service: Service, simulator: Simulator) -> None:
    """That no connection and no generator was left, the service's log says at its end."""
    simulator.inject(Fault("latency", times=None, seconds=0, between_chunks=0.01))
    for number in range(12):
        with service.client.stream("POST", "/stream", json=LONG_QUESTION, headers={"X-Tenant": "many"}) as response:
            for _ in zip(range(number), events(response), strict=False):
                pass
    eventually(lambda: service.usage()["total"]["in_flight"] == 0)  # all runs end
    row = service.row("many")
    assert (row["executions"], row["cancelled"], row["failures"]) == (12, 12, 0)
    assert "reported" not in row["requests_by_provenance"]


@pytest.mark.parametrize(
    ("fault", "timeout", "status"),
    [
        (Fault("rate_limit", times=None, retry_after=0), 30, 429),
        (Fault("insufficient_quota", times=None), 30, 429),
        (Fault("server_error", times=None), 30, 502),
        (Fault("drop", times=None), 30, 502),
        (Fault("failed", times=None), 30, 502),
        (Fault("latency", times=None, seconds=3600), 0.2, 504),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else "",
)
def test_errors_are_clear_answers(
    service: Service, simulator: Simulator, fault: Fault, timeout: float, status: int
) -> None:
    simulator.inject(fault)

    def post(path: str) -> httpx2.Response:
        return service.client.post(path, json=QUESTION | {"timeout": timeout}, headers={"X-Tenant": "unlucky"})

    with ThreadPoolExecutor() as threads:  # at once: both wait between their attempts
        answered, streamed = threads.map(post, ("/answer", "/stream"))
    problem = answered.json()
    assert answered.status_code == status
    assert problem.keys() == {"detail"}
    assert re.fullmatch("(the model|there was).*", problem["detail"])
    assert list(events(streamed)) == [("error", {"status": status, "detail": problem["detail"]})]
    assert KEY not in answered.text + streamed.text
    assert service.row("unlucky")["in_flight"] == 0


def test_a_stream_that_breaks_ends_in_an_error(service: Service, simulator: Simulator) -> None:
    simulator.inject(Fault("stream_cut", after_events=10))
    response = service.client.post("/stream", json=LONG_QUESTION)
    *deltas, (last, problem) = events(response)
    assert deltas
    assert {name for name, _ in deltas} == {"delta"}
    assert last == "error"
    assert problem["status"] == 502


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({}, "question"),
        ({"question": ""}, "question"),
        ({"question": "\ud800"}, "question"),
        (QUESTION | {"timeout": 0}, "timeout"),
        (QUESTION | {"timeout": 1e9}, "timeout"),
        (QUESTION | {"timeout": float("nan")}, "timeout"),
    ],
    ids=ascii,
)
@pytest.mark.parametrize("path", ["/answer", "/stream"])
def test_what_makes_no_sense_is_refused_before_it_costs_anything(
    service: Service, simulator: Simulator, path: str, wrong: dict[str, Any], field: str
) -> None:
    before = simulator.statistics().requests
    response = service.client.post(path, content=json.dumps(wrong), headers={"Content-Type": "application/json"})
    assert response.status_code == 422
    assert [each["loc"] for each in response.json()["detail"]] == [["body", field]]
    assert simulator.statistics().requests == before


# Its traces


def run_span(receiver: Receiver, run_id: str) -> ReceivedSpan:
    """A run's own span, once it has arrived: it is the last of the run's to end."""
    found: list[ReceivedSpan] = []

    def arrived() -> bool:
        found[:] = [span for span in receiver.spans if span.attributes.get("runmeter.run.id") == run_id]
        return any(span.span.name == "invoke_agent support" for span in found)

    eventually(arrived)
    [span] = [span for span in found if span.span.name == "invoke_agent support"]
    return span


def ask(service: Service, path: str, headers: dict[str, str]) -> str:
    """Ask, whole or streamed.

    Returns:
        The run's id.
    """
    response = service.client.post(path, json=QUESTION, headers=headers).raise_for_status()
    answer = response.json() if path == "/answer" else list(events(response))[-1][1]
    run_id: str = answer["run_id"]
    return run_id


@pytest.mark.parametrize("path", ["/answer", "/stream"])
def test_the_caller_s_trace_goes_on_in_the_run(
    service: Service, simulator: Simulator, receiver: Receiver, path: str
) -> None:
    simulator.script(CALL, Reply(text="In Lyon."))
    run = run_span(receiver, ask(service, path, FROM_CALLER))
    assert run.span.trace_id.hex() == TRACE
    assert run.span.parent_span_id.hex() == CALLER
    assert run.resource["service.name"] == "support-desk"

    within = [each.span for each in receiver.spans if each.span.parent_span_id == run.span.span_id]
    assert sorted(span.name for span in within) == ["chat gpt-6-luna"] * 2 + ["execute_tool find_parcel"]
    assert {span.trace_id.hex() for span in within} == {TRACE}


@pytest.mark.parametrize("path", ["/answer", "/stream"])
def test_a_request_without_a_trace_begins_one_of_its_own(service: Service, receiver: Receiver, path: str) -> None:
    """On the connection that has just brought one: nothing of it is left behind."""
    continued, begun = (run_span(receiver, ask(service, path, headers)).span for headers in (FROM_CALLER, {}))
    assert continued.parent_span_id.hex() == CALLER
    assert begun.parent_span_id == b""
    assert begun.trace_id.hex() != TRACE


@pytest.mark.campaign
def test_below_an_instrumented_server_the_run_is_its_span_s_child(simulator: Simulator, receiver: Receiver) -> None:
    """FastAPI's own instrumentation, switched on by its variable, makes a span of the request."""
    paths = ("/answer", "/stream")
    with served(simulator, receiver, FASTAPI_OTEL_AUTO_CONFIGURE="true") as service:
        runs = [run_span(receiver, ask(service, path, FROM_CALLER)).span for path in paths]
    spans = {span.span.span_id: span.span for span in receiver.spans}  # closing has sent them all
    for path, run in zip(paths, runs, strict=True):
        above = [run]
        while above[-1].parent_span_id in spans:
            above.append(spans[above[-1].parent_span_id])
        assert len(above) > 1
        assert above[-1].name == f"POST {path}"
        assert above[-1].parent_span_id.hex() == CALLER
