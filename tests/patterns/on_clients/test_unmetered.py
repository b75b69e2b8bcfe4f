"""What a metered client asks for that is billed otherwise, or later: notices, and answers made in the background."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import httpx2
import pytest
from meter_support import ASKED, MeterScene
from openai import AsyncOpenAI

from runmeter import Budget, Notice, Provenance, TokenUsage, Usage, meter
from runmeter.patterns.openai_client.metering.background import background

MODEL = "gpt-6-luna"
USED = {"input_tokens": 20, "output_tokens": 30, "total_tokens": 50}


class Later:
    """A server that makes answers in the background, and takes anything else."""

    def __init__(self) -> None:
        self.done: set[str] = set()
        self.count = 0

    def client(self, **settings: Any) -> AsyncOpenAI:
        http = httpx2.AsyncClient(transport=httpx2.MockTransport(self._answer))
        client = AsyncOpenAI(base_url="https://api.openai.com/v1", api_key="sk", http_client=http, **settings)
        return meter(client)

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path.removeprefix("/v1")
        if path == "/responses":
            self.count += 1
            return httpx2.Response(200, json=self._response(f"resp_{self.count}"))
        if path.startswith("/responses/"):
            response_id = path.split("/")[2]
            if path.endswith("/cancel"):
                self.done.add(response_id)
            return httpx2.Response(200, json=self._response(response_id))
        return httpx2.Response(200, json={"data": [], "created": 1, "text": "", "id": "x"})

    def _response(self, response_id: str) -> dict[str, Any]:
        is_done = response_id in self.done
        text = {"type": "output_text", "text": "Deep.", "annotations": []}
        item = {"id": "msg", "type": "message", "role": "assistant", "status": "completed", "content": [text]}
        return {
            "id": response_id,
            "object": "response",
            "model": MODEL,
            "status": "completed" if is_done else "queued",
            "background": True,
            "output": [item] if is_done else [],
            "usage": USED if is_done else None,
        }


def ask(client: Any, **more: Any) -> Any:
    return client.responses.create(model=MODEL, input=ASKED, background=True, **more)


@pytest.mark.parametrize("where", ["in a run", "in none"])
async def test_an_answer_made_in_the_background_settles_when_it_is_retrieved(where: str) -> None:
    later = Later()
    async with MeterScene.open(budgets=[Budget(usd="1", every="day")]) as scene:
        client = later.client()

        async def pattern(messages: Any = None, context: Any = None) -> None:
            response = await ask(client, max_output_tokens=100)
            await client.responses.retrieve(response.id)
            await scene.settled()
            assert scene.of(TokenUsage) == []
            assert scene.engine.budgets()[0].reserved > 0, "until then its upper bound is held"
            later.done.add(response.id)
            for _ in range(2):  # the second says nothing new
                await client.responses.retrieve(response.id)

        await (scene.engine.run(pattern, "") if where == "in a run" else pattern())
        await client.close()
        await scene.settled()
        [end] = scene.ends
        assert (end.provenance, end.usage) == (Provenance.REPORTED, Usage(20, 30))
        assert scene.engine.budgets()[0].reserved == Decimal(0)
        assert scene.notices == ["background"]
        assert [status for _, status in scene.runs] == ["ok"]
    assert not background._waiting


async def test_one_that_is_cancelled_settles_then() -> None:
    later = Later()
    async with MeterScene.open() as scene:
        client = later.client()
        response = await ask(client)
        await client.responses.cancel(response.id)
        await client.close()
        await scene.settled()
        assert [end.provenance for end in scene.ends] == [Provenance.REPORTED]


@pytest.mark.parametrize("what_ends", ["the run", "the engine"])
async def test_one_that_nobody_retrieves_is_unknown_within_its_bound(what_ends: str) -> None:
    later = Later()
    async with MeterScene.open() as scene:
        client = later.client()

        async def pattern(messages: Any, context: Any) -> None:
            await ask(client, max_output_tokens=100)

        if what_ends == "the run":
            await scene.engine.run(pattern, "")
        else:
            await pattern("", None)
        await client.close()
    [end] = scene.ends
    assert end.provenance is Provenance.UNKNOWN
    assert end.bound is not None
    assert not background._waiting


UNMETERED: dict[str, Callable[[Any], Any]] = {
    "images": lambda client: client.images.generate(model="gpt-image-1", prompt="A sea."),
    "audio": lambda client: client.audio.speech.create(model="tts-1", voice="alloy", input="Sea."),
    "batches": lambda client: client.batches.create(
        completion_window="24h", endpoint="/v1/responses", input_file_id="file_1"
    ),
    "realtime": lambda client: client.realtime.client_secrets.create(),
    "completions": lambda client: client.completions.create(model="gpt-3.5-turbo-instruct", prompt="Sea"),
}


@pytest.mark.parametrize("where", ["in a run", "in none"])
@pytest.mark.parametrize("kind", UNMETERED)
async def test_what_is_billed_and_not_metered_gives_one_notice(kind: str, where: str) -> None:
    async with MeterScene.open() as scene:
        client = Later().client()

        async def pattern(messages: Any = None, context: Any = None) -> None:
            for _ in range(2):
                await UNMETERED[kind](client)

        await (pattern() if where == "in none" else scene.engine.run(pattern, ""))
        await client.close()
        await scene.settled()
        [notice] = scene.of(Notice)
        assert (notice.kind, notice.subject) == ("unmetered", f"{kind} at api.openai.com")
        assert [status for _, status in scene.runs] == ["ok"]
        assert scene.ends == []


async def test_what_costs_nothing_gives_none() -> None:
    async with MeterScene.open() as scene:
        client = Later().client()
        await client.models.list()
        await client.files.list()
        await client.responses.input_tokens.count(model=MODEL, input="Sea.")
        await client.moderations.create(input="Sea.")
        await client.close()
        await scene.settled()
        assert scene.events == []
