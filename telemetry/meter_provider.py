"""A provider of meters whose readers collect, beside what its instruments measure, what accumulators hold."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricReader, MetricsData, ResourceMetrics
from opentelemetry.sdk.resources import Resource

from .accumulators import Accumulators, RunningSums


class AccumulatingMeterProvider(MeterProvider):
    """The SDK's provider, with accumulators in it.

    The SDK has no public way to hand a reader more than its instruments measured: `MetricReader.collect` is final, and
    metrics of other producers, which the specification knows, it has not (opentelemetry-sdk 1.45). So this module alone
    uses what is private there: the callback that a reader collects by, and the resource of the moment, which the SDK
    changes when the process forks.

    Args:
        readers: What collects and exports.
        resource: What the metrics are about.
        accumulators: What is collected too.
    """

    def __init__(self, readers: Sequence[MetricReader], resource: Resource, accumulators: Accumulators) -> None:
        super().__init__(readers, resource, shutdown_on_exit=False)
        self._accumulators = accumulators
        self._accounts: dict[MetricReader, RunningSums] = {}
        for reader in readers:
            self._include(reader)

    def add_metric_reader(self, metric_reader: MetricReader) -> None:
        """Have one more reader collect what is measured from now on."""
        super().add_metric_reader(metric_reader)
        self._include(metric_reader)

    def remove_metric_reader(self, metric_reader: MetricReader) -> None:
        """Shut a reader down, and close its account."""
        super().remove_metric_reader(metric_reader)
        account = self._accounts.pop(metric_reader, None)
        if account is not None:
            self._accumulators.close(account)

    def _include(self, reader: MetricReader) -> None:
        if reader in self._accounts:
            return
        preferred = reader._preferred_temporality or {}  # noqa: SLF001 - see above
        account = self._accounts[reader] = self._accumulators.open(
            preferred.get(Counter, AggregationTemporality.CUMULATIVE),
            preferred.get(Histogram, AggregationTemporality.CUMULATIVE),
        )
        collect: Any = partial(self._collect, account)  # the SDK annotates another type than it calls
        reader._set_collect_callback(collect)  # noqa: SLF001 - see above

    def _collect(
        self, account: RunningSums, reader: MetricReader, timeout_millis: float = 10_000
    ) -> MetricsData | None:
        measured: MetricsData | None = self._measurement_consumer.collect(reader, timeout_millis)
        accumulated = self._accumulators.collect(account)
        if accumulated is None:
            return measured
        resource = self._sdk_config.resource
        scopes = [scope for about in measured.resource_metrics for scope in about.scope_metrics] if measured else []
        return MetricsData([ResourceMetrics(resource, [*scopes, accumulated], resource.schema_url)])
