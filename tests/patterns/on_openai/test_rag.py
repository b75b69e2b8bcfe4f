"""Retrieval-augmented generation, over the real client and a server on this machine."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from pattern_support import KEY, Run, check_whole
from scene_support import PatternScene
from time_support import passing

from runmeter.engine import ConfigurationError, Engine, Provenance, Retrieval, RunTimeout
from runmeter.engine.testing import Recorder
from runmeter.patterns import OpenAIPatternConfig, PatternConfig, PatternRegistry, PatternType
from runmeter.patterns.errors import IngestionError
from runmeter.patterns.openai.rag import NOTHING_FOUND, OpenAIRAGConfig, OpenAIRAGPattern, RAGResult
from runmeter.patterns.openai.vector_store import VectorStoreRetriever
from runmeter.patterns.retrieval.ingestion import Chunking
from runmeter.patterns.retrieval.retriever import Passage
from runmeter.simulator import Fault, Reply, ScriptedCall

TEXTS = {
    "bees.md": "# Bees\n\nBees visit flowers to collect nectar. A colony counts fifty thousand bees in summer.\n",
    "sea.txt": "Water covers much of the planet.\n\nThe sea is 3,688 metres deep on average. It is salty.",
    "post.rst": "A parcel to Lyon takes two days. A parcel to Oslo takes five days.",
}
DEPTH = "How deep is the sea on average?"


class Scene(PatternScene[OpenAIRAGPattern]):
    """One with a folder, which its patterns search unless they are told something else."""

    def __init__(self, folder: Path) -> None:
        super().__init__(OpenAIRAGPattern)
        self.folder = folder

    @asynccontextmanager
    async def pattern(self, *tools: Any, **settings: Any) -> AsyncIterator[OpenAIRAGPattern]:
        if not {"retriever", "vector_store_id"} & settings.keys():
            settings = {"sources": [self.folder], **settings}
        async with super().pattern(*tools, **settings) as pattern:
            yield pattern


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    for name, text in TEXTS.items():
        (tmp_path / name).write_text(text)
    async with Scene(tmp_path) as scene:
        yield scene


def check_sources(result: RAGResult) -> None:
    """Each citation's mark is in the answer, and its passage in the source."""
    assert result.citations
    for citation in result.citations:
        passage = citation.passage
        assert result.content[citation.start : citation.end] == f"[{citation.number}]"
        assert result.passages[citation.number - 1] == passage
        assert Path(passage.source).read_text()[passage.start : passage.end] == passage.text


async def test_answers_come_from_the_sources_and_say_so(scene: Scene) -> None:
    run = Run()
    async with scene.pattern() as pattern:
        with run(conversation_id="c1"):
            result = await pattern.execute(DEPTH)
    assert result.content == "The sea is 3,688 metres deep on average [1]."
    check_sources(result)
    assert result.citations[0].passage.source == (scene.folder / "sea.txt").as_posix()
    assert len(result.passages) == 3
    assert (result.query, result.turns, result.finish_reason, result.unsupported) == (DEPTH, 1, "stop", ())
    assert (result.response_id, result.conversation_id) == (run.requests[-1].response_id, "c1")
    [retrieval] = run.of(Retrieval)
    assert (retrieval.source, retrieval.documents, retrieval.requested) == ("local", 3, 5)
    assert [request.operation for request in run.requests] == ["embeddings", "embeddings", "chat"]
    assert [request.model for request in run.requests] == ["text-embedding-3-small"] * 2 + ["gpt-6-luna"]
    assert run.reported == scene.simulator.statistics().total


async def test_what_the_model_reads(scene: Scene) -> None:
    history = [
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Hello to you [1]."},
        {"role": "user", "content": [{"type": "text", "text": DEPTH}, {"type": "text", "text": "In metres."}]},
    ]
    async with scene.pattern(passages=1, system_prompt="Be brief.") as pattern:
        result = await pattern.execute(history)
        await pattern.execute(DEPTH, {"instructions": "Be long."})
    first, second = scene.prompts
    assert [item.role for item in first.items] == ["user", "assistant", "user"]
    assert [item.text for item in first.items[:2]] == ["Hello.", "Hello to you [1]."]
    asked = first.items[2].text
    source = (scene.folder / "sea.txt").as_posix()
    assert asked.startswith(f"Passages:\n\n[1] ({source}) {TEXTS['sea.txt']}\n\nQuestion:")
    assert asked.endswith("In metres.")
    assert result.query == f"{DEPTH}\nIn metres."
    assert first.instructions is not None
    assert first.instructions.startswith("Be brief.\n\nAnswer the user's question from the numbered passages")
    assert str(second.instructions).startswith("Be long.\n\nAnswer")
    assert second.items[-1].text.endswith(f"Question: {DEPTH}")


