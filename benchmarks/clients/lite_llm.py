# /// script
# requires-python = ">=3.11"
# dependencies = ["litellm==1.110.2", "openai==3.57.0"]
# ///
"""LiteLLM, with a metered client: a completion, a stream and embeddings."""

import litellm
from account import check
from openai import AsyncOpenAI

ASKED = [{"role": "user", "content": "How deep is the sea?"}]


async def work(client: AsyncOpenAI) -> None:
    await litellm.acompletion(model="openai/gpt-4.1-mini", messages=ASKED, client=client)
    stream = await litellm.acompletion(model="openai/gpt-4.1-mini", messages=ASKED, client=client, stream=True)
    async for _ in stream:
        pass
    await litellm.aembedding(model="openai/text-embedding-3-small", input=["sea", "salt"], client=client)


check(work)
