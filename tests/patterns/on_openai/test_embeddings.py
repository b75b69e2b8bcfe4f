"""Metered embedding requests and the retriever on them, over the real client and a server on this machine."""

import contextlib
import io
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import CreateEmbeddingResponse
from pattern_support import KEY, Run
from scene_support import SimulatorScene

from runmeter.engine import ConfigurationError, ModelCallStarted, Provenance, Retrieval, Tokenizer, Usage
from runmeter.patterns import OpenAIPatternConfig, ResponseFailed, RetryPolicy
from runmeter.patterns.errors import IngestionError
from runmeter.patterns.openai.embeddings import EmbeddingRetriever, MeteredEmbeddings, batches
from runmeter.patterns.openai.responses.requests import Requests
from runmeter.patterns.retrieval.index import PassageIndex
from runmeter.patterns.retrieval.ingestion import Chunking, Document
from runmeter.patterns.retrieval.retriever import search
from runmeter.simulator import Fault, Simulator

MODEL = "text-embedding-3-small"
BEES = Document(source="bees.md", text="Bees visit flowers to collect nectar.")
SEA = Document(source="sea.md", text="The sea is 3,688 metres deep on average.")
POST = Document(source="post.md", text="A parcel to Lyon takes two days.")


class Scene(SimulatorScene):
    """One with retrievers."""

    def __init__(self) -> None:
        super().__init__()
        self.retrievers: list[EmbeddingRetriever] = []

    def retriever(self, *files: Path, **options: Any) -> EmbeddingRetriever:
        retriever = EmbeddingRetriever(self.config(), files, retry=self.retry(), **options)
        self.retrievers.append(retriever)
        return retriever

    def hang(self, retriever: EmbeddingRetriever, nth: int, then: Callable[[], object]) -> None:
        """Have a retriever's nth request never be answered; when it has left, something is done."""
        client: Any = retriever._requests.clients.get()
        create, left = client.embeddings.create, nth

        async def ask(**params: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                then()
                await anyio.sleep_forever()
            return await create(**params)

        client.embeddings.create = ask


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with Scene() as scene:
        yield scene
        for retriever in scene.retrievers:
            await retriever.aclose()


async def test_what_fits_best_comes_first(scene: Scene) -> None:
    run = Run()
    retriever = scene.retriever()
    with run():
        await retriever.add([BEES, SEA, POST])
        found = await search(retriever, "How deep is the sea?", 2)
    assert [passage.source for passage in found] == ["sea.md", found[1].source]
    assert found[0].text == SEA.text[found[0].start : found[0].end]
    assert found[0].score is not None
    assert found[1].score is not None
    assert 1 > found[0].score > 0.4 > found[1].score
    [retrieval] = run.of(Retrieval)
    assert (retrieval.source, retrieval.documents, retrieval.requested) == ("local", 2, 2)
    assert retrieval.top_score == found[0].score
    assert run.reported == scene.simulator.statistics().total


async def test_a_passage_is_nearest_to_itself(scene: Scene) -> None:
    retriever = scene.retriever()
    await retriever.add([BEES, SEA, POST])
    for document in (BEES, SEA, POST):
        [found] = await retriever.retrieve(document.text, 1)
        assert found.source == document.source
        assert found.score == pytest.approx(1)


async def test_each_request_is_a_metered_model_call(scene: Scene) -> None:
    scene.simulator.inject(Fault("rate_limit"), Fault("server_error"))
    run = Run()
    with run():
        await scene.retriever().add([BEES])
    assert [(each.attempt, each.error_type, each.provenance) for each in run.requests] == [
        (1, "rate_limit_exceeded", Provenance.REPORTED),
        (2, "InternalServerError", Provenance.UNKNOWN),
        (3, None, Provenance.REPORTED),
    ]
    started = run.of(ModelCallStarted)[-1]
    assert (started.operation, started.model, started.provider) == ("embeddings", MODEL, "openai")
    assert (started.server_address, started.api) == ("127.0.0.1", None)
    assert run.requests[-1].usage == Usage(input_tokens=len(Tokenizer(MODEL).encode(BEES.text)))
    assert run.requests[-1].response_model == MODEL
    assert run.reported == scene.simulator.statistics().total


@pytest.mark.parametrize(
    ("fault", "error", "provenance"),
    [
        ("insufficient_quota", openai.RateLimitError, Provenance.REPORTED),
        ("unavailable", openai.InternalServerError, Provenance.UNKNOWN),
        ("drop", openai.APIConnectionError, Provenance.UNKNOWN),
    ],
)
async def test_errors_for_good_are_the_callers(
    scene: Scene, fault: Any, error: type[Exception], provenance: Provenance
) -> None:
    retriever = scene.retriever()
    scene.simulator.inject(Fault(fault, times=3))
    run = Run()
    with pytest.raises(error), run():
        await retriever.add([BEES])
    assert {request.provenance for request in run.requests} == {provenance}
    assert retriever.passages == ()


async def test_an_answer_that_does_not_come_in_time(scene: Scene) -> None:
    scene.simulator.inject(Fault("latency", seconds=3600))
    retriever = scene.retriever()
    requests = Requests(retriever._requests.clients, RetryPolicy(max_retries=0), 0.05)
    run = Run()
    with pytest.raises(ResponseFailed) as raised, run():
        await MeteredEmbeddings(requests).embed(["Hello."])
    assert raised.value.code == "request_timeout"
    assert [request.provenance for request in run.requests] == [Provenance.UNKNOWN]


async def test_clients_that_are_closed_meanwhile_are_made_anew(scene: Scene) -> None:
    retriever = scene.retriever()
    client: Any = retriever._requests.clients.get()
    create = client.embeddings.create

    async def close_first(**params: Any) -> Any:
        await retriever.aclose()
        return await create(**params)

    client.embeddings.create = close_first
    run = Run()
    with run():
        await retriever.add([BEES])
    assert [(each.error_type, each.provenance) for each in run.requests] == [
        ("client_closed", Provenance.REPORTED),
        (None, Provenance.REPORTED),
    ]
    assert run.reported == scene.simulator.statistics().total


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        [{"index": 0, "embedding": None}],
        [{"index": 0, "embedding": []}],
        [{"index": 0, "embedding": [float("nan")]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [1.0]}],
    ],
)
async def test_an_answer_without_the_vectors_is_an_error_and_billed_all_the_same(scene: Scene, data: Any) -> None:
    retriever = scene.retriever()
    client: Any = retriever._requests.clients.get()

    async def answer(**_: Any) -> CreateEmbeddingResponse:
        embeddings = None if data is None else [openai.types.Embedding.construct(**each) for each in data]
        usage = {"prompt_tokens": 3, "total_tokens": 3}
        return CreateEmbeddingResponse.construct(data=embeddings, model=MODEL, usage=usage)

    client.embeddings.create = answer
    run = Run()
    with pytest.raises(ResponseFailed) as raised, run():
        await retriever.add([BEES])
    assert raised.value.code == "invalid_response"
    assert [request.error_type for request in run.requests] == ["invalid_response"]
    assert run.reported == Usage(input_tokens=3)


