"""Say in numbers for Prometheus how the rollouts stand, arm by arm.

Rollouts are counted together, and of a score the worst counts: which one it is stands in the log
and in its history, and is no label, because names of rollouts grow without end.
"""

import math
from collections.abc import Sequence

import msgspec

from detent.adapters.metrics import Metrics
from detent.contracts.reasons import Reason
from detent.contracts.rollout import RolloutArm
from detent.core.rollout.arm_measures import ArmReport
from detent.core.rollout.judge import Verdict, VerdictKind
from detent.core.rollout.tripwires import RollbackRule


class RolloutStanding(msgspec.Struct, frozen=True, kw_only=True):
    """Says how one rollout stands after a look at it.

    Attributes:
        rollout_id: Which.
        verdict: What the judge makes of it.
        arms: Both arms over the window: stable, candidate.
        is_quiet: Whether its rows have stopped.
    """

    rollout_id: str
    verdict: Verdict
    arms: tuple[ArmReport, ArmReport]
    is_quiet: bool


class RolloutGauges:
    """Owns the series of the rollouts."""

    def __init__(self, metrics: Metrics) -> None:
        """Declare them all; no value means that there is nothing to say yet."""
        by_arm = {"arm": RolloutArm}
        self._verdicts = metrics.gauge(
            "detent_rollout_verdicts", "Live rollouts, by verdict.", {"verdict": VerdictKind}
        )
        self._rollbacks = metrics.counter(
            "detent_rollout_rollbacks_total", "Rollbacks of ours, by rule.", {"rule": RollbackRule}
        )
        self._quiet = metrics.gauge("detent_rollout_quiet", "Live rollouts without new rows.")
        self._leads = metrics.gauge("detent_monitor_leader", "1 where this process may act.")
        self._looked_at = metrics.gauge(
            "detent_rollout_looked_timestamp_seconds", "When the last look ended, Unix seconds."
        )
        self._rows = metrics.gauge("detent_rollout_rows", "Rows in the windows.", by_arm)
        self._errors = metrics.gauge("detent_rollout_errors", "Rows that failed.", by_arm)
        self._fallbacks = metrics.gauge(
            "detent_rollout_fallbacks", "Rows without an answer.", by_arm | {"reason": Reason}
        )
        self._p99 = metrics.gauge(
            "detent_rollout_latency_p99_seconds", "p99 of what was measured, worst.", by_arm
        )
        self._brier = metrics.gauge(
            "detent_rollout_brier", "Brier score in the window, worst rollout.", by_arm
        )
        self._moves = metrics.gauge(
            "detent_rollout_move_ratio", "Mean change of p_hat from bar to bar, worst.", by_arm
        )
        self._findings = metrics.gauge(
            "detent_rollout_finding_ratio",
            "What was found over its bound, worst rollout: above 1 it is taken back.",
            {"rule": RollbackRule},
        )

    def acted(self, rule: RollbackRule) -> None:
        """Count a rollback."""
        self._rollbacks.labels(rule.value).inc()

    def show(self, found: Sequence[RolloutStanding], *, leads: bool, now_ms: int) -> None:
        """Publish how all live rollouts stand."""
        self._leads.set(leads)
        self._looked_at.set(now_ms / 1000)
        self._quiet.set(sum(one.is_quiet for one in found))
        kinds = [one.verdict.kind for one in found]
        for kind in VerdictKind:
            self._verdicts.labels(kind.value).set(kinds.count(kind))
        for place, arm in enumerate((RolloutArm.STABLE, RolloutArm.CANDIDATE)):
            self._show_arm(arm, [one.arms[place] for one in found])
        for rule in RollbackRule:
            ratios = [
                abs(finding.found) / max(1, finding.bound)
                for one in found
                for finding in one.verdict.findings
                if finding.rule is rule and finding.found is not None
            ]
            self._findings.labels(rule.value).set(max(ratios, default=math.nan))

    def _show_arm(self, arm: RolloutArm, reports: list[ArmReport]) -> None:
        self._rows.labels(arm.value).set(sum(one.counts.rows for one in reports))
        self._errors.labels(arm.value).set(sum(one.counts.errors for one in reports))
        for reason in Reason:
            count = sum(one.reasons.get(reason, 0) for one in reports)
            self._fallbacks.labels(arm.value, reason.value).set(count)
        p99s = [one.latency_p99_us for one in reports if one.latency_p99_us is not None]
        self._p99.labels(arm.value).set(max(p99s, default=math.nan) / 1e6)
        scores = [one.brier for one in reports if one.brier is not None]
        self._brier.labels(arm.value).set(max(scores, default=math.nan))
        moves = [one.counts.moved_bps / one.counts.moves for one in reports if one.counts.moves]
        self._moves.labels(arm.value).set(max(moves, default=math.nan) / 10_000)
