# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "opentelemetry-instrumentation-openai==0.62.4",
#     "opentelemetry-semantic-conventions-ai==0.5.1",
#     "opentelemetry-instrumentation==0.66b2",
#     "opentelemetry-semantic-conventions==0.66b2",
#     "opentelemetry-sdk==1.45.2",
#     "openai==3.54.0",
#     "httpx2==2.16.2",
#     "pydantic==2.14.3",
# ]
# ///
"""What metering adds to a call: Traceloop's OpenLLMetry, with spans and metrics.

Its instrumentation alone, without the Traceloop SDK around it. Each call makes one span; that of a streamed completion
has an event for each chunk. Content is switched off by the variable it has for that. Of Responses it has no metrics.
"""

import os

from worker import Bench, serve

DISTRIBUTIONS = ["opentelemetry-instrumentation-openai", "opentelemetry-sdk", "openai", "httpx2", "pydantic"]


def load(*, encode: bool = False) -> Bench:
    os.environ["TRACELOOP_TRACE_CONTENT"] = "false"
    from metering.calls import bench, client_calls
    from metering.sinks import SpanSink, meter_provider, tracer_provider
    from opentelemetry.instrumentation.openai import OpenAIInstrumentor
    from stub import Stub

    sink = SpanSink(encode=encode)
    spans = tracer_provider(sink)
    OpenAIInstrumentor().instrument(tracer_provider=spans, meter_provider=meter_provider())
    stub = Stub()
    client = stub.client()
    return bench(stub, client_calls(client), sink.settle(spans.force_flush), client.close)


if __name__ == "__main__":
    serve(load, DISTRIBUTIONS)
