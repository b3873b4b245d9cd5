"""Name the one layer that a window is put down to, and what that permits.

A verdict has exactly one primary, its evidence is never empty, and most actions are reserved
to one cause. Where the evidence is thin the action is to hold: no data is not evidence.

Source: FORMULAS 2.6 for the words and thresholds; seed 000, section 8, for the layer of the
signal source; rows R248 and R350; ADR 0031.
"""

from collections.abc import Sequence
from decimal import Decimal
from enum import StrEnum

import msgspec

from detent.contracts.checks import check_int
from detent.contracts.errors import InvalidField
from detent.core.ledger.attribution import EVIDENCE_MAX, MEASURED, Layer, Split
from detent.core.ledger.attribution_steps import Part
from detent.core.ledger.exact_money import ZERO, exact_sum
from detent.core.ledger.trade_sets import TradeSet

# Shares as numerator and denominator: no float decides who is to blame.
EMERGENCY_SHARE_MAX = (30, 100)
WIN_RATE_LOW = (35, 100)
WIN_RATE_FAIR = (45, 100)
LOSSES_IN_A_ROW = 4
SCORE_OF_A_BAD_PLAN = 40
SCORE_OF_A_GOOD_ONE = 60
# Below this nothing but holding is permitted.
DECISIONS_MIN = 30
CLOSED_SETS_MIN = 1
SETS_SHOWN = 5


class Confidence(StrEnum):
    """Says how much of the harm the primary layer did."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class Action(StrEnum):
    """Says what a verdict permits; `USE_PROXY` is the rollback of one field (P10)."""

    HOLD = "hold"
    POLICY_ADJUST = "policy_adjust"
    REPLAN = "replan"
    INVESTIGATE_EXECUTION = "investigate_execution"
    STAND_DOWN = "stand_down"
    USE_PROXY = "use_proxy"


# What is not named here any cause permits: to wait, and to stop.
RESERVED = {
    Action.REPLAN: frozenset({Layer.PLAN, Layer.TRIGGER}),
    Action.POLICY_ADJUST: frozenset({Layer.POLICY}),
    Action.INVESTIGATE_EXECUTION: frozenset({Layer.EXECUTION}),
    Action.USE_PROXY: frozenset({Layer.SIGNAL_SOURCE}),
}


class TradeMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """Counts what became of the trade sets of a window; only closed ones win or lose.

    Attributes:
        closed_count: Sets that are flat again.
        win_count: Of these, those that earned after fees.
        gross_win: What they earned.
        gross_loss: What the others lost, at least 0.
        losses_in_a_row: Longest run of losing sets, by the time of their end.
        emergencies: Decisions that executed an emergency exit, by their hashes.
    """

    closed_count: int
    win_count: int
    gross_win: Decimal
    gross_loss: Decimal
    losses_in_a_row: int
    emergencies: tuple[str, ...]

    @property
    def mostly_emergencies(self) -> bool:
        """Say whether emergency exits are more of the closed sets than is usual."""
        return _exceeds(len(self.emergencies), self.closed_count, EMERGENCY_SHARE_MAX)

    @property
    def wins_rarely(self) -> bool:
        """Say whether fewer of the closed sets won than a sound trigger lets win."""
        return self.win_count * WIN_RATE_LOW[1] < self.closed_count * WIN_RATE_LOW[0]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """States who did it, how sure that is, and what may be done.

    Attributes:
        primary: The one cause.
        secondary: Other layers that lost, the worst first.
        confidence: LOW permits nothing but to hold.
        action: What is permitted.
        because: The rule that decided.
        metrics: Numbers by name, at least one.
        trade_sets: The sets behind it, the worst first, at least one.
        events: The decisions behind it, by their hashes, at least one.
    """

    primary: Layer
    secondary: tuple[Layer, ...]
    confidence: Confidence
    action: Action
    because: str
    metrics: tuple[tuple[str, str], ...]
    trade_sets: tuple[str, ...]
    events: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse an action that its cause does not permit, and a verdict without evidence."""
        allowed = RESERVED.get(self.action)
        if allowed is not None and self.primary not in allowed:
            expected = f"a primary of {', '.join(sorted(allowed))} for {self.action}"
            raise InvalidField("primary", self.primary, expected)
        if self.primary in self.secondary:
            raise InvalidField("secondary", self.primary, "other layers than the primary")
        if self.confidence is Confidence.LOW and self.action is not Action.HOLD:
            raise InvalidField("action", self.action, "hold, where confidence is low")
        for name in ("metrics", "trade_sets", "events"):
            if not getattr(self, name):
                raise InvalidField(name, "(none)", "evidence")


