"""A support desk over HTTP that embeds the engine: JSON, server-sent events, statistics, the caller's trace continued.

    export OPENAI_API_KEY=...
    python examples/fastapi_app.py

Without a key, try it against the simulator, which costs nothing:

    runmeter simulator --port 8080
    OPENAI_BASE_URL=http://127.0.0.1:8080/v1 OPENAI_API_KEY=any python examples/fastapi_app.py

    curl localhost:8000/answer -H 'X-Tenant: acme' --json '{"question": "Where is parcel 7?"}'
    curl -N localhost:8000/stream -H 'X-Tenant: acme' --json '{"question": "Where is parcel 7?"}'
    curl localhost:8000/usage

PORT is where it listens. OTEL_EXPORTER_OTLP_ENDPOINT is where its traces go; without it there are none.
"""

import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Annotated, NamedTuple

import openai
import uvicorn
from fastapi import Depends, FastAPI, Header, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from opentelemetry.context import attach, detach
from opentelemetry.propagate import extract
from opentelemetry.trace import get_current_span
from pydantic import BaseModel, Field

from runmeter import Delta, Engine, RunStream, RunTimeout
from runmeter.patterns import OpenAIFunctionCallingPattern, OpenAIPatternConfig, ResponseFailed
from runmeter.telemetry import OpenTelemetry, configure

# What is said


class Question(BaseModel):
    """What the caller asks."""

    question: str = Field(min_length=1, max_length=8_000)
    timeout: float = Field(default=30, gt=0, le=120, description="seconds the caller will wait")


class Tokens(BaseModel):
    """Tokens used. Cached ones are input tokens too."""

    input_tokens: int
    cache_read_tokens: int
    output_tokens: int


class Cost(BaseModel):
    """US dollars between `low` and `high`; the two are equal where the cost is known exactly."""

    low: Decimal
    high: Decimal | None  # no known bound
    unpriced: int  # requests whose model has no known price


class Answer(BaseModel):
    """An answer and what it took. Its fields are called as a `RunResult`'s are, so one is made from the other."""

    run_id: str
    content: str
    usage: Tokens
    unknown_requests: int  # requests that never said what they used; they are not in `usage`
    cost: Cost


class Row(BaseModel):
    """What some runs did and used: the part of a `UsageRow` that is of interest outside. Times in nanoseconds."""

    executions: int
    in_flight: int
    failures: int
    cancelled: int
    p50: int | None
    p95: int | None
    function_calls: int
    requests_by_provenance: dict[str, int]
    usage: Tokens
    cost: Cost


class Statistics(BaseModel):
    """What all runs did and used since the start."""

    total: Row
    by_model: dict[str, Row]
    by_tenant: dict[str, Row]


class Problem(NamedTuple):
    """What a caller is told of an error. What exactly happened is in the run's span and in the statistics."""

    status: int
    detail: str


PROBLEMS: Mapping[type[Exception], Problem] = {
    RunTimeout: Problem(504, "there was no answer in time"),
    openai.APITimeoutError: Problem(504, "the model did not answer in time"),
    openai.RateLimitError: Problem(429, "the model takes no more requests for now: try again later"),
    openai.APIError: Problem(502, "the model could not be asked"),
    ResponseFailed: Problem(502, "the model did not finish its answer"),
}


def problem_of(error: Exception) -> Problem:
    """What to say of an error of `PROBLEMS` or of a class below one of them: the closest counts."""
    return next(PROBLEMS[kind] for kind in type(error).__mro__ if kind in PROBLEMS)


async def tell_problem(_: Request, error: Exception) -> JSONResponse:
    """Answer with the error's HTTP status and a sentence: an API's own words may be none of the caller's business."""
    problem = problem_of(error)
    return JSONResponse({"detail": problem.detail}, problem.status)


async def tell_what_is_wrong(_: Request, error: RequestValidationError) -> JSONResponse:
    """Say it without repeating the request, as FastAPI itself does: that may hold what JSON cannot, such as NaN."""
    return JSONResponse({"detail": [{"loc": each["loc"], "msg": each["msg"]} for each in error.errors()]}, 422)


