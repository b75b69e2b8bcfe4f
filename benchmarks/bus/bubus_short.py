# /// script
# requires-python = ">=3.11"
# dependencies = ["bubus==1.5.6"]
# ///
"""What an event costs: a bubus event bus that keeps the last event only.

As in bubus.py, but for `max_history_size=1`: it looks through its history at each event, so a short one is faster.
"""

from functools import partial

from bus.bubus import load
from worker import serve

if __name__ == "__main__":
    serve(partial(load, max_history_size=1), ["bubus", "pydantic"])
