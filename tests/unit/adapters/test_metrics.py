"""Metrics: what is scraped has closed labels only, and every series from the start."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from enum import StrEnum

import pytest
from tests.builders import model_binding, plan_of, record_of, written_of
from tests.metrics_page import Samples, samples_of

from detent.adapters.metrics import OPEN_LABELS, Metrics, MetricsServer
from detent.contracts.binding import SignalSource
from detent.contracts.errors import ServiceUnavailable
from detent.contracts.monitoring import AlertKind
from detent.contracts.reasons import Reason
from detent.core.evaluation.drift import DriftVerdict
from detent.core.ledger.record import bind_plan
from detent.core.signals.choice import ModelOutcome
from detent.servers.monitor.gauges import CheckResult, MonitorGauges
from detent.servers.policy.decision_metrics import DecisionMetrics, ManifestState

CLOSED: dict[str, type[StrEnum]] = {
    "source": SignalSource,
    "verdict": DriftVerdict,
    "kind": AlertKind,
    "result": CheckResult,
    "reason": Reason,
    "state": ManifestState,
}


class Ready:
    """Says whether it is ready, as it was told."""

    is_ready = False


@pytest.fixture(name="ready")
def _ready() -> Ready:
    return Ready()


@pytest.fixture(name="metrics")
def _metrics() -> Metrics:
    return Metrics()


@pytest.fixture(name="server")
def _server(metrics: Metrics, ready: Ready) -> Iterator[MetricsServer]:
    server = MetricsServer(metrics, listen="127.0.0.1:0", is_ready=lambda: ready.is_ready)
    yield server
    server.close()


def test_an_address_that_is_taken_is_named(server: MetricsServer) -> None:
    with pytest.raises(ServiceUnavailable, match=server.target):
        MetricsServer(Metrics(), listen=server.target)


def ask(server: MetricsServer, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{server.target}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def open_labels(samples: Samples) -> list[str]:
    """Name every label, with its value, that is of no closed set."""
    return [
        f"{name}={value}"
        for _, labels in samples
        for name, value in labels
        if name != "le" and (name not in CLOSED or value not in tuple(CLOSED[name]))
    ]


@pytest.mark.proves("R339")
def test_every_label_of_the_monitor_is_of_a_closed_set(
    metrics: Metrics, server: MetricsServer
) -> None:
    gauges = MonitorGauges(metrics)
    gauges.show([], recorded_count=3, now_ms=1_700_000_000_000)
    gauges.failed()
    found = samples_of(ask(server, "/metrics")[1])

    assert open_labels(found) == []
    assert not {name for _, labels in found for name, _ in labels} & OPEN_LABELS
    assert found["detent_monitor_outcomes_total", ()] == 3
    assert found["detent_monitor_checks_total", (("result", "failed"),)] == 1
    assert found["detent_monitor_checks_total", (("result", "ok"),)] == 1
    for kind in AlertKind:
        assert found["detent_monitor_alerts", (("kind", kind.value),)] == 0


@pytest.mark.proves("R339")
def test_an_open_label_is_seen_by_the_lint_and_refused_when_declared(metrics: Metrics) -> None:
    planted = '# TYPE orders counter\norders_total{symbol="BTCUSDT"} 1\n'

    assert open_labels(samples_of(planted)) == ["symbol=BTCUSDT"]
    for name in OPEN_LABELS:
        with pytest.raises(AssertionError, match=name):
            metrics.counter("orders_total", "Orders.", {name: SignalSource})


def test_every_series_exists_before_anything_happened(
    metrics: Metrics, server: MetricsServer
) -> None:
    metrics.counter("asked_total", "Asked.", {"source": SignalSource})
    metrics.histogram("took_ms", "Took.", (1, 2, 5), {"source": SignalSource})
    found = samples_of(ask(server, "/metrics")[1])

    assert found["asked_total", (("source", "proxy"),)] == 0
    assert found["took_ms_bucket", (("le", "5.0"), ("source", "model"))] == 0


def test_health_is_alive_and_readiness_is_what_is_said(server: MetricsServer, ready: Ready) -> None:
    assert ask(server, "/healthz") == (200, "OK\n")
    assert ask(server, "/readyz")[0] == 503
    ready.is_ready = True
    assert ask(server, "/readyz") == (200, "OK\n")
    assert ask(server, "/elsewhere")[0] == 404


def test_a_process_with_a_health_service_serves_its_numbers_alone(metrics: Metrics) -> None:
    server = MetricsServer(metrics, listen="127.0.0.1:0")
    try:
        answers = {path: ask(server, path)[0] for path in ("/metrics", "/healthz", "/readyz")}
    finally:
        server.close()

    assert answers == {"/metrics": 200, "/healthz": 404, "/readyz": 404}


@pytest.mark.proves("R71", "R339")
def test_decisions_are_counted_by_whose_they_are_and_why(
    metrics: Metrics, server: MetricsServer
) -> None:
    counts = DecisionMetrics(metrics, accepted_count=2, refused_count=1)
    bound = bind_plan(plan_of("plan"), model_binding())
    answer = ModelOutcome(features_hash="7" * 64, p_hat_raw_bps=6_000, p_hat_bps=6_000)
    gone = ModelOutcome(reason=Reason.ARTIFACT_DIR_MISSING)
    records = [record_of(bound=bound, model=one) for one in (answer, gone, gone)]
    counts.count(bound, [written_of(record) for record in records])
    found = samples_of(ask(server, "/metrics")[1])
    fallbacks = {
        reason: found["detent_policy_fallbacks_total", (("reason", reason.value),)]
        for reason in Reason
    }

    assert open_labels(found) == []
    assert found["detent_policy_decisions_total", (("source", "model"),)] == 1
    assert found["detent_policy_decisions_total", (("source", "proxy"),)] == 2
    assert {reason: count for reason, count in fallbacks.items() if count} == {
        Reason.ARTIFACT_DIR_MISSING: 2
    }
    assert found["detent_policy_manifests", (("state", "accepted"),)] == 2
    assert found["detent_policy_manifests", (("state", "refused"),)] == 1
