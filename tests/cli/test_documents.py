"""The texts of the demo."""

import os
from pathlib import Path
from typing import Any

import pytest

from runmeter.cli.demo.documents import PASSAGE, Documents, load_documents
from runmeter.cli.ending import CommandError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.md").write_text("# Bees\n\nBees make honey.\n")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/b.txt").write_text("\n\n".join(f"Paragraph {number} is about wax." * 10 for number in range(20)))
    (tmp_path / "code.py").write_text("print()")
    (tmp_path / "latin.md").write_bytes(b"caf\xe9")
    (tmp_path / "empty.md").write_text("  \n")
    return tmp_path


def test_texts_below_the_folder_are_read_and_others_left_out(folder: Path) -> None:
    assert set(load_documents(folder).texts) == {"a.md", "deep/b.txt"}


def test_what_cannot_be_looked_into_is_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "gone.md").symlink_to(folder / "nowhere")
    (folder / "round.md").symlink_to(folder / "round.md")
    os.mkfifo(folder / "pipe.md")
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if str(path).endswith("deep"):
            raise FileNotFoundError(path)  # as the folder of a process that has ended
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert set(load_documents(folder).texts) == {"a.md"}


@pytest.mark.parametrize("place", [place for place in ("/proc", "/dev") if Path(place).is_dir()])
def test_a_folder_of_the_systems_has_no_texts(place: str) -> None:
    with pytest.raises(CommandError, match=f"no text in {place}"):
        load_documents(Path(place))


def test_a_folder_without_texts_says_what_it_looks_for(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"\*\.md, \*\.txt, \*\.rst"):
        load_documents(tmp_path)


def test_without_a_folder_they_are_the_project_s_own() -> None:
    assert "Runmeter" in load_documents(None).overview()


def test_passages_hold_whole_paragraphs_of_bounded_length(folder: Path) -> None:
    documents = load_documents(folder)
    passages = [text for name, text in documents.passages() if name == "deep/b.txt"]
    assert "\n\n".join(passages) == documents.texts["deep/b.txt"]
    assert all(len(passage) <= 2 * PASSAGE for passage in passages)


def test_as_many_questions_as_asked_for(folder: Path) -> None:
    documents = load_documents(folder)
    questions = documents.questions(100)
    assert len(questions) == 100
    assert len(set(questions)) == len(list(documents.passages()))


def test_the_tools_look_into_the_documents() -> None:
    documents = Documents({"a": "bees make honey", "b": "cows give milk"})
    assert documents.find_passages("who gives milk, cows?", limit=1) == ["b: cows give milk"]
    assert documents.count_words("to be or not to be") == {"words": 6, "different": 4}


def test_a_file_whose_name_is_no_text_can_be_asked_about(tmp_path: Path) -> None:
    (tmp_path / "caf\udce9.md").write_text("Coffee.")
    documents = load_documents(tmp_path)
    assert documents.questions(1)[0].encode()
