# /// script
# requires-python = ">=3.11"
# dependencies = ["runmeter"]
# ///
"""What metering adds to a call: Runmeter, with statistics, spans and metrics.

As `runmeter.py`, and with telemetry: spans take the same way as the other peers', to an exporter that does nothing
(exporters set to `none` would build no spans at all), and metrics are kept to be sent once a minute. Each call makes
two spans: the run's, and the model call's.
"""

from functools import partial

from metering.runmeter import load
from worker import serve

if __name__ == "__main__":
    serve(partial(load, telemetry=True), ["runmeter", "openai", "httpx2", "pydantic", "opentelemetry-sdk"])
