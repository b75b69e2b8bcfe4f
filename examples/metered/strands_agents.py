# /// script
# requires-python = ">=3.11"
# dependencies = ["runmeter", "strands-agents==1.62.0", "openai==3.57.0"]
#
# [tool.uv.sources]
# runmeter = { path = "../..", editable = true }
# ///
"""Strands: agents with a tool, a structured answer and a stream, and Strands' own retries."""

import asyncio

from openai import AsyncOpenAI
from pydantic import BaseModel
from strands import Agent, ModelRetryStrategy, tool
from strands.models.openai import OpenAIModel

from runmeter import Engine, meter

client = meter(AsyncOpenAI())
model = OpenAIModel(client=client, model_id="gpt-6-luna", params={"reasoning_effort": "none"})


class Parcel(BaseModel):
    """A structured answer."""

    number: str
    city: str


@tool
def find_parcel(number: str) -> str:
    """Say where a parcel is."""
    return f"Parcel {number} is in Lyon."


async def main() -> None:
    """Ask each agent once."""
    again = ModelRetryStrategy(max_attempts=2, initial_delay=0)
    desk = Agent(model, tools=[find_parcel], callback_handler=None, retry_strategy=again)
    clerk = Agent(model, structured_output_model=Parcel, callback_handler=None)
    async with Engine() as engine:
        print(await desk.invoke_async("Where is parcel 7?"), end="")
        print((await clerk.invoke_async("Parcel 7 is in Lyon.")).structured_output)
        async for event in desk.stream_async("And parcel 8?"):
            print(event.get("data", ""), end="")
        print()
        print(engine.usage())


asyncio.run(main())
