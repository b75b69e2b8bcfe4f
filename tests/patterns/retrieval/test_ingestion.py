"""Files become documents, documents passages, and passages keep their place."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runmeter.engine import ConfigurationError, Tokenizer
from runmeter.patterns.errors import IngestionError
from runmeter.patterns.retrieval.ingestion import Chunking, Document, find_files, read_files, split
from runmeter.patterns.retrieval.retriever import Passage

MODEL = "text-embedding-3-small"

words = st.sampled_from(
    ["bee", "Größe", "数学", "🐝", "👩‍👩‍👧", ".", "? ", "\n\n", "  ", "\n", "[1]", "antidisestablishment", "\ud800"]
)
texts = st.lists(words | st.text(max_size=5), max_size=80).map("".join)


def cut(text: str, **chunking: Any) -> list[Passage]:
    return split(Document(source="a.md", text=text), Chunking(**chunking), MODEL)


@given(texts, st.integers(16, 40), st.floats(0, 0.5))
@settings(deadline=None)
def test_every_character_is_in_a_passage_and_passages_know_their_place(text: str, tokens: int, overlap: float) -> None:
    passages = cut(text, tokens=tokens, overlap=overlap)
    covered: set[int] = set()
    starts: list[int] = []
    for passage in passages:
        assert passage.start is not None
        assert passage.end is not None
        starts.append(passage.start)
        assert passage.text == text.encode(errors="replace").decode()[passage.start : passage.end]
        assert passage.text == passage.text.strip() != ""
        covered.update(range(passage.start, passage.end))
    assert all(text[place].isspace() for place in set(range(len(text))) - covered)
    assert starts == sorted(set(starts)), "none is there twice"


def test_passages_are_no_longer_than_they_may_be_and_overlap() -> None:
    sentences = [f"Sentence number {n} says that parcel {n} weighs {n} kg." for n in range(100)]
    text = " ".join(sentences)
    passages = cut(text, tokens=60, overlap=0.33)
    tokenizer = Tokenizer(MODEL)
    assert max(len(tokenizer.encode(passage.text)) for passage in passages) <= 60
    for one, next_one in pairwise(passages):
        assert one.end is not None
        assert next_one.start is not None
        assert next_one.start < one.end, "they overlap"
        assert one.text.endswith("."), "and end with a sentence"
        assert next_one.text.startswith("Sentence number"), "and begin with one"


def test_paragraphs_are_better_places_to_cut_than_sentences() -> None:
    paragraph = "One two three. Four five six."
    passages = cut("\n\n".join([paragraph] * 8), tokens=20, overlap=0)
    assert [passage.text for passage in passages] == ["\n\n".join([paragraph] * 2)] * 4


def test_text_without_a_place_to_cut_is_cut_all_the_same() -> None:
    text = "x" * 3_000
    passages = cut(text, tokens=32, overlap=0.25)
    assert len(passages) > 3
    assert passages[-1].end == 3_000


@pytest.mark.parametrize("text", ["", " \n\t "])
def test_nothing_is_no_passage(text: str) -> None:
    assert cut(text) == []


def test_a_short_text_is_one_passage() -> None:
    assert cut("  Hello.\n") == [Passage(text="Hello.", source="a.md", start=2, end=8)]


@pytest.mark.parametrize("setting", [{"overlap": 0.51}, {"overlap": -0.1}, {"tokens": 15}, {"tokens": 8_192}])
def test_sizes_are_checked(setting: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"Chunking\.{next(iter(setting))}"):
        Chunking(**setting)


async def test_folders_are_read_in_order_and_hidden_files_left_alone(tmp_path: Path) -> None:
    for name in ("b.md", "a/z.txt", "a/a.rst", ".git/c.md", "a/.hidden.md", "picture.png", "d.html"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    documents = await read_files([tmp_path / "d.html", tmp_path, str(tmp_path / "b.md")])
    assert [document.text for document in documents] == ["d.html", "a/a.rst", "a/z.txt", "b.md"], "each once"
    assert documents[0].source == (tmp_path / "d.html").as_posix()
    assert find_files([tmp_path], ["*.html"]) == [tmp_path / "d.html"]


async def test_one_kind_of_files_is_as_good_as_several(tmp_path: Path) -> None:
    for name in ("notes.md", "secret.key"):
        (tmp_path / name).write_text(name)
    assert find_files(tmp_path, "*.md") == [tmp_path / "notes.md"]


@pytest.mark.parametrize("paths", [5, None, [5], [b"a"], "", ["docs", ""]])
def test_what_is_no_path_is_refused(paths: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"paths? of"):
        find_files(paths)


@pytest.mark.parametrize(("path", "pattern"), [("x" * 5_000, "*"), (".", "/etc/*")])
def test_what_no_file_system_takes_is_an_error_of_ingestion(path: str, pattern: str) -> None:
    with pytest.raises(IngestionError, match="cannot look for"):
        find_files(path, [pattern])


def test_a_document_is_of_text_that_can_be_sent() -> None:
    document = Document(source="a\ud800.md", text="b\udfff")
    assert (document.source, document.text) == ("a?.md", "b?")
    with pytest.raises(ConfigurationError, match=r"Document\.source: expected a string, got PosixPath"):
        Document(source=Path("a.md"), text="")  # type: ignore[arg-type] # a mistake


async def test_a_mark_of_the_encoding_and_ends_of_lines_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffGröße\r\nzwei".encode())
    [document] = await read_files(tmp_path)  # one path is as good as several
    assert document.text == "Größe\nzwei"


async def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(IngestionError, match=r"no file or folder '.*nowhere'"):
        await read_files([tmp_path / "nowhere"])
    with pytest.raises(IngestionError, match=r"no \*\.md, \*\.txt, \*\.rst files"):
        await read_files([tmp_path])
    (tmp_path / "latin.txt").write_bytes(b"Gr\xf6\xdfe")
    with pytest.raises(IngestionError, match=r"cannot read '.*latin\.txt' as text in UTF-8"):
        await read_files([tmp_path])