@pytest.mark.parametrize(
    "usage", [{"total_tokens": 7}, {"prompt_tokens": None, "total_tokens": 7}, {"prompt_tokens": 7}]
)
async def test_either_total_is_the_usage(scene: Scene, usage: dict[str, Any]) -> None:
    retriever = scene.retriever()
    client: Any = retriever._requests.clients.get()
    create = client.embeddings.create

    async def with_usage(**params: Any) -> Any:
        answer = await create(**params)
        answer.usage = type(answer.usage).construct(**usage)
        return answer

    client.embeddings.create = with_usage
    run = Run()
    with run():
        await retriever.add([BEES])
    assert run.reported == Usage(7)


@pytest.mark.parametrize("counting", [True, False])
async def test_usage_that_is_not_reported_is_estimated_or_unknown(scene: Scene, counting: bool) -> None:
    config = OpenAIPatternConfig(base_url=scene.simulator.url, api_key=KEY, enable_token_counting=counting)
    retriever = EmbeddingRetriever(config)
    scene.retrievers.append(retriever)
    client: Any = retriever._requests.clients.get()
    create = client.embeddings.create

    async def without_usage(**params: Any) -> Any:
        answer = await create(**params)
        answer.usage = None
        return answer

    client.embeddings.create = without_usage
    run = Run()
    with run():
        await retriever.add([BEES, SEA])
    [request] = run.requests
    if counting:
        assert (request.provenance, request.usage) == (Provenance.ESTIMATED, scene.simulator.statistics().total)
    else:
        assert (request.provenance, request.usage) == (Provenance.UNKNOWN, None)


