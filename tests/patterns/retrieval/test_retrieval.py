"""Retrieval: whatever finds passages, made into one kind of thing, and metered."""

import functools
import threading
from collections.abc import Iterator, Sequence
from typing import Any, cast

import anyio
import msgspec
import numpy as np
import pytest
from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pattern_support import Run

from runmeter.engine import ConfigurationError, Retrieval
from runmeter.patterns.retrieval.retriever import Passage, as_retriever, search

SEA = Passage(text="The sea is deep.", source="sea.md", score=0.25)
BEES = Passage(text="Bees visit flowers.", source="bees.md", start=10, end=29, score=0.75)
PINE = Passage(text="A pine is a tree.")


class Shelf:
    """A retriever of one's own."""

    name = "shelf"

    def __init__(self, *passages: Passage) -> None:
        self.passages = passages
        self.asked: list[tuple[str, int]] = []

    async def retrieve(self, query: str, limit: int) -> Sequence[Passage]:
        self.asked.append((query, limit))
        return self.passages


async def found_by(retriever: Any, limit: int = 9) -> tuple[Passage, ...]:
    return await search(as_retriever(retriever), "tree?", limit)


async def test_a_search_is_an_event() -> None:
    run = Run()
    shelf = Shelf(SEA, BEES, PINE)
    with run():
        assert await search(as_retriever(shelf), "tree?", 3) == (SEA, BEES, PINE)
    assert shelf.asked == [("tree?", 3)]
    [event] = run.of(Retrieval)
    assert (event.source, event.requested, event.documents, event.top_score) == ("shelf", 3, 3, 0.75)
    assert event.error_type is None
    assert "tree?" not in repr(run.events)
    assert "deep" not in repr(run.events), "what passages say is content, which events do not have"


async def test_no_more_come_than_were_asked_for() -> None:
    run = Run()
    with run():
        assert await found_by(Shelf(SEA, BEES, PINE), limit=2) == (SEA, BEES)
        assert await found_by(Finds(["a", "b", "c"]), limit=2) == (Passage(text="a"), Passage(text="b"))
    assert [event.documents for event in run.of(Retrieval)] == [2, 2]


async def test_nothing_may_be_found() -> None:
    run = Run()
    with run():
        assert await found_by(Shelf()) == ()
        assert await found_by(Shelf(PINE)) == (PINE,)
    assert [(event.documents, event.top_score) for event in run.of(Retrieval)] == [(0, None), (1, None)]


async def test_a_low_score_is_left_out_and_none_is_not() -> None:
    run = Run()
    with run():
        shelf = as_retriever(Shelf(SEA, BEES, PINE))
        assert await search(shelf, "x", 9, min_score=0.5) == (BEES, PINE)
        assert await search(shelf, "x", 9, min_score=0.25) == (SEA, BEES, PINE)
    assert [event.documents for event in run.of(Retrieval)] == [2, 3]


async def test_an_error_ends_the_search_and_the_event_has_it() -> None:
    def broken(query: str) -> list[str]:
        raise LookupError("the index is gone")

    run = Run()
    with pytest.raises(LookupError), run():
        await found_by(broken)
    [event] = run.of(Retrieval)
    assert (event.error_type, event.error_message, event.documents) == ("LookupError", "the index is gone", 0)


async def test_a_search_may_be_cancelled() -> None:
    async def slow(query: str) -> list[str]:
        await anyio.sleep_forever()
        raise AssertionError

    run = Run()
    with run(), anyio.move_on_after(0):
        await found_by(slow)
    [event] = run.of(Retrieval)
    assert event.error_type


async def test_so_may_one_in_a_thread() -> None:
    begun, release = threading.Event(), threading.Event()

    def stuck(query: str) -> list[str]:
        begun.set()
        release.wait()
        return []

    run = Run()
    try:
        with run():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(found_by, stuck)
                await anyio.to_thread.run_sync(begun.wait)
                tasks.cancel_scope.cancel()
    finally:
        release.set()
    assert len(run.of(Retrieval)) == 1


def sync_function(query: str) -> list[Passage]:
    assert threading.current_thread() is not threading.main_thread()
    return [PINE]


async def async_function(query: str) -> list[Passage]:
    return [PINE]


def returns_awaitable(query: str) -> Any:
    return async_function(query)


class Callable:
    async def __call__(self, query: str) -> list[Passage]:
        return [PINE]


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (sync_function, "sync_function"),
        (async_function, "async_function"),
        (returns_awaitable, "returns_awaitable"),
        (functools.partial(async_function), "partial"),
        (Callable(), "Callable"),
    ],
)
async def test_a_function_is_a_retriever(function: Any, name: str) -> None:
    assert as_retriever(function).name == name
    assert await found_by(function) == (PINE,)


