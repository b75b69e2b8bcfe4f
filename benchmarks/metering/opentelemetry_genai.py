# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "opentelemetry-instrumentation-genai-openai==1.3b0",
#     "opentelemetry-util-genai==1.3b0",
#     "opentelemetry-instrumentation==0.66b2",
#     "opentelemetry-semantic-conventions==0.66b2",
#     "opentelemetry-sdk==1.45.2",
#     "openai==3.54.0",
#     "httpx2==2.16.2",
#     "pydantic==2.14.3",
# ]
# ///
"""What metering adds to a call: OpenTelemetry's own GenAI instrumentation, with spans and metrics.

The package was called `opentelemetry-instrumentation-openai-v2`, and moved to this name in 2026. It has been published
as pre-releases only. Each call makes one span. Content of messages is not captured, which is the default, and no events
are emitted, likewise.
"""

import os

from worker import Bench, serve

DISTRIBUTIONS = ["opentelemetry-instrumentation-genai-openai", "opentelemetry-sdk", "openai", "httpx2", "pydantic"]


def load(*, content: bool = False, encode: bool = False) -> Bench:
    if content:
        os.environ["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] = "span_only"
    from metering.calls import bench, client_calls
    from metering.sinks import SpanSink, meter_provider, tracer_provider
    from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
    from stub import Stub

    sink = SpanSink(content=content, encode=encode)
    spans = tracer_provider(sink)
    OpenAIInstrumentor().instrument(tracer_provider=spans, meter_provider=meter_provider())
    stub = Stub()
    client = stub.client()
    return bench(stub, client_calls(client), sink.settle(spans.force_flush), client.close)


if __name__ == "__main__":
    serve(load, DISTRIBUTIONS)
