"""Who may import whom, and that importing the package stays light."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from house import FOLDERS, MAY_IMPORT, ROOT
from process_support import output_of, python

# A library, and the only places of the package that may import it.
AT_HOME = {
    "langgraph": ["patterns/langgraph/"],
    "langchain_core": ["patterns/langgraph/"],
    "langchain_openai": ["patterns/langgraph/"],
    "openai": ["patterns/openai/", "patterns/openai_client/"],
    "opentelemetry": ["telemetry/"],
    "grpc": ["telemetry/"],
    "requests": ["telemetry/"],
    "numpy": ["patterns/retrieval/index.py"],
    "tiktoken": ["engine/tokens/tokenizer.py"],
    "genai_prices": ["engine/prices/sources.py"],
    "starlette": ["src/runmeter/simulator/"],
    "uvicorn": ["src/runmeter/simulator/"],
    "altair": ["src/runmeter/reports/page/"],
    "vl_convert": ["src/runmeter/reports/page/"],
    "click": ["src/runmeter/"],
    "rich": ["src/runmeter/"],
}
HEAVY = {
    "openai",
    "langchain_core",
    "langgraph",
    "pydantic",
    "opentelemetry",
    "tiktoken",
    "genai_prices",
    "rich",
    "numpy",
}
SOURCES = sorted(
    path
    for folder in (*FOLDERS.values(), ROOT / "src/runmeter")
    for path in (folder.glob("*.py") if folder.name == "runmeter" else folder.rglob("*.py"))
)


def imported_modules(path: Path) -> Iterator[str]:
    """The absolute names of all modules a file imports, wherever in it; relative imports are left out."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


def relative_levels(path: Path) -> Iterator[int]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield node.level


@pytest.mark.parametrize("folder", FOLDERS)
def test_import_direction(folder: str) -> None:
    allowed = {f"runmeter.{name}" for name in MAY_IMPORT[folder]}
    for path in FOLDERS[folder].rglob("*.py"):
        for module in imported_modules(path):
            if module.split(".")[0] == "runmeter":
                assert module in allowed, f"{path.relative_to(ROOT)} imports {module}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_relative_imports_stay_inside_their_folder(folder: str) -> None:
    for path in FOLDERS[folder].rglob("*.py"):
        depth = len(path.relative_to(FOLDERS[folder]).parts)
        assert max(relative_levels(path), default=0) <= depth, f"{path.relative_to(ROOT)} reaches out of its folder"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_libraries_are_imported_only_where_they_belong(path: Path) -> None:
    place = str(path.relative_to(ROOT))
    for module in imported_modules(path):
        homes = AT_HOME.get(module.split(".")[0])
        assert homes is None or any(place.startswith(home) for home in homes), f"{place} imports {module}"


def modules_loaded_by(statement: str) -> set[str]:
    code = f"{statement}; import sys; print('\\n'.join(sys.modules))"
    return set(output_of(python(code)).split())


def test_importing_the_package_stays_light() -> None:
    loaded = modules_loaded_by("import runmeter")
    assert not loaded.intersection(HEAVY)


@pytest.mark.parametrize("package", ["patterns", "telemetry"])
def test_importing_a_folder_loads_no_framework(package: str) -> None:
    loaded = modules_loaded_by(f"import runmeter.{package}")
    assert not loaded.intersection({"openai", "langchain_core", "langgraph", "pydantic", "opentelemetry.sdk"})


def test_no_generic_name_is_importable() -> None:
    packages = ("runmeter.engine", "runmeter.patterns", "runmeter.telemetry", "runmeter.simulator")
    loaded = modules_loaded_by(f"import {', '.join(packages)}")
    assert not loaded.intersection({"engine", "patterns", "telemetry", "simulator"})