async def test_equal_texts_are_embedded_once_and_all_found(scene: Scene) -> None:
    retriever = scene.retriever()
    copies = [Document(source=f"copy{n}.md", text=BEES.text) for n in range(3)]
    progress: list[tuple[int, int]] = []
    await retriever.add([BEES, *copies], progress=lambda done, total: progress.append((done, total)))
    await retriever.add([Document(source="later.md", text=BEES.text)])
    assert progress == [(1, 1)]
    assert scene.count("POST /embeddings") == 1
    found = await retriever.retrieve(BEES.text, 10)
    assert [passage.source for passage in found] == ["bees.md", "copy0.md", "copy1.md", "copy2.md", "later.md"]


async def test_a_document_that_comes_again_replaces_itself(scene: Scene) -> None:
    retriever = scene.retriever()
    await retriever.add([BEES, SEA])
    await retriever.add([Document(source="sea.md", text="The sea is salty.")])
    assert [passage.text for passage in retriever.passages] == [BEES.text, "The sea is salty."]
    await retriever.add([Document(source="bees.md", text=""), Document(source="sea.md", text=" ")])
    assert await retriever.retrieve("Bees?", 3) == []


async def test_much_is_sent_in_batches_and_progress_reported(scene: Scene) -> None:
    text = " ".join(f"Parcel {n} weighs {n} kilograms and goes to town {n}." for n in range(300))
    progress: list[tuple[int, int]] = []
    retriever = scene.retriever(chunking=Chunking(tokens=16, overlap=0))
    run = Run()
    with run():
        await retriever.add(
            [Document(source="list.md", text=text)], progress=lambda done, total: progress.append((done, total))
        )
    total = len(retriever.passages)
    assert progress == [(min(done, total), total) for done in range(100, total + 100, 100)]
    assert len(run.requests) == scene.count("POST /embeddings") == len(progress) > 2
    assert run.reported == scene.simulator.statistics().total
    [found] = await retriever.retrieve("Which town does parcel 217 go to, parcel 217?", 1)
    assert "217" in found.text


@given(st.lists(st.text(min_size=1, max_size=50), max_size=30), st.integers(1, 12))
def test_batches_hold_all_texts_in_order(texts: list[str], times: int) -> None:
    texts = [text * 4_000 for text in texts] * times
    made = list(batches(texts))
    assert [text for batch in made for text in batch] == texts
    assert all(batch and len(batch) <= 100 for batch in made)
    assert all(len(batch) == 1 or sum(len(text.encode()) for text in batch) <= 300_000 for batch in made)


async def test_a_least_score(scene: Scene) -> None:
    retriever = scene.retriever(min_score=0.3)
    await retriever.add([BEES, SEA, POST])
    assert [passage.source for passage in await retriever.retrieve("How deep is the sea?", 3)] == ["sea.md"]
    assert await retriever.retrieve("Volcanoes erupt lava", 3) == []


