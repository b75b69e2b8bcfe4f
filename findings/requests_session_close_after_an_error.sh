#!/usr/bin/env bash
# requests 2.34.2 on urllib3 2.8.0: Session.close(), also by its `with` block, leaves a connection open if an earlier request
# to that host ended in a ConnectionError. urllib3's pool manager only forgets its pools, which close once they are collected;
# the error holds its pool in a reference cycle, so until the cyclic collector runs the server waits for the next request.
# The same program without the error closes at once. Seen 2026-11-29, Python 3.11.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check requests==2.34.2 urllib3==2.8.0
"$folder/venv/bin/python" - <<'PYTHON' | tee "$folder/seen"
import gc
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests


class Server(BaseHTTPRequestHandler):
    """Answers all requests but those to /hang-up, whose connection it closes."""

    protocol_version = "HTTP/1.1"
    closed = threading.Semaphore(0)

    def do_GET(self):
        if self.path == "/hang-up":
            self.close_connection = True
            return
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def finish(self):
        super().finish()
        self.closed.release()

    def log_message(self, *args):
        pass


def connections_closed():
    number = 0
    while Server.closed.acquire(timeout=2):
        number += 1
    return number


server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
host = f"http://127.0.0.1:{server.server_port}"
gc.disable()  # as in a program that waits, and so allocates nothing

with requests.Session() as session:
    session.get(host + "/")
print("without an error, closed by the session:", connections_closed(), "of 1")

with requests.Session() as session:
    session.get(host + "/")
    try:
        session.get(host + "/hang-up")
    except requests.ConnectionError:
        pass
    session.get(host + "/")
print("after an error, closed by server and session:", connections_closed(), "of 2")
gc.collect()
print("closed by the collector:", connections_closed())
PYTHON
diff - "$folder/seen" <<'EXPECTED' && echo "as found"
without an error, closed by the session: 1 of 1
after an error, closed by server and session: 1 of 2
closed by the collector: 1
EXPECTED
