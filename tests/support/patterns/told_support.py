"""Runs a script that knows nothing of being tested, and tells what its engine counted."""

import runpy
import sys
from pathlib import Path
from typing import Any

import msgspec

import runmeter
from runmeter import Engine
from runmeter.engine import stand_in


class TellingEngine(Engine):
    """An engine that writes to a file what it has counted, when it closes."""

    told = Path()

    async def __aexit__(self, *how: Any) -> None:
        await super().__aexit__(*how)
        self.told.write_bytes(msgspec.json.encode(self.usage()))


def main(script: str, port: str, told: str) -> None:
    """Run a script while this machine's port stands in for OpenAI, and write what its engine counted to a file."""
    stand_in("127.0.0.1", int(port), "openai")
    TellingEngine.told = Path(told)
    runmeter.Engine = TellingEngine  # type: ignore[misc] # the script imports it
    sys.path.remove(str(Path(__file__).parent))  # the script finds what it would find by itself
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
