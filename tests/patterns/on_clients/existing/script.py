"""A script with three calls, as it was before Runmeter."""

import asyncio

from openai import AsyncOpenAI
from pydantic import BaseModel


class Depth(BaseModel):
    """A structured answer."""

    metres: int


async def main() -> None:
    async with AsyncOpenAI() as client:
        answer = await client.responses.create(model="gpt-6-luna", input="How deep is the sea?")
        print(answer.output_text)
        parsed = await client.responses.parse(model="gpt-6-luna", input="11000 metres.", text_format=Depth)
        print(parsed.output_parsed)
        stream = await client.chat.completions.create(
            model="gpt-6-luna", messages=[{"role": "user", "content": "Thank you."}], stream=True
        )
        async for chunk in stream:
            print(chunk.choices[0].delta.content or "", end="")
        print()


asyncio.run(main())
