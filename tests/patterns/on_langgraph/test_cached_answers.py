"""Answers that LangChain's caches give: nothing was asked for them, so that they cost nothing."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from chat_scene import ChatScene
from langchain_core.caches import InMemoryCache
from langchain_core.messages import messages_from_dict, messages_to_dict
from langchain_core.outputs import ChatGeneration, Generation

from runmeter.engine import Budget, Engine, Provenance, Usage
from runmeter.patterns import AugmentedLLMPattern, MeteringHandler, OpenAIPatternConfig


@pytest.fixture
def anyio_backend() -> str:
    """LangChain needs asyncio."""
    return "asyncio"


@pytest.fixture
async def scene() -> AsyncIterator[ChatScene]:
    async with ChatScene.open() as scene:
        yield scene


class TextCache(InMemoryCache):
    """Keeps the text alone, as semantic caches do."""

    def update(self, prompt: str, llm_string: str, return_val: Any) -> None:
        """Keep an answer's text."""
        super().update(prompt, llm_string, [Generation(text=each.text) for each in return_val])


class InfoCache(InMemoryCache):
    """Keeps the text, and beside it why the answer ended."""

    def update(self, prompt: str, llm_string: str, return_val: Any) -> None:
        """Keep an answer's text and some of its metadata."""
        kept = [Generation(text=each.text, generation_info={"finish_reason": "stop"}) for each in return_val]
        super().update(prompt, llm_string, kept)


class SerialCache(InMemoryCache):
    """Writes whole answers down, as those in databases do."""

    def update(self, prompt: str, llm_string: str, return_val: Any) -> None:
        """Keep an answer that was written and read again."""
        read = messages_from_dict(json.loads(json.dumps(messages_to_dict([each.message for each in return_val]))))
        super().update(prompt, llm_string, [ChatGeneration(message=message) for message in read])


CACHES = [InMemoryCache, TextCache, InfoCache, SerialCache]
WAYS = ["ainvoke", "abatch", "pattern"]


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("reports", [True, False])
@pytest.mark.parametrize("way", WAYS)
async def test_a_hit_costs_nothing(scene: ChatScene, cache: Any, way: str, reports: bool) -> None:
    """Also of a model that does not report what it uses, so that a fresh answer of it is estimated."""
    model = scene.model(cache=cache(), use_responses_api=False, streaming=not reports, stream_usage=reports)

    async def six_questions(messages: Any, context: Any) -> None:
        with MeteringHandler() as meter:
            for _ in range(6):
                if way == "abatch":
                    await model.abatch(["Where is it?"], {"callbacks": [meter]})
                else:
                    await model.ainvoke("Where is it?", {"callbacks": [meter]})

    async def six_runs(messages: Any, context: Any) -> None:
        async with AugmentedLLMPattern(OpenAIPatternConfig(), model=model) as pattern:
            for _ in range(6):
                assert (await pattern.execute("Where is it?")).content

    async with Engine(budgets=[Budget(usd="10")]) as engine:
        result = await engine.run(six_runs if way == "pattern" else six_questions, "")
        [status] = engine.budgets()
    assert scene.arrived == 1
    first, *hits = result.requests
    assert [(hit.usage, hit.provenance) for hit in hits] == [(Usage(), Provenance.REPORTED)] * 5
    assert first.provenance is (Provenance.REPORTED if reports else Provenance.ESTIMATED)
    assert result.cost.high is not None
    assert status.spent == result.cost.high
    alone = engine._usage.prices.cost(first)
    assert (result.cost.low, result.cost.high) == (alone.low, alone.high)


async def test_an_answer_that_says_nothing_of_itself_is_no_hit(scene: ChatScene) -> None:
    """A model that is not cached gives each answer an id."""
    from langchain_core.language_models import FakeListChatModel

    async def ask(messages: Any, context: Any) -> None:
        with MeteringHandler() as meter:
            await FakeListChatModel(responses=["Lyon."]).ainvoke("Where is it?", {"callbacks": [meter]})

    async with Engine() as engine:
        [request] = (await engine.run(ask, "")).requests
    assert request.provenance is Provenance.ESTIMATED
