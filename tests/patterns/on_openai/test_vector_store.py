"""The retriever on OpenAI's vector stores, over the real client and a server on this machine."""

import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import openai
import pytest
from openai import AsyncOpenAI
from pattern_support import KEY, Run
from scene_support import SimulatorScene

from runmeter.engine import ConfigurationError, Retrieval
from runmeter.patterns import OpenAIPatternConfig
from runmeter.patterns.errors import IngestionError
from runmeter.patterns.openai.vector_store import VectorStoreRetriever
from runmeter.patterns.retrieval.ingestion import Document
from runmeter.patterns.retrieval.retriever import search
from runmeter.simulator import Fault, Simulator

BEES = Document(source="nature/bees.md", text="Bees visit flowers to collect nectar.\n")
SEA = Document(source="nature/sea.rst", text="\n The sea is 3,688 metres deep on average.")
POST = Document(source="post", text="A parcel to Lyon takes two days.")
NATURE = (BEES, SEA, POST)


class Scene(SimulatorScene):
    """One with retrievers, and what they wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: list[float] = []

    async def wait(self, seconds: float) -> None:
        self.waited.append(seconds)

    def retriever(self, store_id: str | None = None, **options: Any) -> VectorStoreRetriever:
        return VectorStoreRetriever(self.config(), store_id, retry=self.retry(), sleep=self.wait, **options)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with Scene() as scene:
        yield scene


@pytest.fixture
def simulator(scene: Scene) -> Simulator:
    """The scene's own, for the client."""
    return scene.simulator


async def stays_in_progress(retriever: VectorStoreRetriever, times: int, then: str = "completed") -> None:
    """Have the API say that files are being indexed so many times: the simulator indexes at once."""
    files: Any = retriever._requests.clients.get().vector_stores.files
    retrieve, left = files.retrieve, times

    async def answer(*args: Any, **params: Any) -> Any:
        nonlocal left
        file = await retrieve(*args, **params)
        file.status = "in_progress" if left > 0 else then
        left -= 1
        return file

    files.retrieve = answer


async def test_documents_are_uploaded_searched_and_deleted(scene: Scene, client: AsyncOpenAI) -> None:
    retriever = scene.retriever()
    assert (retriever.name, await retriever.retrieve("Bees?", 3)) == ("vector_store", [])
    progress: list[tuple[int, int]] = []
    await retriever.add(NATURE, progress=lambda done, total: progress.append((done, total)))
    assert progress == [(1, 3), (2, 3), (3, 3)]
    store_id = retriever.vector_store_id
    assert store_id is not None
    assert retriever.name == store_id
    run = Run()
    with run():
        found = await search(retriever, "How deep is the sea?", 2)
    assert [passage.source for passage in found] == ["nature/sea.rst", found[1].source]
    assert SEA.text[found[0].start : found[0].end] == found[0].text
    [event] = run.of(Retrieval)
    assert (event.source, event.documents, event.requested, event.top_score) == (store_id, 2, 2, found[0].score)
    assert run.requests == [], "a search uses no tokens"
    store = await client.vector_stores.retrieve(store_id)
    assert store.expires_after is not None, "should nobody close it"
    file_ids = [file.id async for file in client.vector_stores.files.list(store_id)]
    assert {(await client.files.retrieve(file_id)).filename for file_id in file_ids} == {
        "bees.md",
        "sea.rst.txt",
        "post.txt",
    }
    await retriever.aclose()
    await retriever.aclose()
    with pytest.raises(openai.NotFoundError):
        await client.vector_stores.retrieve(store_id)
    for file_id in file_ids:
        with pytest.raises(openai.NotFoundError):
            await client.files.retrieve(file_id)
    assert await retriever.retrieve("Bees?", 3) == []


async def test_what_is_persistent_stays_and_can_be_searched_by_its_id(scene: Scene, client: AsyncOpenAI) -> None:
    maker = scene.retriever(persistent=True)
    await maker.add(NATURE)
    await maker.aclose()
    assert maker.vector_store_id is not None
    assert (await client.vector_stores.retrieve(maker.vector_store_id)).expires_after is None
    retriever = scene.retriever(maker.vector_store_id)
    [found] = await retriever.retrieve("How deep is the sea?", 1)
    assert (found.source, found.start, found.end) == ("nature/sea.rst", None, None), "its place is not known here"
    await retriever.aclose()
    assert scene.count("DELETE /vector_stores/{id}") == scene.count("DELETE /files/{id}") == 0


