"""Take the weight of each decision apart, step by step, and price each step.

Source: FORMULAS 2.1 for the steps; implementation shortfall (Perold 1988) for the price of
execution, with the close of the decided bar as the price of the decision; ADR 0031.
"""

import bisect
from collections.abc import Mapping, Sequence
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction

import msgspec
from msgspec import structs

from detent.contracts.binding import SignalSource
from detent.contracts.decision import DecisionRecord
from detent.contracts.plan import STATE_INITIAL, OrderStyle
from detent.contracts.reasons import Reason
from detent.contracts.trades import Fill
from detent.contracts.units import PPM_ONE, divide_half_even
from detent.core.ledger.exact_money import (
    EXACT,
    ZERO,
    exact_difference,
    exact_product,
    exact_sum,
    rounded,
)
from detent.core.ledger.record import BoundPlan, check_probabilities, policy_inputs
from detent.core.policy.weight import DIRECTION, wanted_weight
from detent.core.signals.strength import signal_strength_bps


class Part(StrEnum):
    """Names a step toward the position that was held, or what it cost to take it."""

    TRIGGER = "trigger"
    PROXY_SIGNAL = "proxy_signal"
    MODEL_SIGNAL = "model_signal"
    SMOOTHING = "smoothing"
    LIMITS = "limits"
    WITHHELD = "withheld"
    UNFILLED = "unfilled"
    SLIPPAGE = "slippage"
    FEES = "fees"


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """Holds one decision with the amounts of its parts.

    Attributes:
        record: The decision.
        record_hash: Its hash, 64 hex.
        parts: Amount of every part, account currency.
        unlinked: Fills that count here by their time, because nobody knows their decision.
    """

    record: DecisionRecord
    record_hash: str
    parts: dict[Part, Decimal]
    unlinked: tuple[str, ...]


def usual_sizes(records: Sequence[DecisionRecord]) -> dict[str, int]:
    """Give the mean magnitude that signals asked for where a direction was allowed, by plan.

    It is the size at which a trigger is judged: whatever it is, the steps add up. With the
    mean the step from it to the signal's own size measures timing, and that alone: a signal
    that sizes all bars alike is worth nothing beyond its trigger.

    Returns:
        Parts per million, rounded half to even.
    """
    sizes: dict[str, list[int]] = {}
    for record in records:
        if DIRECTION[record.row.trigger_state] != 0:
            magnitude_ppm = abs(record.outcome.target_weight_raw_ppm)
            sizes.setdefault(record.plan_id, []).append(magnitude_ppm)
    return {plan_id: divide_half_even(sum(each), len(each)) for plan_id, each in sizes.items()}


def steps_of(
    records: Sequence[DecisionRecord],
    fills: Sequence[Fill],
    *,
    plans: Mapping[str, BoundPlan],
    sizes: Mapping[str, int],
) -> list[Step]:
    """Price the steps of every decision of one book and symbol.

    Args:
        records: In their order, at least 1.
        fills: Of the same book and symbol.
        plans: The plans of the records, by name.
        sizes: What `usual_sizes` gave.

    Raises:
        InvalidField: A record holds probabilities that no core of ours has written.
    """
    hashes = [record.record_hash for record in records]
    linked, unlinked = _linked(records, hashes, fills)
    held = ZERO
    steps = []
    for index, record in enumerate(records):
        own = linked.get(index, [])
        close = record.row.bar_close
        next_close = records[min(index + 1, len(records) - 1)].row.bar_close
        move = exact_difference(next_close, close)
        held = exact_sum([held, *(fill.signed_quantity for fill in own)])
        weights = _weights(record, plans[record.plan_id], sizes.get(record.plan_id, 0))
        parts = _priced(record, weights, held=held, move=move)
        parts[Part.SLIPPAGE] = exact_sum(
            exact_product(fill.signed_quantity, exact_difference(close, fill.price)) for fill in own
        )
        parts[Part.FEES] = exact_sum(fill.fee.copy_negate() for fill in own)
        steps.append(
            Step(
                record=record,
                record_hash=hashes[index],
                parts=parts,
                unlinked=tuple(fill.fill_id for fill in own if fill.fill_id in unlinked),
            )
        )
    return steps


def _linked(
    records: Sequence[DecisionRecord], hashes: Sequence[str], fills: Sequence[Fill]
) -> tuple[dict[int, list[Fill]], frozenset[str]]:
    """Give the fills of every decision, and the names of those that time alone puts there."""
    places = {record_hash: index for index, record_hash in enumerate(hashes)}
    times = [record.ts_ms for record in records]
    linked: dict[int, list[Fill]] = {}
    unlinked = set()
    for fill in fills:
        place = places.get(fill.record_hash or "")
        if place is None:
            unlinked.add(fill.fill_id)
            place = max(0, bisect.bisect_right(times, fill.ts_ms) - 1)
        linked.setdefault(place, []).append(fill)
    return linked, frozenset(unlinked)


def _weights(record: DecisionRecord, bound: BoundPlan, size_ppm: int) -> dict[Part, int]:
    """Give the weight after every step of a decision, in parts per million."""
    outcome = record.outcome
    trades = outcome.order_style is not OrderStyle.NONE
    current_ppm = record.row.position.current_weight_ppm
    return {
        Part.TRIGGER: DIRECTION[record.row.trigger_state] * size_ppm,
        Part.PROXY_SIGNAL: _proxy_weight(record, bound),
        Part.MODEL_SIGNAL: outcome.target_weight_raw_ppm,
        Part.SMOOTHING: outcome.target_weight_policy_ppm,
        Part.LIMITS: outcome.target_weight_final_ppm,
        Part.WITHHELD: outcome.target_weight_final_ppm if trades else current_ppm,
    }


def _proxy_weight(record: DecisionRecord, bound: BoundPlan) -> int:
    """Give the weight that the proxy's answer would have asked for on this bar."""
    signal = record.signal
    check_probabilities(signal)
    if signal.signal_source is SignalSource.PROXY:
        return record.outcome.target_weight_raw_ppm
    strength_bps: int | None = None
    if signal.proxy_reason is not Reason.PROXY_WARMING_UP:
        strength_bps = signal_strength_bps(signal.proxy_p_hat_bps, record.row.trigger_state)
    inputs = policy_inputs(
        plan=bound.plan,
        ts_ms=record.ts_ms,
        kind=record.kind,
        row=record.row,
        signal=None,
        state=STATE_INITIAL,
    )
    asked = structs.replace(inputs, signal_strength_bps=strength_bps)
    return wanted_weight(asked).target_weight_raw_ppm


def _priced(
    record: DecisionRecord, weights: Mapping[Part, int], *, held: Decimal, move: Decimal
) -> dict[Part, Decimal]:
    """Price every step by what the price did until the next decision.

    Units are rounded to 12 places, which moves amounts between neighbouring steps by less
    than anyone can be paid, and their sum not at all.
    """
    if not move:
        return dict.fromkeys([*weights, Part.UNFILLED], ZERO)
    per_ppm = Fraction(record.row.position.equity) / (PPM_ONE * Fraction(record.row.bar_close))
    reached = [ZERO, *(rounded(weight_ppm * per_ppm) for weight_ppm in weights.values()), held]
    return {
        part: exact_product(EXACT.subtract(reached[index + 1], reached[index]), move)
        for index, part in enumerate([*weights, Part.UNFILLED])
    }
