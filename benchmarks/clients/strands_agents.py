# /// script
# requires-python = ">=3.11"
# dependencies = ["strands-agents==1.62.0", "openai==3.57.0"]
# ///
"""Strands, with a metered client: a tool, streamed. Its extra `openai` asks for openai 2, which it does not need."""

from account import check
from openai import AsyncOpenAI
from strands import Agent, tool
from strands.models.openai import OpenAIModel


@tool
def find_parcel(number: str) -> str:
    """Find a parcel.

    Args:
        number: The parcel's.
    """
    return f"Parcel {number} is in Lyon."


async def work(client: AsyncOpenAI) -> None:
    model = OpenAIModel(client=client, model_id="gpt-4.1-mini")
    agent = Agent(model=model, tools=[find_parcel], callback_handler=None)
    await agent.invoke_async("Where is my parcel 7?")
    async for _ in agent.stream_async("And parcel 8?"):
        pass


check(work)