async def test_adding_to_a_store_that_is_there_deletes_only_what_was_added(scene: Scene, client: AsyncOpenAI) -> None:
    store = await client.vector_stores.create(name="mine")
    retriever = scene.retriever(store.id)
    await retriever.add([BEES])
    assert len(await retriever.retrieve("Bees?", 5)) == 1
    await retriever.aclose()
    assert (await client.vector_stores.retrieve(store.id)).file_counts.total == 0
    assert scene.count("POST /vector_stores") == 1


async def test_files_are_read(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "sea.md").write_text(SEA.text)
    (tmp_path / "empty.md").write_text(" \n")
    retriever = scene.retriever()
    await retriever.add_files([tmp_path])
    [found] = await retriever.retrieve("How deep is the sea?", 5)
    assert found.source == (tmp_path / "sea.md").as_posix()
    assert SEA.text[found.start : found.end] == found.text
    await retriever.aclose()


async def test_a_document_that_comes_again_replaces_itself(scene: Scene) -> None:
    retriever = scene.retriever()
    await retriever.add(NATURE)
    await retriever.add([Document(source=SEA.source, text="The sea is salty."), Document(source="post", text=" ")])
    found = await retriever.retrieve("How deep is the salty sea?", 9)
    assert {passage.text for passage in found} == {"The sea is salty.", BEES.text}
    await retriever.aclose()


async def test_searches_take_filters_and_a_least_score(scene: Scene) -> None:
    maker = scene.retriever(persistent=True)
    await maker.add(NATURE)
    store_id = maker.vector_store_id
    only_bees = {"type": "eq", "key": "source", "value": BEES.source}
    filtered = scene.retriever(store_id, filters=only_bees)
    assert [each.source for each in await filtered.retrieve("How deep is the sea?", 500)] == [BEES.source]
    good = scene.retriever(store_id, min_score=0.2, rewrite_query=True)
    assert [each.source for each in await good.retrieve("How deep is the sea?", 5)] == [SEA.source]
    assert await good.retrieve("Volcanoes erupt lava", 5) == []
    before = scene.count("POST /vector_stores/{id}/search")
    assert await good.retrieve(" ", 5) == []
    assert scene.count("POST /vector_stores/{id}/search") == before
    for retriever in (maker, filtered, good):
        await retriever.aclose()


async def test_a_search_is_tried_again_and_its_last_error_is_the_callers(scene: Scene) -> None:
    retriever = scene.retriever()
    await retriever.add([BEES])
    scene.simulator.inject(Fault("rate_limit"), Fault("drop"))
    run = Run()
    with run():
        assert len(await search(retriever, "Bees?", 3)) == 1
    assert run.of(Retrieval)[0].error_type is None
    scene.simulator.inject(Fault("server_error", times=3))
    with pytest.raises(openai.InternalServerError), run():
        await search(retriever, "Bees?", 3)
    failed = run.of(Retrieval)[1]
    assert (failed.error_type, failed.documents) == ("InternalServerError", 0)
    await retriever.aclose()
    gone = scene.retriever("vs_nowhere")
    with pytest.raises(openai.NotFoundError), run():
        await search(gone, "Bees?", 3)
    await gone.aclose()


async def test_uploads_are_tried_again(scene: Scene) -> None:
    retriever = scene.retriever()
    for endpoint in ("/vector_stores", "/files", "/vector_stores/{id}/files", "/vector_stores/{id}/files/{file_id}"):
        scene.simulator.inject(Fault("unavailable", endpoint=endpoint))
    await retriever.add([BEES])
    assert scene.count("POST /files") == 2
    await retriever.aclose()


async def test_indexing_is_waited_for(scene: Scene) -> None:
    retriever = scene.retriever(poll_interval=0.25)
    await stays_in_progress(retriever, 3)
    await retriever.add([BEES])
    assert scene.waited == [0.25] * 3
    await retriever.aclose()


