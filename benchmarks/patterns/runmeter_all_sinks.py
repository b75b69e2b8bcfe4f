# /// script
# requires-python = ">=3.11"
# dependencies = ["runmeter"]
# ///
"""What the patterns on LangGraph cost with spans and metrics as well."""

from functools import partial
from typing import Any

from patterns.runmeter import load
from worker import serve


def telemetry() -> Any:
    from metering.sinks import SpanSink, runmeter_telemetry

    return runmeter_telemetry(SpanSink())


if __name__ == "__main__":
    serve(partial(load, telemetry), ["runmeter", "langgraph", "langchain-core", "opentelemetry-sdk"])
