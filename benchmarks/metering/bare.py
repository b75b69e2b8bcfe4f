# /// script
# requires-python = ">=3.11"
# dependencies = ["runmeter"]
# ///
"""What a call of the client costs with nobody looking on: the baseline.

It runs in the environment that Runmeter is installed in, so that what Runmeter adds is no difference between two
environments. `bare_again.py` tells how much the latter comes to.
"""

from worker import Bench, serve


def load() -> Bench:
    from metering.calls import bench, client_calls
    from stub import Stub

    stub = Stub()
    client = stub.client()
    return bench(stub, client_calls(client), close=client.close)


if __name__ == "__main__":
    serve(load, ["openai", "httpx2", "pydantic"])
