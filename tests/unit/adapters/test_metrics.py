"""Metrics: what is scraped has closed labels only, and every series from the start."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from enum import StrEnum

import pytest
from prometheus_client.parser import text_string_to_metric_families

from detent.adapters.metrics import OPEN_LABELS, Metrics, MetricsServer
from detent.contracts.binding import SignalSource
from detent.contracts.monitoring import AlertKind
from detent.core.evaluation.drift import DriftVerdict
from detent.servers.monitor.gauges import CheckResult, MonitorGauges

CLOSED: dict[str, type[StrEnum]] = {
    "source": SignalSource,
    "verdict": DriftVerdict,
    "kind": AlertKind,
    "result": CheckResult,
}
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


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


def ask(server: MetricsServer, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{server.target}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def scraped(text: str) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


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
    found = scraped(ask(server, "/metrics")[1])

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

    assert open_labels(scraped(planted)) == ["symbol=BTCUSDT"]
    for name in OPEN_LABELS:
        with pytest.raises(AssertionError, match=name):
            metrics.counter("orders_total", "Orders.", {name: SignalSource})


def test_every_series_exists_before_anything_happened(
    metrics: Metrics, server: MetricsServer
) -> None:
    metrics.counter("asked_total", "Asked.", {"source": SignalSource})
    metrics.histogram("took_ms", "Took.", (1, 2, 5), {"source": SignalSource})
    found = scraped(ask(server, "/metrics")[1])

    assert found["asked_total", (("source", "proxy"),)] == 0
    assert found["took_ms_bucket", (("le", "5.0"), ("source", "model"))] == 0


def test_health_is_alive_and_readiness_is_what_is_said(server: MetricsServer, ready: Ready) -> None:
    assert ask(server, "/healthz") == (200, "OK\n")
    assert ask(server, "/readyz")[0] == 503
    ready.is_ready = True
    assert ask(server, "/readyz") == (200, "OK\n")
    assert ask(server, "/elsewhere")[0] == 404
