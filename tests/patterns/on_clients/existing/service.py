"""A FastAPI service with a background job, as it was before Runmeter."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import BackgroundTasks, FastAPI
from fastapi.testclient import TestClient
from openai import AsyncOpenAI

client = AsyncOpenAI()
summaries: list[str] = []


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with client:
        yield


app = FastAPI(lifespan=lifespan)


async def summarize(text: str) -> None:
    answer = await client.responses.create(model="gpt-6-luna", input=f"In a word: {text}")
    summaries.append(answer.output_text)


@app.post("/answer")
async def answer(question: str, tenant: str, jobs: BackgroundTasks) -> str:
    answer = await client.responses.create(model="gpt-6-luna", input=question)
    jobs.add_task(summarize, answer.output_text)
    return answer.output_text


with TestClient(app) as browser:
    for tenant in ("acme", "umbrella"):
        print(browser.post("/answer", params={"question": "How deep is the sea?", "tenant": tenant}).json())
print(summaries)
