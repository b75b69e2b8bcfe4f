# /// script
# requires-python = ">=3.11"
# dependencies = ["langgraph==1.2.22"]
# ///
"""What an import takes: LangGraph, as far as a graph needs it, and nothing else."""

from worker import Bench, serve


def load() -> Bench:
    import langgraph.graph  # noqa: F401 - the very thing that is measured

    return Bench({})


if __name__ == "__main__":
    serve(load, ["langgraph"])
