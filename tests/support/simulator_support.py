"""What the tests of the simulator share: a client for it."""

from typing import Any

from openai import AsyncOpenAI


def connect(url: str, **settings: Any) -> AsyncOpenAI:
    return AsyncOpenAI(**{"base_url": url, "api_key": "sk-simulated", "max_retries": 0, **settings})
