# /// script
# requires-python = ">=3.11"
# dependencies = ["openai-agents==0.24.0", "openai==3.57.0"]
# ///
"""OpenAI Agents SDK, with a metered client: a tool, over both APIs, streamed and not."""

from account import check
from agents import Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled
from openai import AsyncOpenAI

set_tracing_disabled(True)


@function_tool
def find_parcel(number: str) -> str:
    """Find a parcel."""
    return f"Parcel {number} is in Lyon."


async def work(client: AsyncOpenAI) -> None:
    for kind in (OpenAIResponsesModel, OpenAIChatCompletionsModel):
        model = kind(model="gpt-4.1-mini", openai_client=client)
        agent = Agent(name="support", instructions="Help.", tools=[find_parcel], model=model)
        await Runner.run(agent, "Where is my parcel 7?")
        streamed = Runner.run_streamed(agent, "Where is my parcel 7?")
        async for _ in streamed.stream_events():
            pass


check(work)
