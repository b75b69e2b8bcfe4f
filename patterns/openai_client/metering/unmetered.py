"""Requests that are billed and not metered: the first of each kind gives a notice."""

from collections.abc import Mapping
from contextvars import copy_context

from runmeter.engine import Execution, ambient_run, metered_execution

BILLED: Mapping[str, str] = {
    "/audio/speech": "audio",
    "/audio/transcriptions": "audio",
    "/audio/translations": "audio",
    "/batches": "batches",
    "/completions": "completions",
    "/evals": "evals",
    "/fine_tuning/jobs": "fine_tuning",
    "/images/edits": "images",
    "/images/generations": "images",
    "/images/variations": "images",
    "/realtime/calls": "realtime",
    "/realtime/client_secrets": "realtime",
    "/realtime/sessions": "realtime",
    "/responses/compact": "compaction",
    "/videos": "videos",
}
"""Kinds of requests by the ends of their paths (openai 3.54.0, `resources/`; the pricing page, 2026-11)."""


def unmetered_kind(path: str) -> str | None:
    """Name the kind of a request that is billed and not metered; None if it is neither."""
    start = path.rfind("/")
    return BILLED.get(path[start:]) or BILLED.get(path[path.rfind("/", 0, start) :] if start > 0 else path)


def tell_unmetered(kind: str, host: str) -> None:
    """Give notice of a request that is billed and not metered: once an engine, and in a run of its own if in none."""
    execution = metered_execution()
    if execution is not None:
        _tell(execution, kind, host)
        return
    run = ambient_run(f"openai.{kind}", "openai")
    if run is None or ("unmetered", _subject(kind, host)) in run.runtime.noticed:
        return
    context = copy_context()
    context.run(run.__enter__)
    _tell(run, kind, host)
    context.run(run.__exit__, None, None, None)


def _tell(execution: Execution, kind: str, host: str) -> None:
    message = f"requests for {kind} are billed, and not metered: their cost is in no figure here"
    execution.notice("unmetered", _subject(kind, host), message, once=True)


def _subject(kind: str, host: str) -> str:
    return f"{kind} at {host}"