@pytest.mark.parametrize("query", ["", "  ", "\n"])
async def test_nothing_is_asked_for_nothing(scene: Scene, query: str) -> None:
    retriever = scene.retriever()
    assert await retriever.retrieve("Anything?", 3) == [], "nor where there is nothing to find"
    await retriever.add([BEES])
    assert await retriever.retrieve(query, 3) == []
    assert scene.count("POST /embeddings") == 1


async def test_a_query_may_be_long_or_no_valid_text(scene: Scene) -> None:
    retriever = scene.retriever()
    await retriever.add([BEES, SEA])
    [found] = await retriever.retrieve("How deep is the sea? \ud800" + "数 " * 20_000, 1)
    assert found.source == "sea.md"


async def test_fewer_dimensions(scene: Scene) -> None:
    retriever = scene.retriever(dimensions=64)
    await retriever.add([BEES])
    vectors = retriever._index.vectors
    assert vectors is not None
    assert vectors.shape == (1, 64)


async def test_files_are_read_on_first_use_once_for_many_at_once(scene: Scene, tmp_path: Path) -> None:
    for document in (BEES, SEA, POST):
        (tmp_path / document.source).write_text(document.text)
    retriever = scene.retriever(tmp_path)
    found: list[str] = []

    async def ask() -> None:
        [passage] = await retriever.retrieve("How deep is the sea?", 1)
        found.append(passage.source)

    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(ask)
    assert found == [(tmp_path / "sea.md").as_posix()] * 10
    assert scene.count("POST /embeddings") == 1 + 10


async def test_a_first_use_that_failed_can_be_tried_again(scene: Scene, tmp_path: Path) -> None:
    retriever = scene.retriever(tmp_path)
    with pytest.raises(IngestionError):
        await retriever.retrieve("Bees?", 1)
    (tmp_path / "bees.md").write_text(BEES.text)
    scene.simulator.inject(Fault("insufficient_quota"))
    with pytest.raises(openai.RateLimitError):
        await retriever.prepare()
    assert [passage.text for passage in await retriever.retrieve("Bees?", 1)] == [BEES.text]


async def test_a_first_use_that_is_cancelled_is_taken_over_by_who_waits(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "bees.md").write_text(BEES.text)
    retriever = scene.retriever(tmp_path)
    has_left = anyio.Event()
    scene.hang(retriever, 1, has_left.set)
    found: list[str] = []

    async def wait() -> None:
        found.extend(passage.text for passage in await retriever.retrieve("Bees?", 1))

    async with anyio.create_task_group() as tasks, anyio.create_task_group() as given_up:
        given_up.start_soon(retriever.retrieve, "Bees?", 1)
        await has_left.wait()
        tasks.start_soon(wait)
        given_up.cancel_scope.cancel()
    assert found == [BEES.text]
    assert scene.count("POST /embeddings") == 2


async def test_adding_that_is_cancelled_goes_on_where_it_was(scene: Scene) -> None:
    text = " ".join(f"Parcel {n} weighs {n} kilograms and goes to town {n}." for n in range(250))
    document = Document(source="list.md", text=text)
    retriever = scene.retriever(chunking=Chunking(tokens=16, overlap=0))
    run = Run()
    with anyio.CancelScope() as scope, run():
        scene.hang(retriever, 3, scope.cancel)
        await retriever.add([document])
    assert scope.cancelled_caught
    assert [request.provenance for request in run.requests] == [Provenance.REPORTED] * 2 + [Provenance.UNKNOWN]
    assert retriever.passages == (), "all or nothing"
    progress: list[tuple[int, int]] = []
    with run():
        await retriever.add([document], progress=lambda done, total: progress.append((done, total)))
    total = len(retriever.passages)
    assert progress[-1] == (total - 200, total - 200), "what was embedded is not embedded again"
    assert run.reported == scene.simulator.statistics().total


