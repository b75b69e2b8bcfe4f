# /// script
# requires-python = ">=3.11"
# dependencies = ["runmeter", "pydantic-ai-slim[openai]==2.68.0", "openai==3.57.0"]
#
# [tool.uv.sources]
# runmeter = { path = "../..", editable = true }
# ///
"""Pydantic AI: agents with a tool, a structured answer that is asked for again, and a stream of the other API."""

import asyncio

from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent, ModelRetry, RunContext
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

from runmeter import Engine, meter

provider = OpenAIProvider(openai_client=meter(AsyncOpenAI()))
model = OpenAIResponsesModel("gpt-6-luna", provider=provider)


class Parcel(BaseModel):
    """A structured answer."""

    number: str
    city: str


async def find_parcel(number: str) -> str:
    """Say where a parcel is."""
    return f"Parcel {number} is in Lyon."


async def main() -> None:
    """Ask each agent once."""
    desk = Agent(model, tools=[find_parcel])
    clerk = Agent(model, output_type=Parcel)

    @clerk.output_validator
    async def check(context: RunContext[None], parcel: Parcel) -> Parcel:
        if context.retry == 0:
            raise ModelRetry("Are you sure?")
        return parcel

    async with Engine() as engine:
        print((await desk.run("Where is parcel 7?")).output)
        print((await clerk.run("Parcel 7 is in Lyon.")).output)
        async with Agent(OpenAIChatModel("gpt-6-luna", provider=provider)).run_stream("Thank you.") as stream:
            async for text in stream.stream_text(delta=True):
                print(text, end="")
        print()
        print(engine.usage())


asyncio.run(main())