async def test_a_conversation_goes_on_with_the_results_messages(scene: Scene) -> None:
    async with scene.pattern() as pattern:
        first = await pattern.execute(DEPTH)
        asked = "How many bees are in a colony in summer?"
        second = await pattern.execute(
            [{"role": "user", "content": DEPTH}, *first.messages, {"role": "user", "content": asked}]
        )
    assert second.content == "A colony counts fifty thousand bees in summer [1]."
    check_sources(second)
    assert "Passages" not in "".join(item.text for item in scene.prompts[-1].items[:-1]), (
        "earlier ones are not repeated"
    )


async def test_small_passages_point_into_long_sources(scene: Scene) -> None:
    text = "\n\n".join(f"Room {n} has {n + 3} chairs. Ask for its key at desk {n * 7}." for n in range(60))
    (scene.folder / "rooms.md").write_text(text)
    run = Run()
    async with scene.pattern(chunking={"tokens": 24, "overlap": 0.25}, passages=3) as pattern:
        with run():
            result = await pattern.execute("How many chairs has room 41, Room 41?")
    assert "Room 41 has 44 chairs" in result.content
    check_sources(result)
    assert all(len(passage.text) < 200 for passage in result.passages)
    assert run.reported == scene.simulator.statistics().total


async def test_marks_of_no_passage_are_listed(scene: Scene) -> None:
    scene.script(Reply("Deep [1], dark [9][2] and cold [9, 3]; see `list[7]` and [2024]."))
    async with scene.pattern() as pattern:
        result = await pattern.execute(DEPTH)
    assert [(each.number, result.content[each.start : each.end]) for each in result.citations] == [
        (1, "[1]"),
        (2, "[2]"),
        (3, "[9, 3]"),
    ]
    assert result.unsupported == (9,)


async def test_a_vector_store_is_searched(scene: Scene) -> None:
    maker = VectorStoreRetriever(scene.config(), persistent=True)
    await maker.add_files([scene.folder])
    run = Run()
    async with scene.pattern(vector_store_id=maker.vector_store_id, min_score=0.1) as pattern:
        with run():
            result = await pattern.execute(DEPTH)
    assert result.content == "The sea is 3,688 metres deep on average [1]."
    assert [passage.source for passage in result.passages] == [(scene.folder / "sea.txt").as_posix()]
    [retrieval] = run.of(Retrieval)
    assert (retrieval.source, retrieval.documents) == (maker.vector_store_id, 1)
    assert retrieval.top_score == result.passages[0].score
    async with scene.pattern(retriever=maker) as pattern:
        result = await pattern.execute(DEPTH)
    check_sources(result)
    await maker.aclose()


async def test_any_function_may_find_the_passages(scene: Scene) -> None:
    def shelf(query: str) -> Sequence[str | Passage]:
        return ["Ink is blue.", Passage(text="Ink is red.", source="a (b)\nc.md", score=0.2)]

    run = Run()
    async with scene.pattern(retriever=shelf, min_score=0.5) as pattern:
        with run():
            result = await pattern.execute("What colour is ink?")
    assert result.content == "Ink is blue [1]."
    assert [passage.text for passage in result.passages] == ["Ink is blue."], "one without a score is kept"
    assert [(event.source, event.documents) for event in run.of(Retrieval)] == [("shelf", 1)]


async def test_without_sources_nothing_is_found_and_the_model_is_told(scene: Scene) -> None:
    run = Run()
    async with OpenAIRAGPattern(OpenAIPatternConfig(base_url=scene.url, api_key=KEY)) as pattern:
        with run():
            result = await pattern.execute(DEPTH)
            await pattern.execute([{"role": "assistant", "content": "I am here."}])
    assert (result.passages, result.citations, result.turns) == ((), (), 1)
    assert [item.text for item in scene.prompts[0].items] == [f"{NOTHING_FOUND}\n\nQuestion: {DEPTH}"]
    assert [item.text for item in scene.prompts[1].items] == ["I am here.", NOTHING_FOUND], "there was no question"
    assert run.of(Retrieval) == []
    assert scene.count("POST /embeddings") == 0


async def test_nothing_found_can_be_said_without_the_model(scene: Scene) -> None:
    deltas: list[str] = []

    async def listen(text: str) -> None:
        deltas.append(text)

    run = Run(delta=listen)
    async with scene.pattern(min_score=0.9, answer_without_passages=False, nothing_found="Nothing.") as pattern:
        with run():
            result = await pattern.execute("Who painted the ceiling?")
    assert (result.content, result.turns, result.finish_reason, result.response_id) == ("Nothing.", 0, "stop", None)
    assert result.messages == ({"role": "assistant", "content": "Nothing."},)
    assert deltas == ["Nothing."]
    assert scene.count("POST /responses") == 0
    assert [event.documents for event in run.of(Retrieval)] == [0]
    assert run.reported == scene.simulator.statistics().total


