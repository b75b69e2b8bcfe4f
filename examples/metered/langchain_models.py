# /// script
# requires-python = ">=3.11"
# dependencies = ["runmeter", "langchain-openai==1.7.4", "openai==3.57.0"]
#
# [tool.uv.sources]
# runmeter = { path = "../..", editable = true }
# ///
"""LangChain: a chat model with a tool, a structured answer, a stream and LangChain's own retries, and embeddings."""

import asyncio

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from openai import AsyncOpenAI
from pydantic import BaseModel

from runmeter import Engine, meter

model = ChatOpenAI(model="gpt-6-luna")
meter(model.root_async_client)

client = meter(AsyncOpenAI(max_retries=5))
patient = ChatOpenAI(model="gpt-6-luna", root_async_client=client, async_client=client.chat.completions)
embeddings = OpenAIEmbeddings(model="text-embedding-3-small", async_client=client.embeddings)
embeddings.check_embedding_ctx_length = False  # or LangChain downloads a vocabulary to count with


class Parcel(BaseModel):
    """A structured answer."""

    number: str
    city: str


@tool
def find_parcel(number: str) -> str:
    """Say where a parcel is."""
    return f"Parcel {number} is in Lyon."


async def main() -> None:
    """Ask the model for each of them once."""
    desk = model.bind_tools([find_parcel]).with_retry(stop_after_attempt=2, wait_exponential_jitter=False)
    async with Engine() as engine:
        print((await desk.ainvoke("Where is parcel 7?")).tool_calls)
        print(await patient.with_structured_output(Parcel).ainvoke("Parcel 7 is in Lyon."))
        async for chunk in model.astream("Thank you."):
            print(chunk.text, end="")
        print()
        print(len(await embeddings.aembed_documents(["Parcel 7", "Lyon"])), "vectors")
        print(engine.usage())


asyncio.run(main())
