# /// script
# requires-python = ">=3.11"
# dependencies = ["openai==3.54.0", "httpx2==2.16.2", "pydantic==2.14.3"]
# ///
"""The baseline once more, in an environment of its own: what it "adds" is noise, and what environments differ by."""

from metering.bare import load
from worker import serve

if __name__ == "__main__":
    serve(load, ["openai", "httpx2", "pydantic"])
