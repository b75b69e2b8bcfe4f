"""A pattern of your own: its requests to a model and its tools metered, tags, and a subscriber. Needs OPENAI_API_KEY.

Any object with `async execute(messages, context)` is a pattern. It says what it does through `current_execution()`, the
handle of the run it is in.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import anyio
from openai import AsyncOpenAI
from openai.types.responses import ResponseUsage

from runmeter import (
    Engine,
    Event,
    ExecutionFinished,
    FunctionCall,
    ModelRequest,
    TokenUsage,
    Usage,
    current_execution,
)


class Headline:
    """Writes a headline, counts its words, and has it shortened if it is too long.

    Args:
        client: Best with `max_retries=0`: the client's own retries are requests that nobody sees.
        model: Who writes.
        most: Words that a headline may have.
    """

    name = "headline"  # in statistics and traces
    framework = "openai"

    def __init__(self, client: AsyncOpenAI, model: str = "gpt-6-luna", most: int = 8) -> None:
        self._client = client
        self._model = model
        self._most = most

    async def execute(self, messages: str, context: Mapping[str, Any] | None = None) -> str:
        """Write a headline for a text."""
        headline = await self._ask(f"Write a headline for this text: {messages}")
        if self._count_words(headline) > self._most:
            headline = await self._ask(f"Shorten this to {self._most} words: {headline}")
        return headline

    async def _ask(self, prompt: str) -> str:
        request = ModelRequest(provider="openai", model=self._model, api="responses")
        # However this block is left, the request is an event. Left without `record`, its usage is unknown and not 0.
        with current_execution().model_call(request) as call:
            response = await self._client.responses.create(model=self._model, input=prompt)
            if response.usage is not None:
                call.record(
                    as_usage(response.usage),
                    response_id=response.id,
                    response_model=response.model,
                    service_tier=response.service_tier,  # the tier that served is the one that is billed
                )
        return response.output_text

    def _count_words(self, text: str) -> int:
        with current_execution().function_call("count_words"):  # an exception that leaves it is the tool's error
            return len(text.split())


def as_usage(said: ResponseUsage) -> Usage:
    """What the API says that it used. Cached tokens are part of the input, reasoning is part of the output."""
    return Usage(
        input_tokens=said.input_tokens,
        output_tokens=said.output_tokens,
        cache_read_tokens=said.input_tokens_details.cached_tokens,
        cache_write_tokens=said.input_tokens_details.cache_write_tokens,
        reasoning_tokens=said.output_tokens_details.reasoning_tokens,
    )


def report(events: Sequence[Event]) -> None:
    """A subscriber: it is handed every event of every run, in batches."""
    for event in events:
        match event:
            case TokenUsage(usage=Usage() as used):
                print(f"  {event.model}: {used.input_tokens} tokens in, {used.output_tokens} out")
            case TokenUsage():
                print(f"  {event.model}: {event.error_type or 'usage unknown'}")
            case FunctionCall():
                print(f"  {event.name}: {event.error_type or 'ok'}")
            case ExecutionFinished():
                print(f"  {event.status} after {event.duration_ns / 1e6:.0f} ms")


async def main() -> None:
    """Write headlines for two tenants, and say what each tenant owes."""
    texts = {
        "acme": "The lake behind the old mill froze over on Tuesday, and the town went skating.",
        "umbrella": "Rain is expected.",
    }
    async with AsyncOpenAI(max_retries=0) as client, Engine() as engine:
        # A lossless subscriber misses nothing; if it falls too far behind, new runs wait for it.
        engine.subscribe(report, name="report", lane="lossless")
        headline = Headline(client)
        for tenant, text in texts.items():
            result = await engine.run(headline, text, tags={"tenant": tenant}, timeout=60)
            print(f"{tenant}: {result.content}")
        for tag, row in engine.usage().by_tag("tenant").items():
            print(f"{tag} owes {row.cost}: {row.requests} requests, {row.usage.total_tokens} tokens")


if __name__ == "__main__":
    anyio.run(main)
