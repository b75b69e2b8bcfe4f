#!/usr/bin/env bash
# anyio 4.16.0 with sniffio 1.3.1: within anyio.run, asyncio.to_thread(anyio.run, work) is refused with "Already running asyncio
# in this thread", though the thread runs nothing; so is anyio.run by a copied context in a thread of one's own. anyio keeps the
# library's name in a context variable, and both copy contexts. anyio.to_thread.run_sync clears it; within asyncio.run, which
# sets none, the same lines work. Seen 2026-11-29, Python 3.11.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check anyio==4.16.0 sniffio==1.3.1
"$folder/venv/bin/python" - <<'PYTHON' | tee "$folder/seen"
import asyncio
import contextvars
from concurrent.futures import ThreadPoolExecutor

import anyio


async def work():
    return "ran"


def tried(run):
    try:
        return run()
    except RuntimeError as error:
        return error


async def ask():
    try:
        print("  asyncio.to_thread:", await asyncio.to_thread(anyio.run, work))
    except RuntimeError as error:
        print("  asyncio.to_thread:", error)
    with ThreadPoolExecutor() as pool:
        context = contextvars.copy_context()
        print("  copied context:", pool.submit(tried, lambda: context.run(anyio.run, work)).result())
    print("  anyio.to_thread:", await anyio.to_thread.run_sync(anyio.run, work))


print("within anyio.run")
anyio.run(ask)
print("within asyncio.run")
asyncio.run(ask())
PYTHON
diff - "$folder/seen" <<'EXPECTED' && echo "as found"
within anyio.run
  asyncio.to_thread: Already running asyncio in this thread
  copied context: Already running asyncio in this thread
  anyio.to_thread: ran
within asyncio.run
  asyncio.to_thread: ran
  copied context: ran
  anyio.to_thread: ran
EXPECTED
