"""Every code block of the documents runs."""

import logging
import os
import re
import shlex
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import pytest
from process_support import output_of, python

from runmeter.patterns import PatternRegistry
from runmeter.simulator import Simulator

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\w+\.(?:py|toml))\n")
"""How a block begins that is a file which other blocks refer to."""
EXCERPT = re.compile(r"# (examples/[\w/]+\.py)\n")
"""How a block begins that is taken from a script which other tests run, with libraries that are not at hand here."""


def blocks(wanted: str) -> list[Any]:
    return [
        pytest.param(code, id=f"{path.name}-{number}")
        for path in DOCUMENTS
        for number, (language, code) in enumerate(BLOCK.findall(path.read_text()), start=1)
        if language == wanted and not EXCERPT.match(code)
    ]


def excerpts() -> list[Any]:
    return [
        pytest.param(ROOT / found[1], code[found.end() :], id=f"{path.name}-{number}")
        for path in DOCUMENTS
        for number, (_, code) in enumerate(BLOCK.findall(path.read_text()), start=1)
        if (found := EXCERPT.match(code))
    ]


def files() -> dict[str, str]:
    """The files that the documents show, by name."""
    codes = [code for path in DOCUMENTS for _, code in BLOCK.findall(path.read_text())]
    return {found[1]: code for code in codes if (found := FILE.match(code))}


@pytest.fixture
def beside_the_files(tmp_path: Path) -> Path:
    """A folder with this project's documents, and the files that they show."""
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    for name, code in files().items():
        (tmp_path / name).write_text(code)
    return tmp_path


def test_all_blocks_are_of_a_kind_that_is_run_or_shown_by_one() -> None:
    for path in DOCUMENTS:
        for language, _ in BLOCK.findall(path.read_text()):
            known = {"mermaid", "python", "sh", "text", "toml"}
            assert language in known, f"{path.name}: a block of {language!r} is run by no test"


@pytest.mark.parametrize("path", [*DOCUMENTS, ROOT / "CONTRIBUTING.md"], ids=lambda path: str(path.name))
def test_what_a_document_points_to_is_there(path: Path) -> None:
    text = path.read_text()
    linked = [path.parent / link.partition("#")[0] for link in re.findall(r"\]\((?!https?:)([^)#][^)]*)\)", text)]
    named = [
        ROOT / name for name in re.findall(r"`((?:tests|docs|engine|patterns|telemetry|src|examples)/[\w/.]+)`", text)
    ]
    missing = [each for each in (*linked, *named) if not each.exists()]
    assert not missing


@pytest.mark.parametrize(("script", "code"), excerpts())
def test_an_excerpt_is_what_its_script_says(script: Path, code: str) -> None:
    """Each paragraph, in its order."""
    rest = "\n" + script.read_text()
    for paragraph in code.strip("\n").split("\n\n"):
        _, found, rest = rest.partition(f"\n{paragraph}\n")
        assert found, f"{script.name} does not say, after what stands before it:\n{paragraph}"


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    """Examples that show the log set it up, for the whole process."""
    root, ours = logging.getLogger(), logging.getLogger("runmeter")
    before = [*root.handlers], root.level, ours.level
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])


# LangChain's own clients stay open until the interpreter ends.
@pytest.mark.usefixtures("logging_as_before")
@pytest.mark.parametrize("code", [each for each in blocks("python") if "langchain_openai" not in each.values[0]])
def test_python_runs(
    code: str, beside_the_files: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Against the simulator, in this process, which has already imported what takes long."""
    module = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    monkeypatch.chdir(beside_the_files)
    monkeypatch.syspath_prepend(beside_the_files)
    with anyio.from_thread.start_blocking_portal() as portal, portal.wrap_async_context_manager(Simulator()) as url:
        for name, value in environment(url).items():
            monkeypatch.setenv(name, value)
        exec(compile(code, "<document>", "exec"), vars(module))  # noqa: S102 - our own documents
    assert capfd.readouterr().out.strip(), "an example shows something"


def test_the_first_block_prints_what_is_shown_below_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """But for the times that it took, and the room that they take. Its registry has counted nothing before."""
    monkeypatch.setattr("runmeter.patterns.get_pattern_registry", PatternRegistry)
    (_, code), (_, shown), *_ = BLOCK.findall((ROOT / "README.md").read_text())
    module = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    with anyio.from_thread.start_blocking_portal() as portal, portal.wrap_async_context_manager(Simulator()) as url:
        for name, value in environment(url).items():
            monkeypatch.setenv(name, value)
        exec(compile(code, "<document>", "exec"), vars(module))  # noqa: S102 - our own document
    assert _without_times(capfd.readouterr().out) == _without_times(shown)


def _without_times(text: str) -> list[list[str]]:
    return [re.sub(r"[\d.]+ m?s\b", "time", line).split() for line in text.splitlines()]


def environment(url: str) -> dict[str, str]:
    return {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "simulated", "OTEL_SDK_DISABLED": "true"}


@pytest.mark.campaign
@pytest.mark.parametrize("code", blocks("python"))
def test_python_runs_as_it_stands(code: str, beside_the_files: Path) -> None:
    """Against the simulator: the code itself reads its key and URL from the environment, as a user's would."""

    async def against_the_simulator() -> str:
        async with Simulator() as url:
            command = python(code, "-W", "error::DeprecationWarning:__main__")
            settings: dict[str, Any] = {"env": os.environ | environment(url), "cwd": beside_the_files}
            return await anyio.to_thread.run_sync(partial(output_of, command, **settings))

    assert anyio.run(against_the_simulator).strip(), "an example shows something"


@pytest.mark.campaign
@pytest.mark.parametrize("code", blocks("sh"))
def test_commands_run_as_they_stand(code: str) -> None:
    """In this checkout, with the commands of this environment."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    output_of(["bash", "-euo", "pipefail", "-c", code], env=environment, cwd=ROOT)


def test_each_file_that_is_shown_is_used_by_an_example() -> None:
    codes = [code for path in DOCUMENTS for _, code in BLOCK.findall(path.read_text()) if not FILE.match(code)]
    for name in files():
        assert any(f'"{name}"' in code or f"@{Path(name).stem}:" in code for code in codes), f"nothing uses {name}"


@pytest.mark.parametrize("settings", [each for each in blocks("toml") if not FILE.match(each.values[0])])
def test_settings_do_what_their_first_line_says(settings: str, beside_the_files: Path) -> None:
    """It is the command they are for: here it asks the simulator, beside the files that the documents show."""
    command, *arguments = shlex.split(settings.splitlines()[0].removeprefix("#"))
    (beside_the_files / arguments[arguments.index("--config") + 1]).write_text(settings)
    answer = output_of([Path(sys.executable).with_name(command), *arguments, "--simulated"], cwd=beside_the_files)
    assert answer.strip(), "they lead to an answer"
