"""What the tests of the OpenAI client share: answers that the simulator does not give."""

import json
from typing import Any

import httpx2
import pytest

from runmeter.patterns.openai_client.clients import Clients


def served_by(monkeypatch: pytest.MonkeyPatch, clients: Clients, chunks: Any) -> None:
    """Have the client answered by these chunks of a stream, for ends that the simulator does not make."""
    response = httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=chunks)
    transport = httpx2.MockTransport(lambda _: response)
    monkeypatch.setattr(clients.get(), "_client", httpx2.AsyncClient(transport=transport))


def event_stream(*events: dict[str, Any]) -> bytes:
    return b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)