async def test_an_index_is_kept_in_a_file(scene: Scene, tmp_path: Path) -> None:
    retriever, again = scene.retriever(), scene.retriever(tmp_path / "not-there.md")
    await retriever.add([BEES, SEA, Document(source="copy.md", text=BEES.text)])
    await retriever.save(tmp_path / "index.npz")
    await again.load(tmp_path / "index.npz")
    before, after = [await each.retrieve("How deep is the sea?", 9) for each in (retriever, again)]
    assert after == before
    assert os.listdir(tmp_path) == ["index.npz"]
    with pytest.raises(ConfigurationError, match="is an index made with 'text-embedding-3-small', not"):
        await scene.retriever(model="text-embedding-3-large").load(tmp_path / "index.npz")
    with pytest.raises(FileNotFoundError):
        await again.load(tmp_path / "nowhere.npz")
    whole = (tmp_path / "index.npz").read_bytes()
    one_array = io.BytesIO()
    np.save(one_array, np.zeros(3))
    for wrong in (b"", b"PK something else", whole[: len(whole) // 2], one_array.getvalue()):
        (tmp_path / "index.npz").write_bytes(wrong)
        with pytest.raises(ConfigurationError, match="holds no index"):
            await again.load(tmp_path / "index.npz")
    await scene.retriever().save(tmp_path / "empty.npz")
    await again.load(tmp_path / "empty.npz")
    assert await again.retrieve("Bees?", 1) == []


async def test_saving_twice_at_once_leaves_one_whole_file(scene: Scene, tmp_path: Path) -> None:
    retriever = scene.retriever()
    await retriever.add([BEES, SEA])
    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(retriever.save, tmp_path / "index.npz")
    assert os.listdir(tmp_path) == ["index.npz"]
    await retriever.load(tmp_path / "index.npz")
    assert len(retriever.passages) == 2


async def test_sources_that_cannot_be_written_are_kept_in_a_file_all_the_same(scene: Scene, tmp_path: Path) -> None:
    retriever = scene.retriever()
    await retriever.add([Document(source="\ud800.md", text=BEES.text)])
    await retriever.save(tmp_path / "index.npz")
    assert [passage.source for passage in retriever.passages] == ["?.md"]
    await retriever.add([Document(source="\ud800.md", text=SEA.text)])
    assert [passage.text for passage in retriever.passages] == [SEA.text], "and replace themselves"


async def test_what_two_event_loops_add_at_once_is_all_there(scene: Scene) -> None:
    retriever = scene.retriever()
    replaced = PassageIndex.replaced
    both = threading.Barrier(2)

    async def add(document: Document) -> None:
        def meet(done: int, total: int) -> None:
            both.wait()

        await retriever.add([document], progress=meet)
        await retriever._requests.clients.aclose()

    def slowly(*args: Any) -> Any:
        made = replaced(*args)
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.5)  # for the other, which must not be here yet
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PassageIndex, "replaced", slowly)
        async with anyio.create_task_group() as tasks:
            for document in (BEES, SEA):
                tasks.start_soon(anyio.to_thread.run_sync, anyio.run, add, document)
    assert {passage.source for passage in retriever.passages} == {"bees.md", "sea.md"}


def test_one_retriever_serves_many_event_loops() -> None:
    async def with_simulator() -> list[str]:
        async with Simulator() as url:
            return await anyio.to_thread.run_sync(use, url)

    def use(url: str) -> list[str]:
        retriever = EmbeddingRetriever(OpenAIPatternConfig(base_url=url, api_key=KEY))

        async def once(document: Document) -> str:
            async with anyio.create_task_group() as tasks:
                for copy in range(2):
                    other = Document(source=f"{document.source}-{copy}", text=document.text)
                    tasks.start_soon(retriever.add, [other])
            [found] = await retriever.retrieve(document.text, 1)
            await retriever.aclose()
            return found.source

        pairs = zip(("asyncio", "trio", "asyncio"), (BEES, SEA, POST), strict=True)
        return [anyio.run(once, document, backend=backend) for backend, document in pairs]

    assert [source.split("-")[0] for source in anyio.run(with_simulator)] == ["bees.md", "sea.md", "post.md"]
