"""Where measurements go: instruments of the SDK, or accumulators of our own. One interface for both."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from opentelemetry.metrics import Meter

from .forking import call_in_forked_child
from .semconv import Metric

Attributes: TypeAlias = dict[str, str | int | bool]
Record: TypeAlias = Callable[[float], None]
"""A function that takes one measurement. One that is negative or not finite is left out, as the SDK does."""


class Instruments(ABC):
    """Makes the functions that measurements are recorded with.

    A caller that records holds `lock`, and binds anew when `epoch` has changed.
    """

    def __init__(self) -> None:
        self.epoch = 0
        """Changes when functions bound before no longer count."""
        self.lock = threading.Lock()
        """Held while a function is bound or a measurement is recorded."""
        call_in_forked_child(self._forked)

    def _forked(self) -> None:
        self.lock = threading.Lock()  # a thread that is not in the child may hold the parent's
        self.epoch += 1

    @abstractmethod
    def bind(self, metric: Metric, attributes: Attributes) -> Record:
        """Make the function that records a metric's measurements with these attributes, which stay as they are."""


class SdkInstruments(Instruments):
    """The SDK's own instruments, for providers that have views or exemplars or aggregations of their own.

    Args:
        meter: Makes the instruments.
    """

    def __init__(self, meter: Meter) -> None:
        super().__init__()
        self._meter = meter
        self._instruments: dict[Metric, Callable[..., None]] = {}

    def bind(self, metric: Metric, attributes: Attributes) -> Record:
        """Make a function that calls the SDK's instrument with these attributes."""
        record = self._instruments.get(metric)
        if record is None:
            record = self._instruments[metric] = self._make(metric)
        return partial(record, attributes=attributes)

    def _make(self, metric: Metric) -> Callable[..., None]:
        if metric.buckets is None:
            return self._meter.create_counter(metric.name, metric.unit, metric.description).add
        return self._meter.create_histogram(
            metric.name, metric.unit, metric.description, explicit_bucket_boundaries_advisory=metric.buckets
        ).record


class Series(dict[Metric, Record]):
    """The functions that record measurements with the same attributes. A metric is bound when it is first measured.

    Args:
        instruments: Where the measurements go.
        attributes: Of all of them.
    """

    __slots__ = ("_attributes", "_instruments")

    def __init__(self, instruments: Instruments, attributes: Attributes) -> None:
        super().__init__()
        self._instruments = instruments
        self._attributes = attributes

    def __missing__(self, metric: Metric) -> Record:
        record = self[metric] = self._instruments.bind(metric, self._attributes)
        return record
