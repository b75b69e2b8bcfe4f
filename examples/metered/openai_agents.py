# /// script
# requires-python = ">=3.11"
# dependencies = ["runmeter", "openai-agents==0.24.0", "openai==3.57.0"]
#
# [tool.uv.sources]
# runmeter = { path = "../..", editable = true }
# ///
"""OpenAI Agents SDK: agents with a tool, a structured answer, a stream of the other API, and retries of the SDK."""

import asyncio

from agents import (
    Agent,
    ModelRetrySettings,
    ModelSettings,
    OpenAIChatCompletionsModel,
    Runner,
    function_tool,
    retry_policies,
    set_default_openai_client,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel

from runmeter import Engine, meter

set_tracing_disabled(True)

client = meter(AsyncOpenAI())
set_default_openai_client(client)


class Parcel(BaseModel):
    """A structured answer."""

    number: str
    city: str


@function_tool
def find_parcel(number: str) -> str:
    """Say where a parcel is."""
    return f"Parcel {number} is in Lyon."


async def main() -> None:
    """Ask each agent once."""
    again = ModelSettings(retry=ModelRetrySettings(max_retries=1, policy=retry_policies.http_status([429])))
    desk = Agent(name="desk", model="gpt-6-luna", tools=[find_parcel], model_settings=again)
    clerk = Agent(name="clerk", model="gpt-6-luna", output_type=Parcel)
    other = Agent(name="other", model=OpenAIChatCompletionsModel("gpt-6-luna", client), output_type=Parcel)
    async with Engine() as engine:
        print((await Runner.run(desk, "Where is parcel 7?")).final_output)
        print((await Runner.run(clerk, "Parcel 7 is in Lyon.")).final_output)
        async for event in Runner.run_streamed(other, "Parcel 8 is in Metz.").stream_events():
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
                print(event.data.delta, end="")
        print()
        print(engine.usage())


asyncio.run(main())
