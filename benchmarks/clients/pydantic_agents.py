# /// script
# requires-python = ">=3.11"
# dependencies = ["pydantic-ai-slim[openai]==2.68.0", "openai==3.57.0"]
# ///
"""Pydantic AI, with a metered client: a tool, over both APIs, streamed and not."""

from account import check
from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider


def find_parcel(number: str) -> str:
    """Find a parcel."""
    return f"Parcel {number} is in Lyon."


async def work(client: AsyncOpenAI) -> None:
    for kind in (OpenAIResponsesModel, OpenAIChatModel):
        model = kind("gpt-4.1-mini", provider=OpenAIProvider(openai_client=client))
        agent = Agent(model, tools=[find_parcel])
        await agent.run("Where is my parcel 7?")
        async with agent.run_stream("Where is my parcel 7?") as stream:
            async for _ in stream.stream_text(delta=True):
                pass


check(work)
