"""The house: folders read at a glance, no circle of imports, no class twice, first lines that stand alone."""

import ast
import importlib
import inspect
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from house import ROOMS, ROOT

TOPS = {"engine": ROOT / "engine", "patterns": ROOT / "patterns", "telemetry": ROOT / "telemetry"}
MAX_MODULES, MIN_MODULES = 20, 2
VAGUE = 0.01
"""The share of docstrings whose first line does not stand alone. It only ever falls: lower it with what you mend."""
_VAGUE = re.compile(
    r"(It|Them|They|That|The same|Likewise|Everything|All|What|Whether|Where|How|Those|Nothing|Nobody|As|With|Of|In|So"
    r"|Such|Both)\b"
)


def sources() -> Mapping[str, Path]:
    """The package's modules by name; the links to the three folders at the top are followed, benchmarks left out."""
    found = {f"runmeter.{top}": folder for top, folder in TOPS.items()}
    own = ROOT / "src/runmeter"
    found |= {f"runmeter.{path.name}": path for path in own.iterdir() if path.is_dir() and not path.is_symlink()}
    paths = [(name, folder, path) for name, folder in found.items() for path in folder.rglob("*.py")]
    paths += [("runmeter", own, path) for path in own.glob("*.py")]
    return {
        ".".join([name, *path.relative_to(folder).with_suffix("").parts]).removesuffix(".__init__"): path
        for name, folder, path in paths
    }


SOURCES = sources()
TREES = {name: ast.parse(path.read_text()) for name, path in SOURCES.items()}


def imports(name: str) -> Iterator[str]:
    """The package's modules that a module imports, wherever in it, and if only for its types."""
    package = name if SOURCES[name].name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            start = ".".join([*above, *([node.module] if node.module else [])])
            named = {f"{start}.{alias.name}" for alias in node.names}
            yield from (named & SOURCES.keys()) or ({start} & SOURCES.keys())
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in SOURCES)


GRAPH = {name: {other for other in imports(name) if other != name} for name in SOURCES}


def docstrings() -> Iterator[tuple[str, str, str]]:
    """Module, name and first line of each class and function that has a docstring."""
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node):
                yield module, node.name, str(ast.get_docstring(node)).partition("\n")[0]


def test_folders_can_be_read_at_a_glance() -> None:
    folders = Counter(path.parent for path in SOURCES.values() if path.name not in ("__init__.py", "__main__.py"))
    for folder, modules in folders.items():
        fits = MIN_MODULES <= modules <= MAX_MODULES or folder == ROOT / "src/runmeter"
        assert fits, f"{folder.relative_to(ROOT)} has {modules} modules: make a room, or do without one"


def test_no_circle_of_imports() -> None:
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as circle:
        pytest.fail(" → ".join(circle.args[1]))


@pytest.mark.parametrize("folder", ROOMS)
def test_rooms_use_only_those_before_them(folder: str) -> None:
    order = ROOMS[folder]
    for name, used in GRAPH.items():
        room = _room(name, folder)
        for other in used:
            if room in order and (target := _room(other, folder)) in order and target != room:
                assert order.index(target) < order.index(room), f"{name} imports {other}: see ROOMS in house.py"


def _room(name: str, folder: str) -> str:
    """The room of a folder that a module is in, or nothing if it stands flat there."""
    inside = name.removeprefix(f"runmeter.{folder}.") if name.startswith(f"runmeter.{folder}.") else ""
    return inside.rpartition(".")[0]


def test_no_two_public_classes_share_a_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for module, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(module)
    assert {name: modules for name, modules in places.items() if len(modules) > 1} == {}


def test_first_lines_stand_alone() -> None:
    vague = [f"{module}.{name}: {line}" for module, name, line in docstrings() if _VAGUE.match(line)]
    share = len(vague) / len(list(docstrings()))
    assert share <= VAGUE, "\n".join(vague)


def test_first_lines_of_public_names_stand_alone() -> None:
    for package in ("runmeter", "runmeter.engine", "runmeter.patterns", "runmeter.telemetry", "runmeter.simulator"):
        module = importlib.import_module(package)
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.isclass(thing) or inspect.isfunction(thing):
                line = (thing.__doc__ or "").strip().partition("\n")[0]
                assert not _VAGUE.match(line), f"{package}.{name}: {line}"
