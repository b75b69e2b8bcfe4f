"""The built wheel holds the whole package."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - our own code
    (path,) = target.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_every_module_and_data_file(wheel: zipfile.ZipFile) -> None:
    package = ROOT / "src/runmeter"
    links = {folder: package / folder for folder in ("engine", "patterns", "telemetry")}
    sources = {
        *(path.relative_to(package) for path in package.rglob("*.py")),
        *(Path(name) / path.relative_to(link) for name, link in links.items() for path in link.resolve().rglob("*.py")),
        *(Path("engine") / path.relative_to(links["engine"]) for path in links["engine"].glob("vocab/*.gz")),
        Path("py.typed"),
    }
    missing = {str(Path("runmeter") / path) for path in sources} - set(wheel.namelist())
    assert not missing


def test_the_wheel_installs_one_top_level_name(wheel: zipfile.ZipFile) -> None:
    assert {name.split("/")[0].split("-")[0] for name in wheel.namelist()} == {"runmeter"}


def test_the_wheel_carries_licence_and_command(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert any(name.endswith("licenses/LICENSE") for name in names)
    (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
    assert "runmeter = runmeter.__main__:main" in wheel.read(entry_points).decode()