async def test_a_query_is_rewritten_after_earlier_turns(scene: Scene) -> None:
    deltas: list[str] = []

    async def listen(text: str) -> None:
        deltas.append(text)

    def find(number: str) -> str:
        return number

    run = Run(delta=listen)
    scene.script(Reply(" How long does a parcel to Oslo take? "))
    talk = [
        {"role": "user", "content": "How long does a parcel to Lyon take?"},
        {"role": "assistant", "content": "Two days [1]."},
        {"role": "user", "content": "And to Oslo?"},
    ]
    async with scene.pattern(find, rewrite_query=True, function_calling_mode="none", passages=1) as pattern:
        with run():
            result = await pattern.execute(talk)
            single = await pattern.execute(DEPTH)
    assert result.query == "How long does a parcel to Oslo take?"
    assert [Path(passage.source).name for passage in result.passages] == ["post.rst"]
    assert (result.turns, single.turns) == (2, 1), "a first question is taken as it is"
    assert "".join(deltas) == result.content + single.content, "the query is not delivered"
    rewriting = scene.prompts[0]
    assert list(rewriting.tools) == []
    assert rewriting.items[0].text == (
        "user: How long does a parcel to Lyon take?\n\nassistant: Two days [1].\n\nuser: And to Oslo?"
    )
    assert "And to Oslo?" in scene.prompts[1].items[-1].text, "the question itself stays as it is"
    assert run.reported == scene.simulator.statistics().total


async def test_half_a_query_is_not_searched_for(scene: Scene) -> None:
    talk = [
        {"role": "user", "content": "How long does a parcel to Lyon take?"},
        {"role": "assistant", "content": "Two days [1]."},
        {"role": "user", "content": "And to Oslo?"},
    ]
    async with scene.pattern(rewrite_query=True) as pattern:
        scene.simulator.inject(Fault("incomplete"))
        result = await pattern.execute(talk)
    assert (result.query, result.turns) == ("And to Oslo?", 2)


async def test_tools_can_be_used_beside_the_passages(scene: Scene) -> None:
    def tide_tables(harbour: str) -> str:
        """Look up the tide of the sea."""
        return "High water is at noon."

    run = Run()
    async with scene.pattern(tide_tables, max_function_calls=1) as pattern:
        with run():
            result = await pattern.execute(DEPTH)
    assert [call.name for call in result.function_calls] == ["tide_tables"]
    assert [call.name for call in run.calls] == ["tide_tables"]
    assert result.turns == 2
    assert [item.type for item in scene.prompts[-1].items] == ["message", "function_call", "function_call_output"]
    assert run.reported == scene.simulator.statistics().total
    scene.script(Reply(tool_calls=(ScriptedCall("tide_tables", '{"harbour": "Brest"}'),) * 2))
    async with scene.pattern(tide_tables, max_function_calls=1) as pattern:
        result = await pattern.execute(DEPTH)
    assert [call.error_type for call in result.function_calls] == [None, "CallLimitReached"]


async def test_first_runs_at_once_share_one_ingestion(scene: Scene) -> None:
    registry = PatternRegistry()
    progress: list[tuple[int, int]] = []
    options: Any = {"progress": lambda done, total: progress.append((done, total))}
    questions = [DEPTH, "How many bees are in a colony in summer?", "How long does a parcel to Oslo take?"] * 5
    async with scene.pattern(**options) as pattern, Engine(usage=registry.usage) as engine:
        results = await engine.map(pattern, questions, concurrency=15)
        total = registry.usage.snapshot().total
    answers = ["The sea is 3,688 metres deep", "A colony counts fifty thousand", "A parcel to Oslo takes five days"] * 5
    for result, answer in zip(results, answers, strict=True):
        assert result.content.startswith(answer)  # type: ignore[union-attr] # none failed
    assert scene.count("POST /embeddings") == 1 + len(questions)
    assert progress == [(3, 3)]
    assert total.usage == scene.simulator.statistics().total
    assert total.requests_by_provenance == {Provenance.REPORTED: 1 + 2 * len(questions)}


async def test_the_cost_includes_the_embeddings(scene: Scene) -> None:
    async with scene.pattern() as pattern, Engine() as engine:
        result = await engine.run(pattern, DEPTH)
    assert result.usage == scene.simulator.statistics().total
    costs = {each.operation: result.prices.cost(each).usd for each in result.requests}
    assert costs["embeddings"]
    assert result.cost.usd
    assert costs["chat"]
    assert result.cost.usd > costs["chat"]


