#!/usr/bin/env bash
# openai 3.54.0: responses.create(stream=True), answered by a server that does not stream (200, application/json, a
# complete answer), raises nothing and gives no answer: the stream reads the body as server-sent events without looking at
# the content type, finds none, and ends. So a complete, paid answer is lost without a word. Seen 2026-11-29, Python 3.11.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check openai==3.54.0
"$folder/venv/bin/python" - <<'PYTHON' | tee "$folder/seen"
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from openai import OpenAI

ANSWER = {
    "id": "resp_1", "object": "response", "created_at": 1, "model": "gpt-6-luna", "status": "completed",
    "output": [{"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
                "content": [{"type": "output_text", "text": "hello", "annotations": []}]}],
    "usage": {"input_tokens": 7, "output_tokens": 9, "total_tokens": 16,
              "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}},
}


class Server(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps(ANSWER).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


server = HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = OpenAI(api_key="made-up", base_url=f"http://127.0.0.1:{server.server_port}/v1", max_retries=0)
print("plain:", client.responses.create(model="gpt-6-luna", input="hi").output_text)
try:
    events = list(client.responses.create(model="gpt-6-luna", input="hi", stream=True))
    print("streamed:", len(events), "events, nothing raised")
except Exception as error:
    print("streamed:", type(error).__name__)
server.shutdown()
PYTHON
diff - "$folder/seen" <<'EXPECTED' && echo "as found"
plain: hello
streamed: 0 events, nothing raised
EXPECTED
