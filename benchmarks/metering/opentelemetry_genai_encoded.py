# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "opentelemetry-instrumentation-genai-openai==1.3b0",
#     "opentelemetry-util-genai==1.3b0",
#     "opentelemetry-instrumentation==0.66b2",
#     "opentelemetry-semantic-conventions==0.66b2",
#     "opentelemetry-sdk==1.45.2",
#     "opentelemetry-exporter-otlp-proto-common==1.45.2",
#     "openai==3.54.0",
#     "httpx2==2.16.2",
#     "pydantic==2.14.3",
# ]
# ///
"""As `opentelemetry_genai.py`, and its spans are made into the bytes of OTLP requests, which are dropped."""

from functools import partial

from metering.opentelemetry_genai import DISTRIBUTIONS, load
from worker import serve

if __name__ == "__main__":
    serve(partial(load, encode=True), DISTRIBUTIONS)
