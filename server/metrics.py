"""The metrics that an operator watches, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from pipelines.drawing import Timings

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)


class Metrics:
    """One registry per server, so that several in one process do not mix."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._jobs = Counter(
            "understudy_jobs", "Jobs that have ended", ["endpoint", "outcome"], registry=self._registry
        )
        self._stages = Histogram(
            "understudy_stage_seconds",
            "Seconds that an engine spent on a request",
            ["pipeline", "stage"],
            buckets=_SECONDS,
            registry=self._registry,
        )

        self._webhooks = Counter(
            "understudy_webhook_attempts", "Deliveries of webhooks", ["outcome"], registry=self._registry
        )
        self._webhooks_pending = Gauge(
            "understudy_webhooks_pending", "Webhooks that no receiver has yet", registry=self._registry
        )
        for outcome in ("delivered", "postponed", "failed"):
            self._webhooks.labels(outcome)  # shown as 0 before the first

    def watch(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """Show the number that ``value`` returns whenever somebody reads the metrics."""
        Gauge(f"understudy_{name}", meaning, registry=self._registry).set_function(value)

    def watch_each(
        self,
        name: str,
        meaning: str,
        labels: Sequence[str],
        values: Callable[[], Iterable[tuple[Sequence[str], float]]],
    ) -> None:
        """Show the numbers that ``values`` returns with their labels, whenever somebody reads the metrics."""
        self._registry.register(_Watched(f"understudy_{name}", meaning, labels, values))

    def count_job(self, endpoint: str, outcome: str) -> None:
        """Count a job that has ended. ``outcome``: succeeded, failed or cancelled."""
        self._jobs.labels(endpoint, outcome).inc()

    def observe_stages(self, pipeline: str, timings: Timings) -> None:
        """Add the seconds that a request spent in each stage of an engine."""
        stages = {"encode": timings.encode_s, "denoise": timings.denoise_s, "decode": timings.decode_s}
        for stage, seconds in stages.items():
            self._stages.labels(pipeline, stage).observe(seconds)

    def count_webhook_attempt(self, outcome: str) -> None:
        """Count an attempt to deliver a webhook.

        Args:
            outcome: delivered, postponed (it is tried again) or failed (it is given up).
        """
        self._webhooks.labels(outcome).inc()

    def show_pending_webhooks(self, count: float) -> None:
        """Show how many webhooks are pending in the database now; NaN where it does not answer."""
        self._webhooks_pending.set(count)

    def text(self) -> bytes:
        """All metrics in the exposition format of Prometheus."""
        return generate_latest(self._registry)


class _Watched(Collector):
    """Numbers of which there are different ones each time."""

    def __init__(
        self,
        name: str,
        meaning: str,
        labels: Sequence[str],
        values: Callable[[], Iterable[tuple[Sequence[str], float]]],
    ) -> None:
        self._name, self._meaning, self._labels, self._values = name, meaning, labels, values

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(self._name, self._meaning, labels=self._labels)
        for labels, value in self._values():
            family.add_metric(labels, value)
        yield family