# What lives as long as the application


async def find_parcel(number: str) -> str:
    """Say where a parcel is.

    Args:
        number: The parcel's number.
    """
    return f"Parcel {number} is in Lyon."


support = OpenAIFunctionCallingPattern(
    OpenAIPatternConfig(name="support", system_prompt="You answer customers of a parcel service. Be brief."),
    tools=[find_parcel],
)


def telemetry() -> OpenTelemetry | None:
    """Traces and metrics by the `OTEL_*` variables, if one of them names a collector."""
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return configure() if any(os.environ.get(name) for name in endpoints) else None


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[Mapping[str, Engine]]:
    """One engine for all requests. Leaving it waits for what still runs, then sends the last spans."""
    async with support, Engine(telemetry=telemetry(), max_concurrent_runs=100, drain_timeout=10) as engine:
        yield {"engine": engine}


# What each request brings


async def engine_of(request: Request) -> Engine:
    """The application's engine."""
    engine: Engine = request.state.engine
    return engine


async def continue_trace(request: Request) -> AsyncIterator[None]:
    """Make the caller's span, by its W3C `traceparent` header, the parent of the runs in this request.

    Where the server is instrumented, its own span continues the trace already.
    """
    if get_current_span().get_span_context().is_valid:
        yield
        return
    token = attach(extract(request.headers))
    try:
        yield
    finally:
        detach(token)


RunningEngine = Annotated[Engine, Depends(engine_of)]
# Statistics are kept by tag. A service in earnest takes the tenant from who is logged in, not from the caller's word.
Tenant = Annotated[str, Header(alias="X-Tenant", min_length=1, max_length=64)]


async def streamed_run(
    engine: RunningEngine, question: Question, tenant: Tenant = "unknown"
) -> AsyncIterator[RunStream]:
    """A run whose deltas are handed out. It ends with the request, so a client that leaves ends the model's work."""
    tags = {"tenant": tenant}
    async with engine.stream(support, question.question, tags=tags, timeout=question.timeout) as run:
        yield run


app = FastAPI(
    title="Support",
    lifespan=lifespan,
    dependencies=[Depends(continue_trace)],
    exception_handlers={**dict.fromkeys(PROBLEMS, tell_problem), RequestValidationError: tell_what_is_wrong},
)


@app.post("/answer")
async def answer(engine: RunningEngine, question: Question, tenant: Tenant = "unknown") -> Answer:
    """Answer a question in one piece. A client that leaves is not noticed here; the timeout bounds what it costs."""
    result = await engine.run(support, question.question, tags={"tenant": tenant}, timeout=question.timeout)
    return Answer.model_validate(result, from_attributes=True)


@app.post("/stream", response_class=EventSourceResponse)
async def stream(run: Annotated[RunStream, Depends(streamed_run)]) -> AsyncIterator[ServerSentEvent]:
    """Answer piece by piece: events `delta`, then one `result`, or one `error` since the status is sent by then."""
    try:
        async for item in run:
            if isinstance(item, Delta):  # the others are the run's events
                yield ServerSentEvent(event="delta", data={"text": item.text})
    except tuple(PROBLEMS) as error:
        yield ServerSentEvent(event="error", data=problem_of(error)._asdict())
    else:
        yield ServerSentEvent(event="result", data=Answer.model_validate(run.result, from_attributes=True))


@app.get("/usage")
async def usage(engine: RunningEngine) -> Statistics:
    """What all runs did and used, the one that has just answered included."""
    statistics = engine.usage()
    rows = {"total": statistics.total, "by_model": statistics.by_model(), "by_tenant": statistics.by_tag("tenant")}
    return Statistics.model_validate(rows, from_attributes=True)


def main() -> None:
    """Serve until Ctrl-C."""
    if not os.environ.get("OPENAI_API_KEY"):
        sys.exit(f"OPENAI_API_KEY is not set.\n\n{__doc__}")
    # Without a limit, closing would wait for streams that go on.
    uvicorn.run(app, port=int(os.environ.get("PORT", "8000")), timeout_graceful_shutdown=10)


if __name__ == "__main__":
    main()
