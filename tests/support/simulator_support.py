"""What the tests of the simulator share: a client for it."""

import ssl
from typing import Any

from openai import AsyncOpenAI, DefaultAsyncHttpxClient

TLS = ssl.create_default_context()  # once: a client of its own would take longer to make one than most tests take


def connect(url: str, **settings: Any) -> AsyncOpenAI:
    settings = {"max_retries": 0, "http_client": DefaultAsyncHttpxClient(verify=TLS), **settings}
    return AsyncOpenAI(base_url=url, api_key="sk-simulated", **settings)
