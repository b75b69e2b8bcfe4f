# /// script
# requires-python = ">=3.11"
# dependencies = ["runmeter"]
# ///
"""As `runmeter_all_sinks.py`, and its spans are made into the bytes of OTLP requests, which are dropped."""

from functools import partial

from metering.runmeter import load
from worker import serve

if __name__ == "__main__":
    serve(partial(load, telemetry=True, encode=True), ["runmeter", "openai", "httpx2", "pydantic", "opentelemetry-sdk"])