@pytest.mark.parametrize("fault", ["rate_limit", "server_error", "drop"])
async def test_faults_that_pass_are_tried_again(scene: Scene, fault: Any) -> None:
    run = Run()
    async with scene.pattern() as pattern:
        scene.simulator.inject(Fault(fault, endpoint="/embeddings"), Fault(fault, endpoint="/responses"))
        with run():
            result = await pattern.execute(DEPTH)
    check_sources(result)
    assert [request.attempt for request in run.requests] == [1, 2, 1, 1, 2]
    assert run.reported == scene.simulator.statistics().total


async def test_an_ingestion_that_failed_is_tried_again_by_the_next_run(scene: Scene) -> None:
    run = Run()
    async with scene.pattern() as pattern:
        scene.simulator.inject(Fault("insufficient_quota", endpoint="/embeddings"))
        with pytest.raises(openai.RateLimitError), run():
            await pattern.execute(DEPTH)
        with run():
            check_sources(await pattern.execute(DEPTH))
    async with scene.pattern(sources=["nowhere"]) as pattern:
        with pytest.raises(IngestionError, match="nowhere"), run():
            await pattern.execute(DEPTH)


async def test_a_search_that_fails_for_good_ends_the_run(scene: Scene) -> None:
    run = Run()
    async with scene.pattern() as pattern:
        await pattern.prepare()
        scene.simulator.inject(Fault("server_error", times=3, endpoint="/embeddings"))
        with pytest.raises(openai.InternalServerError), run():
            await pattern.execute(DEPTH)
    [retrieval] = run.of(Retrieval)
    assert (retrieval.error_type, retrieval.documents) == ("InternalServerError", 0)
    assert scene.count("POST /responses") == 0


@pytest.mark.parametrize("endpoint", ["/embeddings", "/responses"])
async def test_a_run_that_times_out_leaves_nothing_open(scene: Scene, endpoint: Any) -> None:
    recorder = Recorder()
    async with scene.pattern() as pattern:
        scene.simulator.inject(Fault("latency", seconds=3600, endpoint=endpoint))
        async with Engine() as engine:
            engine.subscribe(recorder, name="recorder", lane="lossless")
            async with passing(30, whenever=lambda: scene.simulator.statistics().faults):
                with pytest.raises(RunTimeout):
                    await engine.run(pattern, DEPTH, timeout=30)
            scene.simulator.recover()
            check_sources((await engine.run(pattern, DEPTH)).value)
    runs = {event.run_id for event in recorder.events}
    for run_id in runs:
        check_whole([event for event in recorder.events if event.run_id == run_id])
    assert len(runs) == 2


async def test_answers_are_streamed_where_somebody_listens(scene: Scene) -> None:
    async with scene.pattern() as pattern, Engine() as engine, engine.stream(pattern, DEPTH) as stream:
        text = "".join([item.text async for item in stream if hasattr(item, "text")])
    assert text == "The sea is 3,688 metres deep on average [1]."


def test_configs_are_checked_and_may_be_plain_data(tmp_path: Path) -> None:
    config = OpenAIRAGConfig(sources=[tmp_path, "a"], chunking={"tokens": 100})  # type: ignore[arg-type] # as from TOML
    assert config.sources == (str(tmp_path), "a")
    assert config.chunking == Chunking(tokens=100)
    with pytest.raises(ConfigurationError, match=r"OpenAIRAGConfig\.sources"):
        OpenAIRAGConfig(sources="docs")  # type: ignore[arg-type] # a mistake
    with pytest.raises(ConfigurationError, match=r"OpenAIRAGConfig\.sources"):
        OpenAIRAGConfig(sources=("",))  # it would be the current folder
    with pytest.raises(ConfigurationError, match="only one of them"):
        OpenAIRAGConfig(sources=("docs",), vector_store_id="vs_1")
    with pytest.raises(ConfigurationError, match="passages"):
        OpenAIRAGConfig(passages=51)
    with pytest.raises(ConfigurationError, match="overlap"):
        OpenAIRAGConfig(chunking={"overlap": 0.6})  # type: ignore[arg-type] # as from TOML
    with pytest.raises(ConfigurationError, match="a retriever is given"):
        OpenAIRAGPattern(OpenAIRAGConfig(vector_store_id="vs_1"), retriever=TEXTS.get)
    with pytest.raises(ConfigurationError, match="is not a retriever"):
        OpenAIRAGPattern(OpenAIRAGConfig(), retriever=5)
    with pytest.raises(ConfigurationError, match="OpenAIPatternConfig"):
        OpenAIRAGPattern(PatternConfig())


async def test_the_registry_makes_it(scene: Scene) -> None:
    pattern = PatternRegistry().create_pattern(PatternType.OPENAI_RAG, scene.config(sources=[scene.folder]))
    assert isinstance(pattern, OpenAIRAGPattern)
    async with pattern:
        check_sources(await pattern.execute(DEPTH))