class Finds:
    """A function that finds what it is told to."""

    def __init__(self, found: Any) -> None:
        self.found = found

    def __call__(self, query: str) -> Any:
        return self.found


async def test_what_it_finds_may_come_one_by_one() -> None:
    def generate(query: str) -> Iterator[str]:
        assert threading.current_thread() is not threading.main_thread()
        yield from (query, "two")

    assert await found_by(generate) == (Passage(text="tree?"), Passage(text="two"))


@pytest.mark.parametrize(
    ("found", "passages"),
    [
        ([BEES], (BEES,)),
        (["one", "two"], (Passage(text="one"), Passage(text="two"))),
        (("one",), (Passage(text="one"),)),
        ([{"text": "one", "source": "a", "score": 1}], (Passage(text="one", source="a", score=1.0),)),
        ([{"text": "one", "page": 3}], (Passage(text="one"),)),
        ([Document("one", metadata={"source": "a.md"})], (Passage(text="one", source="a.md"),)),
        ([Document("one", metadata={"source": None})], (Passage(text="one"),)),
        ("one text", (Passage(text="one text"),)),
        ({"text": "one"}, (Passage(text="one"),)),
        (PINE, (PINE,)),
        ([], ()),
        (None, ()),
        ([Passage(text="one", score=cast("float", np.float32(0.5)))], (Passage(text="one", score=0.5),)),
    ],
)
async def test_what_a_function_finds_becomes_passages(found: Any, passages: tuple[Passage, ...]) -> None:
    assert await found_by(Finds(found)) == passages
    if not isinstance(found, str | dict | Passage):
        assert await found_by(Shelf(*(found or ()))) == passages, "in a retriever of one's own just as well"
    assert msgspec.json.encode(await found_by(Finds(found)))


@pytest.mark.parametrize(
    ("found", "complaint"),
    [
        ([3], "a retriever gave a 'int': give passages, strings, dicts or documents"),
        ([{"content": "one"}], "a retriever's dict is not a passage: .*`text`"),
        ([{"text": "one", "score": "high"}], r"a retriever's dict is not a passage: .*\$\.score"),
        (3, "a retriever gave a 'int'"),
        ([Passage(text=None)], "text or source that is not a string"),  # type: ignore[arg-type] # a mistake
        ([Passage(text="a", score="high")], "a score that is not a number"),  # type: ignore[arg-type] # a mistake
    ],
)
async def test_what_is_no_passage_is_named(found: Any, complaint: str) -> None:
    run = Run()
    with pytest.raises(ConfigurationError, match=complaint), run():
        await found_by(Finds(found))
    assert [event.error_type for event in run.of(Retrieval)] == ["ConfigurationError"]


@pytest.mark.parametrize(
    "retriever",
    [
        Finds(["\ud800"]),
        Finds([{"text": "\ud800"}]),
        Finds([Document("\ud800")]),
        Shelf(Passage(text="\ud800", source="\ud800")),
    ],
)
async def test_text_that_cannot_be_sent_is_cleaned(retriever: Any) -> None:
    [passage] = await found_by(retriever)
    assert passage.text == "?"
    assert msgspec.json.encode(passage)


class SyncRetriever(BaseRetriever):
    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        assert threading.current_thread() is not threading.main_thread()
        return [Document(f"About {query}", metadata={"source": "sync"})]


class AsyncRetriever(SyncRetriever):
    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun
    ) -> list[Document]:
        return [Document(f"About {query}", metadata={"source": "async"})]


async def test_so_is_one_of_langchains() -> None:
    run = Run()
    with run():
        assert await found_by(SyncRetriever()) == (Passage(text="About tree?", source="sync"),)
        assert await found_by(SyncRetriever(name="library")) == (Passage(text="About tree?", source="sync"),)
    assert [event.source for event in run.of(Retrieval)] == ["SyncRetriever", "library"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # which LangChain's own async code needs
async def test_an_async_one_of_langchains_runs_in_the_loop() -> None:
    assert await found_by(AsyncRetriever()) == (Passage(text="About tree?", source="async"),)


async def test_a_retriever_that_is_not_async_is_named() -> None:
    class SyncShelf:
        name = "shelf"

        def retrieve(self, query: str, limit: int) -> Sequence[Passage]:
            return []

    with pytest.raises(ConfigurationError, match=r"SyncShelf\.retrieve is not async"):
        await found_by(SyncShelf())


def test_a_retriever_stays_what_it_is() -> None:
    shelf = Shelf()
    assert as_retriever(shelf) is shelf


@pytest.mark.parametrize("thing", [None, "library", 3, Shelf, ["one"], SEA])
def test_what_is_no_retriever_is_refused(thing: Any) -> None:
    with pytest.raises(ConfigurationError, match="is not a retriever: give an object with `name` and"):
        as_retriever(thing)
