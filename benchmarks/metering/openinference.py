# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "openinference-instrumentation-openai==0.1.66",
#     "openinference-instrumentation==0.1.72",
#     "openinference-semantic-conventions==0.1.42",
#     "opentelemetry-instrumentation==0.66b2",
#     "opentelemetry-semantic-conventions==0.66b2",
#     "opentelemetry-sdk==1.45.2",
#     "openai==3.54.0",
#     "httpx2==2.16.2",
#     "pydantic==2.14.3",
# ]
# ///
"""What metering adds to a call: OpenInference (Arize Phoenix), which makes spans and no metrics.

Each call makes one span. Content is switched off: `hide_inputs` and `hide_outputs`. The instrumentation then still
works out what it would say, and leaves it out at the end.
"""

from worker import Bench, serve

DISTRIBUTIONS = ["openinference-instrumentation-openai", "opentelemetry-sdk", "openai", "httpx2", "pydantic"]


def load(*, encode: bool = False) -> Bench:
    from metering.calls import bench, client_calls
    from metering.sinks import SpanSink, tracer_provider
    from openinference.instrumentation import TraceConfig
    from openinference.instrumentation.openai import OpenAIInstrumentor
    from stub import Stub

    sink = SpanSink("llm.token_count.prompt", encode=encode)
    spans = tracer_provider(sink)
    config = TraceConfig(hide_inputs=True, hide_outputs=True)
    OpenAIInstrumentor().instrument(tracer_provider=spans, config=config)
    stub = Stub()
    client = stub.client()
    return bench(stub, client_calls(client), sink.settle(spans.force_flush), client.close)


if __name__ == "__main__":
    serve(load, DISTRIBUTIONS)
