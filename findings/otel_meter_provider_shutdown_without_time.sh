#!/usr/bin/env bash
# opentelemetry-sdk 1.45.2: MeterProvider.shutdown(timeout_millis=0) shuts no reader down. One would expect it to
# close all and to wait for nothing: instead it raises before it reaches a reader, so that there is no last collection, the
# exporter stays open, and the reader's thread lives on. With any time at all (here 1,000 ms) all is closed. Seen 2026-11-29, Python 3.11.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check opentelemetry-sdk==1.45.2
"$folder/venv/bin/python" - <<'PYTHON' | tee "$folder/seen"
import logging
import threading

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, PeriodicExportingMetricReader

logging.disable(logging.CRITICAL)


class Counted(MetricExporter):
    def __init__(self):
        super().__init__()
        self.exports = 0
        self.is_shut = False

    def export(self, metrics_data, timeout_millis=10_000, **kwargs):
        self.exports += 1
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis=10_000):
        return True

    def shutdown(self, timeout_millis=30_000, **kwargs):
        self.is_shut = True


for timeout in (1_000, 0):
    before = set(threading.enumerate())
    exporter = Counted()
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
    provider = MeterProvider([reader], shutdown_on_exit=False)
    provider.get_meter("shop").create_counter("orders").add(1)
    try:
        provider.shutdown(timeout_millis=timeout)
        raised = "nothing raised"
    except Exception as error:
        raised = f"{type(error).__name__} raised"
    threads = sum(thread.is_alive() for thread in set(threading.enumerate()) - before)
    print(f"timeout {timeout} ms: {raised}, {exporter.exports} exports, shut {exporter.is_shut}, {threads} threads left")
PYTHON
diff - "$folder/seen" <<'EXPECTED' && echo "as found"
timeout 1000 ms: nothing raised, 1 exports, shut True, 0 threads left
timeout 0 ms: Exception raised, 0 exports, shut False, 1 threads left
EXPECTED
