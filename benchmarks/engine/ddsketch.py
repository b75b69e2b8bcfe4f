# /// script
# requires-python = ">=3.11"
# dependencies = ["ddsketch==3.0.1"]
# ///
"""What a latency sketch costs: DDSketch, within the same 1 % as Runmeter's histogram."""

from worker import Bench, Work, serve


def load() -> Bench:
    from ddsketch import DDSketch
    from engine.call import in_turn, latencies

    def histogram_add(times: int) -> None:
        sketch = DDSketch(relative_accuracy=0.01)
        for value in in_turn(latencies(), times):
            sketch.add(value)

    def histogram_merge(times: int) -> None:
        part, whole = DDSketch(relative_accuracy=0.01), DDSketch(relative_accuracy=0.01)
        for value in latencies():
            part.add(value)
        for _ in range(times):
            whole.merge(part)
        assert whole.count == part.count * times

    cases: dict[str, Work] = {"histogram add": histogram_add, "histogram merge": histogram_merge}
    return Bench(cases)


if __name__ == "__main__":
    serve(load, ["ddsketch"])