def trade_metrics(sets: Sequence[TradeSet], *, emergencies: Sequence[str]) -> TradeMetrics:
    """Count what became of trade sets; a set that earned exactly 0 did not win."""
    closed = sorted(
        (item for item in sets if item.closed),
        key=lambda item: (item.legs[-1].fill.ts_ms, item.trade_set_id),
    )
    longest = run = 0
    for item in closed:
        run = run + 1 if item.net < 0 else 0
        longest = max(longest, run)
    return TradeMetrics(
        closed_count=len(closed),
        win_count=sum(item.net > 0 for item in closed),
        gross_win=exact_sum(item.net for item in closed if item.net > 0),
        gross_loss=exact_sum(item.net.copy_abs() for item in closed if item.net < 0),
        losses_in_a_row=longest,
        emergencies=tuple(sorted(emergencies)),
    )


def judge(
    split: Split,
    sets: Sequence[TradeSet],
    metrics: TradeMetrics,
    *,
    plan_score: int | None = None,
) -> Verdict:
    """Put a window down to one layer.

    Args:
        split: Who earned what.
        sets: Its trade sets, at least one.
        metrics: What became of them.
        plan_score: What a judge of plans gave it, [0, 100]; None when nobody did.

    Raises:
        InvalidField: The score is out of range, or there is no evidence to judge by.
    """
    if plan_score is not None:
        check_int("plan_score", plan_score, 0, 100)
    primary, because = _primary(split, metrics, plan_score)
    losers = sorted(
        (layer for layer in split.layers if layer.amount < 0),
        key=lambda layer: (layer.amount, MEASURED.index(layer.layer)),
    )
    confidence = _confidence(split, metrics, primary)
    # The worst first; where all is well, those that earned least.
    worst = sorted(sets, key=lambda item: (item.net, item.trade_set_id))[:SETS_SHOWN]
    return Verdict(
        primary=primary,
        secondary=tuple(layer.layer for layer in losers if layer.layer is not primary),
        confidence=confidence,
        action=_action(split, metrics, primary, confidence=confidence, plan_score=plan_score),
        because=because,
        metrics=_shown(split, metrics),
        trade_sets=tuple(item.trade_set_id for item in worst),
        events=_events(split, metrics, primary, worst),
    )


def _primary(split: Split, metrics: TradeMetrics, plan_score: int | None) -> tuple[Layer, str]:
    """Give the one cause and the rule that found it, in order of precedence."""
    if metrics.mostly_emergencies:
        return Layer.SAFETY, "emergency exits are more than 30 % of the closed sets"
    if plan_score is not None and plan_score < SCORE_OF_A_BAD_PLAN:
        return Layer.PLAN, f"the plan scores below {SCORE_OF_A_BAD_PLAN}"
    # Ties go to the layer that comes first: whoever feeds the others is asked first.
    if split.total < 0:
        worst = min(split.layers, key=lambda layer: (layer.amount, MEASURED.index(layer.layer)))
        return worst.layer, "it lost most"
    best = min(split.layers, key=lambda layer: (-layer.amount, MEASURED.index(layer.layer)))
    return best.layer, "nothing was lost in sum; it earned most"


def _exceeds(count: int, of: int, share: tuple[int, int]) -> bool:
    return count * share[1] > of * share[0]


