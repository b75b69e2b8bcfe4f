"""The built wheel holds the whole package, and what would lack a part is not built."""

import shutil
import sys
import zipfile
from pathlib import Path

import pytest
from process_support import Command, output_of, run_command

ROOT = Path(__file__).parents[2]


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
        *(
            f"runmeter/engine/{path.relative_to(folders['engine'])}"
            for data in ("*.toml", "*.gz")
            for path in folders["engine"].rglob(data)
        ),
        *(f"runmeter/benchmarks/{path.relative_to(scripts)}" for path in scripts.rglob("*.py")),
        *(f"runmeter/benchmarks/{path.relative_to(scripts)}" for path in scripts.rglob("*.toml")),
        "runmeter/py.typed",
        "runmeter/reports/page/page.css",
        "runmeter/reports/page/page.js",
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


@pytest.fixture
def without_links(tmp_path: Path) -> Path:
    """A checkout as git makes it where core.symlinks is false: a link is a file that says where it leads."""
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "Makefile", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    package = tmp_path / "src" / "runmeter"
    shutil.copytree(ROOT / "src" / "runmeter", package, symlinks=True)
    links = [path for path in package.iterdir() if path.is_symlink()]
    for link in links:
        place = link.readlink()
        link.unlink()
        link.write_text(str(place))
    assert len(links) == 4
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, "-m", "build", "--no-isolation", "--wheel"],
        [sys.executable, "-m", "build", "--no-isolation", "--sdist"],
        [sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--target", "there", "-e", "."],
        ["make", "demo"],
    ],
    ids=["wheel", "sdist", "editable", "make"],
)
def test_a_checkout_without_links_says_what_to_do(without_links: Path, command: Command) -> None:
    done = run_command(command, cwd=without_links)
    assert done.returncode != 0
    said = [line for line in (done.stdout + done.stderr).splitlines() if "core.symlinks" in line]
    assert len(said) == 1
    assert "Run `git config core.symlinks true`, then `git checkout -- src/runmeter`" in said[0]
    assert not (without_links / ".venv").exists()
    assert not list(without_links.rglob("*.whl"))
