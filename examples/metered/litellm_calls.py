# /// script
# requires-python = ">=3.11"
# dependencies = ["runmeter", "litellm==1.110.2", "openai==3.57.0"]
#
# [tool.uv.sources]
# runmeter = { path = "../..", editable = true }
# ///
"""LiteLLM: a call with a tool, a structured answer, a stream and embeddings, and LiteLLM's own retries."""

import asyncio
from typing import Any

from litellm import acompletion, aembedding
from openai import AsyncOpenAI
from pydantic import BaseModel

from runmeter import Engine, meter

client = meter(AsyncOpenAI())


async def ask(question: str, **options: Any) -> Any:
    """Ask the model."""
    messages = [{"role": "user", "content": question}]
    return await acompletion("openai/gpt-6-luna", messages, client=client, **options)


NUMBER = {"type": "object", "properties": {"number": {"type": "string"}}, "required": ["number"]}
FIND_PARCEL = {"type": "function", "function": {"name": "find_parcel", "parameters": NUMBER}}


class Parcel(BaseModel):
    """A structured answer."""

    number: str
    city: str


async def main() -> None:
    """Ask for each of them once."""
    tools = {"tools": [FIND_PARCEL], "reasoning_effort": "none"}
    async with Engine() as engine:
        answer = await ask("Where is parcel 7?", num_retries=2, **tools)
        print(answer.choices[0].message.tool_calls[0].function)
        answer = await ask("Parcel 7 is in Lyon.", response_format=Parcel)
        print(answer.choices[0].message.content)
        async for chunk in await ask("Thank you.", stream=True):
            print(chunk.choices[0].delta.content or "", end="")
        print()
        answer = await aembedding("openai/text-embedding-3-small", ["Lyon"], client=client)
        print(len(answer.data), "vector")
        print(engine.usage())


asyncio.run(main())
