# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "logfire==5.2.0",
#     "opentelemetry-instrumentation==0.66b2",
#     "opentelemetry-semantic-conventions==0.66b2",
#     "opentelemetry-sdk==1.45.2",
#     "openai==3.54.0",
#     "httpx2==2.16.2",
#     "pydantic==2.14.3",
# ]
# ///
"""What metering adds to a call: Logfire, which makes spans.

Sending to Logfire and the console's output are switched off; spans go to a batch processor in place of its own. The
rest is the default, scrubbing included. A call makes one span, a stream a second one when it has ended. There is no
switch for content, so that it is captured.
"""

from worker import Bench, serve


def load() -> Bench:
    import logfire
    from metering.calls import bench, client_calls
    from metering.sinks import SpanSink
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from stub import Stub

    sink = SpanSink(content=True)
    logfire.configure(send_to_logfire=False, console=False, additional_span_processors=[BatchSpanProcessor(sink)])
    logfire.instrument_openai()
    stub = Stub()
    client = stub.client()
    return bench(stub, client_calls(client), sink.settle(logfire.force_flush), client.close)


if __name__ == "__main__":
    serve(load, ["logfire", "opentelemetry-sdk", "openai", "httpx2", "pydantic"])
