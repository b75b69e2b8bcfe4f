"""The document on the design: its diagrams say what the code does."""

import re
from pathlib import Path

import pytest
from house import FOLDERS, MAY_IMPORT

import runmeter
from runmeter import patterns, telemetry
from runmeter.engine.budgets.budgets import Budgets

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/design.md").read_text()
ARCHITECTURE, IMPORTS, WAY = re.findall(r"^```mermaid\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)
NODE = re.compile(r'(\w+)(?:\["([^"]+)"\]|\[\("([^"]+)"\)\])?')
ARROW = re.compile(rf'^ *{NODE.pattern} -->(?:\|"[^"]+"\|)? {NODE.pattern}$')
PUBLIC = {name: getattr(package, name) for package in (runmeter, patterns, telemetry) for name in package.__all__}
PUBLIC |= {"Budgets": Budgets, "None": None}


def arrows(diagram: str) -> list[tuple[str, str]]:
    return [(found[1], found[4]) for line in diagram.splitlines() if (found := ARROW.match(line))]


def labels(diagram: str) -> dict[str, str]:
    return {name: said or also for name, said, also in NODE.findall(diagram) if said or also}


def test_the_arrows_between_folders_are_those_that_may_be() -> None:
    folders = {name: str(path.relative_to(ROOT)) + "/" for name, path in FOLDERS.items()} | {"top": "src/runmeter/"}
    assert labels(IMPORTS) == folders
    allowed = [(folder, other) for folder, others in MAY_IMPORT.items() for other in others]
    assert sorted(arrows(IMPORTS)) == sorted([*allowed, *(("top", folder) for folder in FOLDERS)])


def test_every_line_of_a_diagram_is_understood() -> None:
    for diagram in (ARCHITECTURE, IMPORTS):
        first, *lines = diagram.splitlines()
        assert first in ("flowchart TB", "flowchart BT")
        for line in lines:
            assert ARROW.match(line) or re.fullmatch(rf" *(end|subgraph {NODE.pattern}|{NODE.pattern})", line), line
    first, *lines = WAY.splitlines()
    assert first == "sequenceDiagram"
    known = {found[1] for line in lines if (found := re.match(r" *participant (\w+) as ", line))}
    for line in lines:
        said = re.fullmatch(r" *(?:(\w+)--?>>(\w+): [^;]+|Note over (\w+): [^;]+|participant \w+ as .+)", line)
        assert said, line
        assert {name for name in said.groups() if name} <= known, line


def test_every_arrow_joins_nodes_that_are_named() -> None:
    for diagram in (ARCHITECTURE, IMPORTS):
        named = labels(diagram)
        assert {name for arrow in arrows(diagram) for name in arrow} <= named.keys()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"(?:`|\[\"|\[\(\"|as )([A-Z]\w+)(?=[`.:\n])", TEXT))))
def test_a_class_that_is_named_is_there(name: str) -> None:
    assert name in PUBLIC


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([A-Z]\w+\.\w+)", TEXT))))
def test_a_method_that_is_named_is_there(name: str) -> None:
    owner, _, method = name.partition(".")
    assert hasattr(PUBLIC[owner], method)


@pytest.mark.parametrize("folder", sorted(set(re.findall(r"`([\w/]+/)`", TEXT))))
def test_a_folder_that_is_named_is_there(folder: str) -> None:
    assert (ROOT / folder).is_dir()
