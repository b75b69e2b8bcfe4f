"""The exact number of a request's input tokens, by the API's own count: `POST /responses/input_tokens`."""

from collections.abc import Mapping
from typing import Any

from ...openai_client.clients import Clients
from ...requests.retry import RetryPolicy
from .requests import Requests

_COUNTED = frozenset(
    {
        "conversation",
        "input",
        "instructions",
        "model",
        "parallel_tool_calls",
        "personality",
        "previous_response_id",
        "reasoning",
        "text",
        "tool_choice",
        "tools",
        "truncation",
    }
)
"""What the endpoint takes of a request (source: openai 3.54.0, `types/responses/input_token_count_params.py`)."""


class InputTokenCounter:
    """Asks the API how many input tokens a request would have: with images, files, and all that it refers to.

    This is a request by network of its own. Nothing is generated, so that it is no model call and makes no event.

    Args:
        clients: Where the client comes from.
        policy: When to try again.
        timeout: Seconds an attempt may take.
    """

    def __init__(self, clients: Clients, policy: RetryPolicy, *, timeout: float = 30.0) -> None:
        self._requests = Requests(clients, policy, timeout)

    async def count(self, params: Mapping[str, Any]) -> int:
        """Count the input tokens of a request.

        Args:
            params: What `client.responses.create` takes; what has no part in the input is left out.

        Raises:
            ConfigurationError: there is no API key.
            ResponseFailed: there was no answer in time, or the clients were closed, for the last time.
            openai.APIError: the request was refused, or the connection failed, for the last time.
        """
        counted = {name: value for name, value in params.items() if name in _COUNTED}
        answer = await self._requests.send(lambda client: client.responses.input_tokens.count(**counted))
        return answer.input_tokens
