"""The built wheel holds the whole package."""

import sys
import zipfile
from pathlib import Path

import pytest
from process_support import output_of

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    target = tmp_path_factory.mktemp("wheel")
    # By way of the source distribution, which is built into the wheel in a place that knows nothing of this checkout.
    output_of([sys.executable, "-m", "build", "--no-isolation", "--outdir", target, ROOT])
    (path,) = target.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_every_module_and_data_file(wheel: zipfile.ZipFile) -> None:
    folders = {name: ROOT / name for name in ("engine", "patterns", "telemetry")}
    own, scripts = ROOT / "src/runmeter", ROOT / "benchmarks"
    sources = {
        *(f"runmeter/{path.relative_to(own)}" for path in own.rglob("*.py")),
        *(f"runmeter/{name}/{path.relative_to(at)}" for name, at in folders.items() for path in at.rglob("*.py")),
        *(f"runmeter/engine/vocab/{path.name}" for path in folders["engine"].glob("vocab/*.gz")),
        *(f"runmeter/engine/{path.name}" for path in folders["engine"].glob("*.toml")),
        *(f"runmeter/benchmarks/{path.relative_to(scripts)}" for path in scripts.rglob("*.py")),
        *(f"runmeter/benchmarks/{path.relative_to(scripts)}" for path in scripts.rglob("*.toml")),
        "runmeter/py.typed",
    }
    assert len(sources) > 60
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == sources


def test_the_wheel_installs_one_top_level_name(wheel: zipfile.ZipFile) -> None:
    assert {name.split("/")[0].split("-")[0] for name in wheel.namelist()} == {"runmeter"}


def test_the_wheel_carries_licence_and_command(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert any(name.endswith("licenses/LICENSE") for name in names)
    (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
    assert "runmeter = runmeter.__main__:main" in wheel.read(entry_points).decode()
