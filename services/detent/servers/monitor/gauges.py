"""Say in numbers for Prometheus what a check found.

Of several models the worst counts: which one it is stands in the log, in `detent monitor` and in
the ledger, and is no label, because names of models grow without end.
"""

from collections.abc import Sequence
from enum import StrEnum

from detent.adapters.metrics import Metrics
from detent.contracts.binding import SignalSource
from detent.contracts.monitoring import AlertKind
from detent.core.evaluation.drift import DriftVerdict
from detent.core.evaluation.monitoring import ModelReport


class CheckResult(StrEnum):
    """Says how a check ended."""

    OK = "ok"
    FAILED = "failed"


class MonitorGauges:
    """Owns the monitor's series."""

    def __init__(self, metrics: Metrics) -> None:
        """Declare them all; no value means that there is nothing to say yet."""
        by_source = {"source": SignalSource}
        self._checks = metrics.counter(
            "detent_monitor_checks_total", "Checks, by how they ended.", {"result": CheckResult}
        )
        self._recorded = metrics.counter(
            "detent_monitor_outcomes_total", "Outcomes that were settled and recorded."
        )
        self._checked_at = metrics.gauge(
            "detent_monitor_checked_timestamp_seconds", "When the last check ended, Unix seconds."
        )
        self._models = metrics.gauge("detent_monitor_models", "Models with decided bars.")
        self._scores = {
            "brier": metrics.gauge(
                "detent_monitor_brier", "Brier score of the newest rows, worst model.", by_source
            ),
            "log_loss": metrics.gauge(
                "detent_monitor_log_loss", "Log loss in nats, worst model.", by_source
            ),
            "ece": metrics.gauge(
                "detent_monitor_ece",
                "ECE, positive class, 15 equal widths, worst model.",
                by_source,
            ),
        }
        self._ece_excess = metrics.gauge(
            "detent_monitor_ece_excess",
            "ECE less what a perfect model stays below at 95%: above 0 is no noise.",
            by_source,
        )
        self._growth = metrics.gauge(
            "detent_monitor_error_growth_ratio",
            "Recent mean error over the earlier mean, less 1, worst model.",
            by_source,
        )
        self._features = metrics.gauge(
            "detent_monitor_features",
            "Features by what drift says of them.",
            {"verdict": DriftVerdict},
        )
        self._alerts = metrics.gauge(
            "detent_monitor_alerts", "Alerts that stand, by kind.", {"kind": AlertKind}
        )

    def failed(self) -> None:
        """Count a check that could not be made."""
        self._checks.labels(CheckResult.FAILED.value).inc()

    def show(self, reports: Sequence[ModelReport], *, recorded_count: int, now_ms: int) -> None:
        """Publish what a check found."""
        self._checks.labels(CheckResult.OK.value).inc()
        self._recorded.inc(recorded_count)
        self._checked_at.set(now_ms / 1000)
        self._models.set(len(reports))
        for source in SignalSource:
            signals = [
                one for report in reports for one in report.signals if one.signal_source is source
            ]
            newest = [one.newest for one in signals if one.newest is not None]
            for name, gauge in self._scores.items():
                gauge.labels(source.value).set(
                    max((getattr(point, name) for point in newest), default=float("nan"))
                )
            self._ece_excess.labels(source.value).set(
                max((point.ece - point.ece_null_high for point in newest), default=float("nan"))
            )
            growths = [
                one.errors.growth_bps for one in signals if one.errors.growth_bps is not None
            ]
            self._growth.labels(source.value).set(max(growths, default=float("nan")) / 10_000)
        features = [one.verdict for report in reports for one in report.features]
        for verdict in DriftVerdict:
            self._features.labels(verdict.value).set(features.count(verdict))
        alerts = [one.kind for report in reports for one in report.alerts]
        for kind in AlertKind:
            self._alerts.labels(kind.value).set(alerts.count(kind))