async def test_indexing_is_not_waited_for_for_ever(scene: Scene) -> None:
    retriever = scene.retriever(poll_interval=2, indexing_timeout=7)
    await stays_in_progress(retriever, 99)
    with pytest.raises(IngestionError, match=r"has not indexed 'nature/bees\.md' in time"):
        await retriever.add([BEES])
    assert sum(scene.waited) >= 7
    await retriever.aclose()
    assert scene.count("DELETE /files/{id}") == 1, "what was uploaded is deleted all the same"


async def test_the_time_to_wait_is_for_all_together(scene: Scene) -> None:
    retriever = scene.retriever(poll_interval=1, indexing_timeout=3)
    files: Any = retriever._requests.clients.get().vector_stores.files
    retrieve = files.retrieve

    async def first_after_two_seconds(*args: Any, **params: Any) -> Any:
        file = await retrieve(*args, **params)
        is_indexed = len(scene.waited) == 2 and file.attributes == {"source": BEES.source}
        file.status = "completed" if is_indexed else "in_progress"
        return file

    files.retrieve = first_after_two_seconds
    with pytest.raises(IngestionError, match=r"has not indexed 'nature/sea\.rst' in time"):
        await retriever.add(NATURE)
    assert len(scene.waited) == 3
    await retriever.aclose()


async def test_indexing_may_be_waited_for_without_an_end(scene: Scene) -> None:
    retriever = scene.retriever(indexing_timeout=math.inf)
    await stays_in_progress(retriever, 20)
    await retriever.add([BEES])
    assert len(scene.waited) == 20
    await retriever.aclose()


async def test_indexing_may_fail(scene: Scene) -> None:
    retriever = scene.retriever()
    await stays_in_progress(retriever, 1, then="failed")
    with pytest.raises(IngestionError, match=r"could not index 'nature/bees\.md': its status is 'failed'"):
        await retriever.add([BEES])
    await retriever.aclose()


async def test_additions_at_once_make_one_store(scene: Scene) -> None:
    retriever = scene.retriever()
    async with anyio.create_task_group() as tasks:
        for document in NATURE:
            tasks.start_soon(retriever.add, [document])
    assert scene.count("POST /vector_stores") == 1
    assert len(await retriever.retrieve("What is there?", 9)) == 3
    await retriever.aclose()


async def test_adding_that_is_cancelled_leaves_nothing_behind(scene: Scene) -> None:
    retriever = scene.retriever()
    await stays_in_progress(retriever, 99)
    with anyio.CancelScope() as scope:

        async def cancel(_: float) -> None:
            scope.cancel()
            await anyio.lowlevel.checkpoint()

        retriever._sleep = cancel
        try:
            await retriever.add(NATURE)
        finally:
            await retriever.aclose()  # shielded from the cancellation
    assert scope.cancelled_caught
    assert scene.count("DELETE /vector_stores/{id}") == 1
    assert scene.count("DELETE /files/{id}") == 3


async def test_deleting_goes_on_after_an_error_and_can_be_tried_again(scene: Scene, client: AsyncOpenAI) -> None:
    retriever = scene.retriever()
    await retriever.add(NATURE)
    store_id = retriever.vector_store_id
    scene.simulator.inject(Fault("insufficient_quota", endpoint="/vector_stores/{id}"))
    with pytest.raises(openai.RateLimitError):
        await retriever.aclose()
    assert scene.count("DELETE /files/{id}") == 3, "the files are gone"
    assert retriever.vector_store_id == store_id
    await client.vector_stores.delete(str(store_id))
    await retriever.aclose()
    assert retriever.vector_store_id is None, "what somebody else has deleted is deleted"


@pytest.mark.parametrize("documents", ["bees", ["bees.md"], [BEES, 5], None])
async def test_what_is_no_document_is_named(documents: Any) -> None:
    retriever = VectorStoreRetriever(OpenAIPatternConfig(api_key=KEY))
    with pytest.raises(ConfigurationError, match="expected Documents, got"):
        await retriever.add(documents)


def test_waiting_needs_an_interval() -> None:
    with pytest.raises(ConfigurationError, match="poll_interval must be positive"):
        VectorStoreRetriever(OpenAIPatternConfig(), poll_interval=0)
