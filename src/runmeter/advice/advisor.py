"""The advisor: which variant did the same work cheaper or faster, what caching saved, what eats tokens.

The advisor is a subscriber like any other, and takes events live or from a log. What it says rests on counts and
intervals; where the data do not say, it is silent, and says why. Two things no event can tell, so no advice does:
whether the answers were as good, and whether the runs compared had cases of the same difficulty.
"""

import logging
import threading
from collections.abc import Sequence

from runmeter.engine.events import Event, ExecutionFinished, FunctionCall, ModelCallStarted, TokenUsage
from runmeter.engine.prices.price_book import PriceBook

from .advice import Advice
from .cache_savings import CacheSavings
from .comparison import Comparison
from .run_tree import RunTrees
from .token_use import TokenAppetite

logger = logging.getLogger("runmeter")


class Advisor:
    """Folds events into advice: `engine.subscribe(advisor, name="advice", lane="lossless")`.

    Safe to share between threads.
    Its memory does not grow with the number of runs. Events may come duplicated, and a run's events out of order after
    its start. A run within another counts for the outermost one, which is what a user asked for.

    Args:
        by: The tag that says which runs do the same work, such as `task`; by default runs of the same pattern do.
        prices: What tokens cost; by default genai-prices.
        max_keys: Variants of works that are told apart, at most.

    Raises:
        ValueError: `max_keys` is not positive, or `by` is empty.
    """

    def __init__(self, by: str | None = None, prices: PriceBook | None = None, max_keys: int = 2_000) -> None:
        if max_keys < 1 or by == "":
            raise ValueError(f"max_keys must be positive (is {max_keys}), and a tag has a name")
        self._prices = PriceBook() if prices is None else prices
        self._trees = RunTrees()
        self._comparison = Comparison(by, max_keys)
        self._caching = CacheSavings(self._prices)
        self._appetite = TokenAppetite()
        self._uncounted = 0
        self._lock = threading.RLock()  # a signal handler may ask for advice while its own thread folds

    def __call__(self, events: Sequence[Event]) -> None:
        """Fold in a batch of events."""
        with self._lock:
            for event in events:
                try:
                    self._fold(event)
                except Exception as error:  # one event that makes no sense must not keep others from counting
                    if not self._uncounted:
                        logger.error("an event could not be counted; more of them are only added up", exc_info=error)
                    self._uncounted += 1

    @property
    def runs(self) -> int:
        """Number of outermost runs that have finished."""
        return self._comparison.runs

    def advice(self) -> Sequence[Advice]:
        """List the advice that the history supports so far, and at the end what it cannot say."""
        with self._lock:
            return (
                *self._comparison.advice(),
                *self._caching.advice(),
                *self._appetite.advice(),
                *self._comparison.silences(),
                *self._gaps(),
            )

    def _fold(self, event: Event) -> None:
        run = self._trees.find(event)
        if run is None:
            return
        if isinstance(event, TokenUsage):
            cost = self._prices.cost(event)
            self._trees.request_ended(run, event, cost)
            self._caching.requested(run.pattern, event, cost)
            self._appetite.requested(run.pattern, run.chain, event, cost)
        elif isinstance(event, ModelCallStarted):
            self._trees.request_started(run, event)
        elif isinstance(event, FunctionCall):
            self._appetite.function_called(run.chain, event)
        elif isinstance(event, ExecutionFinished):
            finished = self._trees.finished(run, event)
            if finished is not None:
                self._comparison.add(finished)

    def _gaps(self) -> Sequence[Advice]:
        """List the parts of the history that are missing here."""
        left_out = self._caching.left_out + self._appetite.left_out
        gaps = (
            ("unfinished", self._trees.unfinished + self._trees.in_flight, "Runs that have not finished"),
            ("strays", self._trees.strays, "Events of runs whose start is missing"),
            ("uncounted", self._uncounted, "Events that make no sense, and were not counted"),
            ("left_out", left_out, "Requests and tool calls with more names than are told apart"),
        )
        return tuple(
            Advice(kind="silence", subject=what, text=f"{text}: {count:,}.", counts={what: count})
            for what, count, text in gaps
            if count
        )
