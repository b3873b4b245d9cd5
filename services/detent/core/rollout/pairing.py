"""Pair what decided a bar with what was asked beside it, and with how the bar turned out.

Source: decision D18; DESIGN section 3, "Life of a bar", step 7.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from decimal import Decimal

import msgspec

from detent.contracts.reasons import Reason
from detent.contracts.rollout import RolloutArm
from detent.core.rollout.paired_rows import Answer, PairedBar, PairedRow

RowKey = tuple[str, str, int]
# Why a model was not asked, because its rollout says so: nothing to judge.
NOT_ROLLED_OUT = frozenset({Reason.ROLLED_BACK, Reason.NOT_IN_CANARY, Reason.SHADOW_ONLY})


class ArmDecision(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what the ledger says of one bar that an arm of a rollout decided.

    Attributes:
        plan_id: Plan of the arm.
        symbol: Instrument.
        ts_ms: Close of the bar.
        arm: Which arm.
        close: What the bar closed at.
        p_bps: The calibrated answer of the model that the plan binds, or None.
        reason: Why the proxy answered for it, or None.
        proxy_p_bps: The proxy's answer.
    """

    plan_id: str
    symbol: str
    ts_ms: int
    arm: RolloutArm
    close: Decimal
    p_bps: int | None
    reason: Reason | None
    proxy_p_bps: int

    @property
    def key(self) -> RowKey:
        """Give what shadow and outcome find it by."""
        return (self.plan_id, self.symbol, self.ts_ms)


def paired_bars(
    decisions: Iterable[ArmDecision],
    shadows: Mapping[RowKey, Answer],
    outcomes: Mapping[RowKey, bool],
    *,
    horizon_ms: int,
    stable_is_proxy: bool,
) -> tuple[PairedBar, ...]:
    """Pair the rows of one rollout, bar by bar.

    A bar on which the candidate decided for somebody is judged by its symbols; one on which it
    was only asked beside, by all that it was asked for.

    Args:
        decisions: What both arms decided; of two of one symbol and bar the later one counts.
        shadows: What the other model said of a row.
        outcomes: Whether bars went up, where somebody has said so.
        horizon_ms: How far ahead the label looks; where nobody has said how a bar turned out,
            the close so much later says it.
        stable_is_proxy: Whether the stable arm is the proxy, whose answer every record holds.

    Returns:
        Bars with at least one row, in the order of time; the rows in that of the symbols.
    """
    rows: dict[int, dict[RolloutArm, dict[str, ArmDecision]]] = defaultdict(
        lambda: {arm: {} for arm in RolloutArm}
    )
    closes = {}
    for one in decisions:
        closes[one.symbol, one.ts_ms] = one.close
        if one.reason not in NOT_ROLLED_OUT:
            rows[one.ts_ms][one.arm][one.symbol] = one
    bars = []
    for ts_ms, by_arm in sorted(rows.items()):
        acting = by_arm[RolloutArm.CANDIDATE] or by_arm[RolloutArm.STABLE]
        paired = [
            PairedRow(
                symbol=one.symbol,
                candidate=candidate,
                stable=_stable(one, shadows, is_proxy=stable_is_proxy),
                label=_label(one, closes, outcomes, horizon_ms),
            )
            for _, one in sorted(acting.items())
            if (candidate := _candidate(one, shadows)) is not None
        ]
        if paired:
            bars.append(PairedBar(ts_ms=ts_ms, rows=tuple(paired)))
    return tuple(bars)


def _candidate(one: ArmDecision, shadows: Mapping[RowKey, Answer]) -> Answer | None:
    return _acting(one) if one.arm is RolloutArm.CANDIDATE else shadows.get(one.key)


def _stable(one: ArmDecision, shadows: Mapping[RowKey, Answer], *, is_proxy: bool) -> Answer | None:
    if is_proxy:
        return Answer(p_bps=one.proxy_p_bps)
    return _acting(one) if one.arm is RolloutArm.STABLE else shadows.get(one.key)


def _acting(one: ArmDecision) -> Answer | None:
    """Give what the model of the plan itself said; None where it was not asked at all."""
    if one.reason is not None:
        return Answer(p_bps=None, reason=one.reason)
    return Answer(p_bps=one.p_bps) if one.p_bps is not None else None


def _label(
    one: ArmDecision,
    closes: Mapping[tuple[str, int], Decimal],
    outcomes: Mapping[RowKey, bool],
    horizon_ms: int,
) -> bool | None:
    if one.key in outcomes:
        return outcomes[one.key]
    later = closes.get((one.symbol, one.ts_ms + horizon_ms))
    return None if later is None else later > one.close
