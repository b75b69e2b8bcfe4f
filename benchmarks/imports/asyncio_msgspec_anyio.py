# /// script
# requires-python = ">=3.11"
# dependencies = ["msgspec==0.22.0", "anyio==4.16.0"]
# ///
"""What an import takes: asyncio, msgspec and anyio, which Runmeter is made with, and nothing else."""

from worker import Bench, serve


def load() -> Bench:
    import asyncio  # noqa: F401 - the very thing that is measured

    import anyio  # noqa: F401 - likewise
    import msgspec  # noqa: F401 - likewise

    return Bench({})


if __name__ == "__main__":
    serve(load, ["msgspec", "anyio"])
