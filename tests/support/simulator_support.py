"""What the tests of the simulator share: a client for it."""

from typing import Any

from openai import AsyncOpenAI

PATIENT = {"timeout": 3600, "max_retries": 0}
"""Settings of a client. Its own would give up a connection after 5 seconds, which may pass on a busy machine."""


def connect(url: str, **settings: Any) -> AsyncOpenAI:
    return AsyncOpenAI(**{"base_url": url, "api_key": "sk-simulated", **PATIENT, **settings})
