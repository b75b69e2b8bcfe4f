# /// script
# requires-python = ">=3.11"
# dependencies = ["runmeter"]
# ///
"""What an import takes: Runmeter, and nothing else."""

from worker import Bench, serve


def load() -> Bench:
    import runmeter  # noqa: F401 - the very thing that is measured

    return Bench({})


if __name__ == "__main__":
    serve(load, ["runmeter"])
