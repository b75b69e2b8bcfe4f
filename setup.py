"""A check of the checkout. What is built, and how, pyproject.toml says."""

import sys
from pathlib import Path

PACKAGE = Path(__file__).parent / "src" / "runmeter"

for name in ("engine", "patterns", "telemetry", "benchmarks"):
    if not (PACKAGE / name).is_dir():
        sys.exit(
            f"runmeter: src/runmeter/{name} is not a link to {name}/, as git has core.symlinks=false here. "
            "Run `git config core.symlinks true`, then `git checkout -- src/runmeter`; or clone again with "
            "`git clone -c core.symlinks=true`. On Windows this needs the developer mode."
        )

from setuptools import setup  # noqa: E402 - what is to be said needs none

setup()
