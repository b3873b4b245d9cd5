"""Read of a ledger what a rollout is judged by: its arms' decisions, shadows and outcomes.

A reading begins after a bar, so that a monitor reads the few bars that are not settled and not
the whole ledger; it says how many rows lie before that, so that one that came late is noticed.
"""

from collections.abc import Collection, Iterator, Mapping
from decimal import Decimal

import msgspec

from detent.adapters.ledger_reading import LedgerReader, Row
from detent.contracts.binding import SignalSource
from detent.contracts.canonical import parse_json
from detent.contracts.decision import DecisionKind
from detent.contracts.json_codec import from_json
from detent.contracts.plan import Plan
from detent.contracts.reasons import Reason
from detent.contracts.rollout import PlanRollout, Rollout, RolloutArm
from detent.contracts.shadow import ShadowSignal
from detent.contracts.trades import Outcome, OutcomeLabel
from detent.core.rollout.paired_rows import Answer, PairedBar
from detent.core.rollout.pairing import ArmDecision, RowKey, paired_bars

_PLANS = (
    "SELECT plan_id, plan, rollout FROM plan_log JOIN plan_rollouts USING (plan_id)"
    " WHERE event = 'opened'"
)
_DECIDED = (
    "SELECT plan_id, symbol, ts_ms, bar_close, p_hat_calibrated_bps, fallback_reason,"
    " proxy_p_hat_bps FROM bar_decisions WHERE kind = ? AND ts_ms > ?"
)
_SHADOWED = (
    "SELECT plan_id, symbol, ts_ms, canonical FROM shadow_signals WHERE kind = ? AND ts_ms > ?"
)
_TURNED_OUT = "SELECT canonical FROM outcomes WHERE ts_ms > ?"
_EARLIER = "SELECT COUNT(*) FROM decision_records WHERE kind = ? AND ts_ms <= ?"
_BAR = DecisionKind.BAR.value
# A statement names no more values than SQLite allows in any version.
_KEYS_PER_READ = 500


class RolloutRows(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what was read of one rollout.

    Attributes:
        bars: Its bars after the one that was named, in the order of time.
        interval_ms: Length of a bar; 0 while no plan of the rollout has been opened.
        later_ts_ms: Closes of the decisions that were read, in no order.
        earlier_count: Decisions that lie before them.
    """

    bars: tuple[PairedBar, ...]
    interval_ms: int
    later_ts_ms: tuple[int, ...]
    earlier_count: int


class RolloutLedger:
    """Reads the rollouts of one ledger; remembers which plans are theirs, and nothing else."""

    def __init__(self, reader: LedgerReader) -> None:
        """Read nothing yet."""
        self._reader = reader
        self._plans: dict[str, tuple[PlanRollout, int]] = {}

    def read(self, rollout: Rollout, *, after_ms: int) -> RolloutRows:
        """Read the bars of a rollout after one.

        Args:
            rollout: Which rollout.
            after_ms: Close of the last bar that is not read again; -1 reads all.

        Raises:
            LedgerUnavailable: The ledger cannot be read.
        """
        self._learn_plans()
        plans = self._arms(rollout)
        interval_ms = max((self._plans[plan_id][1] for plan_id in plans), default=0)
        decisions = list(self._decisions(plans, after_ms))
        bars = paired_bars(
            sorted(decisions, key=lambda one: (one.ts_ms, one.plan_id)),
            dict(self._shadows(plans, after_ms)),
            dict(self._outcomes(plans, after_ms)),
            horizon_ms=rollout.candidate_binding.horizon_bars * interval_ms,
            stable_is_proxy=rollout.stable_binding.signal_source is SignalSource.PROXY,
        )
        return RolloutRows(
            bars=bars,
            interval_ms=interval_ms,
            later_ts_ms=tuple(one.ts_ms for one in decisions),
            earlier_count=sum(count for (count,) in self._rows(_EARLIER, plans, _BAR, after_ms)),
        )

    def _arms(self, rollout: Rollout) -> dict[str, RolloutArm]:
        return {
            plan_id: facts.arm
            for plan_id, (facts, _) in self._plans.items()
            if facts.rollout_id == rollout.rollout_id
        }

    def _learn_plans(self) -> None:
        known = self._reader.query("SELECT plan_id FROM plan_rollouts")
        new = [plan_id for (plan_id,) in known if plan_id not in self._plans]
        for plan_id, plan_text, rollout_text in self._rows(_PLANS, new):
            plan = from_json(Plan, parse_json("plan", str(plan_text).encode()))
            facts = from_json(PlanRollout, parse_json("rollout", str(rollout_text).encode()))
            self._plans[plan_id] = (facts, plan.bar_interval_ms)

    def _decisions(self, arms: Mapping[str, RolloutArm], after_ms: int) -> Iterator[ArmDecision]:
        for row in self._rows(_DECIDED, arms, _BAR, after_ms):
            plan_id, symbol, ts_ms, close, p_bps, reason, proxy_p_bps = row
            yield ArmDecision(
                plan_id=plan_id,
                symbol=symbol,
                ts_ms=ts_ms,
                arm=arms[plan_id],
                close=Decimal(close),
                p_bps=p_bps,
                reason=Reason(reason) if reason is not None else None,
                proxy_p_bps=proxy_p_bps,
            )

    def _shadows(self, plans: Collection[str], after_ms: int) -> Iterator[tuple[RowKey, Answer]]:
        for plan_id, symbol, ts_ms, text in self._rows(_SHADOWED, plans, _BAR, after_ms):
            said = from_json(ShadowSignal, parse_json("shadow", str(text).encode()))
            answer = Answer(p_bps=said.p_hat_bps, reason=said.reason, latency_us=said.latency_us)
            yield (plan_id, symbol, ts_ms), answer

    def _outcomes(self, plans: Collection[str], after_ms: int) -> Iterator[tuple[RowKey, bool]]:
        for (text,) in self._rows(_TURNED_OUT, plans, after_ms):
            one = from_json(Outcome, parse_json("outcome", str(text).encode()))
            if one.label is not None:
                yield (one.plan_id, one.symbol, one.ts_ms), one.label is OutcomeLabel.UP

    def _rows(self, sql: str, plans: Collection[str], *values: object) -> Iterator[Row]:
        """Ask of some plans; `sql` has a WHERE, and their names are values of it."""
        ids = list(plans)
        for start in range(0, len(ids), _KEYS_PER_READ):
            part = ids[start : start + _KEYS_PER_READ]
            marks = ", ".join("?" * len(part))
            yield from self._reader.query(f"{sql} AND plan_id IN ({marks})", (*values, *part))
