"""Figures of the service in Prometheus' text format: GET /metrics.

Requests are counted by CountedRequests when they were answered, predictions by their log; the rest
is read when somebody asks. Nothing here has an id of a person: labels are routes, keys' names,
statuses, roles, and reasons of defaults.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector
from starlette.responses import PlainTextResponse, Response

from mlops_pipeline.lifecycle.live_models import LiveModel

if TYPE_CHECKING:
    from mlops_pipeline.lifecycle.serve import PredictionService
    from mlops_pipeline.serving.limits import Load
    from mlops_pipeline.stores.predictions import LoggedPrediction

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
STATES = ("closed", "half_open", "open")

router = APIRouter()


class Metrics:
    """The figures of one app; may be shared by threads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._known: dict[tuple[str, int, str], tuple[Counter, Histogram]] = {}
        self._requests = Counter(
            "mlops_requests", "Requests answered.", ("route", "status", "key"),
            registry=self.registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "mlops_request_seconds", "Time from a request to its answer.", ("route",),
            buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self._decisions = Counter(
            "mlops_decisions", "Predictions, by who decided what.",
            ("use_case", "role", "version", "decision"), registry=self.registry,
        )  # fmt: skip
        self._reasons = Counter(
            "mlops_default_reasons", "Why the champion did not decide.", ("use_case", "reason"),
            registry=self.registry,
        )  # fmt: skip

    def request(self, route: str, status: int, key: str, seconds: float) -> None:
        """Count a request."""
        known = self._known.get((route, status, key))
        if known is None:
            counter = self._requests.labels(route, str(status), key)
            known = self._known[route, status, key] = counter, self._seconds.labels(route)
        known[0].inc()
        known[1].observe(seconds)

    def decided(self, made: "Sequence[LoggedPrediction]") -> None:
        """Count predictions."""
        for one in made:
            version = "" if one.model_version is None else str(one.model_version)
            decision = "true" if one.decision else "false"
            self._decisions.labels(one.use_case, one.role, version, decision).inc()
            for reason in one.reasons if one.role != "champion" else ():
                self._reasons.labels(one.use_case, reason).inc()


class Now(Collector):
    """What is so at the time of asking: versions, breakers, the log's queue, requests under way."""

    def __init__(self, services: "Mapping[str, PredictionService]", load: "Load") -> None:
        self._services, self._load = services, load

    def collect(self) -> Iterator[Metric]:
        """Read it."""
        under_way = GaugeMetricFamily("mlops_requests_under_way", "Requests not answered yet.")
        under_way.add_metric([], self._load.requests)
        queue = GaugeMetricFamily(
            "mlops_log_queue", "Requests that wait for the log of predictions.", labels=["use_case"]
        )
        shadow = GaugeMetricFamily(
            "mlops_shadow_queue", "Answers to be scored by the other version of a trial.",
            labels=["use_case"],
        )  # fmt: skip
        dropped = CounterMetricFamily(
            "mlops_shadow_dropped", "Answers that the other version did not score.",
            labels=["use_case"],
        )  # fmt: skip
        info = InfoMetricFamily("mlops_model", "Versions that answer.", labels=["use_case", "role"])
        states = GaugeMetricFamily(
            "mlops_breaker", "1 for the state of a version's circuit breaker.",
            labels=["use_case", "version", "state"],
        )  # fmt: skip
        for name, service in self._services.items():
            queue.add_metric([name], service.log_queue)
            shadow.add_metric([name], service.shadow.waiting)
            dropped.add_metric([name], service.shadow.dropped)
            for role, live in service.versions.named().items():
                if isinstance(live, LiveModel):
                    about = {"version": str(live.version), "fingerprint": live.fingerprint}
                    info.add_metric([name, role], about)
                    for state in STATES:
                        is_it = float(live.guard.state == state)
                        states.add_metric([name, str(live.version), state], is_it)
        yield from (under_way, queue, shadow, dropped, info, states)


@router.get("/metrics", response_class=PlainTextResponse)
def read_metrics(request: Request) -> Response:
    """Return the figures of this process."""
    metrics: Metrics = request.app.state.metrics
    return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)