def _confidence(split: Split, metrics: TradeMetrics, primary: Layer) -> Confidence:
    """Say how sure it is: by its share of the harm, one step up where the trades agree."""
    if split.decision_count < DECISIONS_MIN or metrics.closed_count < CLOSED_SETS_MIN:
        return Confidence.LOW
    if primary is Layer.PLAN or metrics.mostly_emergencies:
        return Confidence.HIGH
    sign = -1 if split.total < 0 else 1
    same = [one.amount.copy_abs() for one in split.layers if one.amount * sign > 0]
    harm, own = exact_sum(same), split.amount_of(primary).copy_abs()
    if 3 * own >= 2 * harm or (2 * own >= harm and _trades_agree(metrics, primary)):
        return Confidence.HIGH
    return Confidence.MEDIUM if 2 * own >= harm else Confidence.LOW


def _trades_agree(metrics: TradeMetrics, primary: Layer) -> bool:
    """Say whether the trade sets alone would have pointed there."""
    closed, wins = metrics.closed_count, metrics.win_count
    if primary is Layer.TRIGGER:
        return metrics.wins_rarely or metrics.losses_in_a_row >= LOSSES_IN_A_ROW
    if primary is Layer.POLICY:
        fairly = wins * WIN_RATE_FAIR[1] >= closed * WIN_RATE_FAIR[0]
        return fairly and metrics.gross_win < metrics.gross_loss
    return False


def _action(
    split: Split,
    metrics: TradeMetrics,
    primary: Layer,
    *,
    confidence: Confidence,
    plan_score: int | None,
) -> Action:
    """Give what the cause permits."""
    scored_well = plan_score is not None and plan_score >= SCORE_OF_A_GOOD_ONE
    if confidence is Confidence.LOW or scored_well:
        return Action.HOLD
    if primary is Layer.PLAN:
        return Action.REPLAN
    if split.total >= 0:
        return Action.HOLD
    match primary:
        case Layer.TRIGGER:
            hopeless = metrics.losses_in_a_row >= LOSSES_IN_A_ROW and metrics.wins_rarely
            return Action.STAND_DOWN if hopeless else Action.REPLAN
        case Layer.SIGNAL_SOURCE:
            # The proxy replaces a model that loses against it, and nothing replaces the proxy.
            by_model = dict(_layer_parts(split, primary))[Part.MODEL_SIGNAL]
            return Action.USE_PROXY if by_model < 0 else Action.HOLD
        case Layer.POLICY:
            return Action.POLICY_ADJUST
        case Layer.EXECUTION:
            return Action.INVESTIGATE_EXECUTION
        case _:
            return Action.HOLD


def _layer_parts(split: Split, layer: Layer) -> tuple[tuple[Part, Decimal], ...]:
    return next(one.parts for one in split.layers if one.layer is layer)


def _events(
    split: Split, metrics: TradeMetrics, primary: Layer, worst: Sequence[TradeSet]
) -> tuple[str, ...]:
    """Give the decisions behind the cause, the nearest to it that there are."""
    own = [found for one in split.layers if one.layer is primary for found in one.evidence]
    emergencies = metrics.emergencies[:EVIDENCE_MAX] if primary is Layer.SAFETY else ()
    found = [*emergencies, *(one.record_hash for one in own)]
    if not found:
        found = [one.record_hash for layer in split.layers for one in layer.evidence]
    if not found:
        found = [record_hash for item in worst for record_hash in item.record_hashes]
    return tuple(dict.fromkeys(found or [split.last_record_hash]))


def _shown(split: Split, metrics: TradeMetrics) -> tuple[tuple[str, str], ...]:
    """Write the numbers that the rules looked at."""
    amounts = [(f"amount_{one.layer}", str(one.amount)) for one in split.layers]
    names = ("closed_count", "win_count", "gross_win", "gross_loss", "losses_in_a_row")
    counts = [(name, str(getattr(metrics, name))) for name in names]
    counts.append(("emergency_count", str(len(metrics.emergencies))))
    total = ("total", str(split.total or ZERO))
    return (total, ("decision_count", str(split.decision_count)), *amounts, *counts)
