# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "langfuse==5.0.4",
#     "opentelemetry-semantic-conventions==0.66b2",
#     "opentelemetry-sdk==1.45.2",
#     "openai==3.54.0",
#     "httpx2==2.16.2",
#     "pydantic==2.14.3",
# ]
# ///
"""What metering adds to a call: Langfuse's drop-in for the client, which makes spans.

They go through Langfuse's own batch processor, to an exporter that does nothing in place of its own. Each call makes
one span. The rest is the default. The drop-in has no switch for content, so that it is captured.
"""

from worker import Bench, serve


def load() -> Bench:
    import langfuse.openai  # noqa: F401 - it patches the client
    from langfuse import Langfuse
    from metering.calls import bench, client_calls
    from metering.sinks import SpanSink
    from stub import Stub

    sink = SpanSink("langfuse.observation.usage_details", content=True)
    keys = {"public_key": "pk-lf-stub", "secret_key": "sk-lf-stub"}  # which open nothing, on a host that is none
    tracing = Langfuse(**keys, base_url="http://stub.invalid", span_exporter=sink)
    stub = Stub()
    client = stub.client()
    return bench(stub, client_calls(client), sink.settle(tracing.flush), client.close)


if __name__ == "__main__":
    serve(load, ["langfuse", "opentelemetry-sdk", "openai", "httpx2", "pydantic"])
