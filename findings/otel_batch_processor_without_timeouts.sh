#!/usr/bin/env bash
# opentelemetry-sdk 1.45.2: BatchSpanProcessor takes export_timeout_millis and uses it nowhere, and force_flush ignores its own
# timeout_millis: it waits for the exporter as long as that takes, then returns True. So an exporter that hangs keeps whoever
# flushes, a web server that ends for example, for as long as it hangs. Seen 2026-11-29, Python 3.11.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check opentelemetry-sdk==1.45.2
"$folder/venv/bin/python" - <<'PYTHON' | tee "$folder/seen"
import time

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult


class SlowExporter(SpanExporter):
    """Takes two seconds for a batch, as one does whose collector is slow."""

    def export(self, spans):
        time.sleep(2)
        return SpanExportResult.SUCCESS


provider = TracerProvider(shutdown_on_exit=False)
processor = BatchSpanProcessor(SlowExporter(), export_timeout_millis=100)
provider.add_span_processor(processor)
provider.get_tracer("finding").start_span("work").end()

begun = time.monotonic()
flushed = processor.force_flush(timeout_millis=200)
waited = time.monotonic() - begun
print("force_flush(200 ms) of an export limited to 100 ms:", flushed, "after 2 s" if waited >= 2 else "in time")
PYTHON
diff - "$folder/seen" <<'EXPECTED' && echo "as found"
force_flush(200 ms) of an export limited to 100 ms: True after 2 s
EXPECTED
