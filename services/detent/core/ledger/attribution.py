"""Split what a book earned into what each layer did, exactly, with the decisions behind it.

On every bar the weight that was held is reached from nothing in steps, each the work of one
layer: the trigger's direction at the usual size, the size that the proxy gives, the size that
the model gives instead, smoothing and withheld trades, limits and exits, and what the venue
made of it. A step times what the price did until the next bar is that layer's amount. The
steps add up to the position, so the amounts add up to the cash: nothing is left over.

Source: seed 000, section 8; FORMULAS 2.6; rows R248 and R350; ADR 0031.
"""

import itertools
from collections.abc import Mapping, Sequence
from decimal import Decimal
from enum import StrEnum

import msgspec

from detent.contracts.decision import DecisionRecord
from detent.contracts.errors import InvalidField
from detent.contracts.trades import Fill
from detent.core.ledger.attribution_steps import Part, Step, steps_of, usual_sizes
from detent.core.ledger.chain import ChainKey
from detent.core.ledger.exact_money import ZERO, exact_difference, exact_product, exact_sum
from detent.core.ledger.record import BoundPlan

RECORDS_MAX = 1_000_000
EVIDENCE_MAX = 5


class Layer(StrEnum):
    """Names who can be the cause; PLAN earns nothing by itself and is judged, not measured."""

    PLAN = "plan"
    TRIGGER = "trigger"
    SIGNAL_SOURCE = "signal_source"
    POLICY = "policy"
    SAFETY = "safety"
    EXECUTION = "execution"


LAYER_OF = {
    Part.TRIGGER: Layer.TRIGGER,
    Part.PROXY_SIGNAL: Layer.SIGNAL_SOURCE,
    Part.MODEL_SIGNAL: Layer.SIGNAL_SOURCE,
    Part.SMOOTHING: Layer.POLICY,
    Part.LIMITS: Layer.SAFETY,
    Part.WITHHELD: Layer.POLICY,
    Part.UNFILLED: Layer.EXECUTION,
    Part.SLIPPAGE: Layer.EXECUTION,
    Part.FEES: Layer.EXECUTION,
}
MEASURED = (Layer.TRIGGER, Layer.SIGNAL_SOURCE, Layer.POLICY, Layer.SAFETY, Layer.EXECUTION)


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Names one decision and what a layer's part earned on it.

    Attributes:
        record_hash: The decision, 64 hex.
        symbol: Instrument.
        ts_ms: Close of its bar.
        amount: Account currency.
    """

    record_hash: str
    symbol: str
    ts_ms: int
    amount: Decimal


class LayerAmount(msgspec.Struct, frozen=True, kw_only=True):
    """Says what one layer did.

    Attributes:
        layer: Which one.
        amount: Account currency; the sum of its parts.
        parts: Part and amount, in order of the steps.
        gain: Sum of the decisions on which it earned.
        loss: Sum of the decisions on which it lost, at most 0.
        decision_count: Decisions on which it was not 0.
        evidence: The decisions that moved it most, at most `EVIDENCE_MAX`.
    """

    layer: Layer
    amount: Decimal
    parts: tuple[tuple[Part, Decimal], ...]
    gain: Decimal
    loss: Decimal
    decision_count: int
    evidence: tuple[Evidence, ...]


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what was earned, and by whom.

    Attributes:
        total: Cash of all fills, and what is still held at the last close.
        layers: One per layer of `MEASURED`.
        residual: Total minus the layers; 0, or the arithmetic is broken.
        decision_count: Decisions that were split.
        last_record_hash: The last of them, by book, symbol and time.
        unlinked_fill_ids: Fills whose decision is not among them; they count for the last
            decision before them.
    """

    total: Decimal
    layers: tuple[LayerAmount, ...]
    residual: Decimal
    decision_count: int
    last_record_hash: str
    unlinked_fill_ids: tuple[str, ...]

    def amount_of(self, layer: Layer) -> Decimal:
        """Give what one layer did; 0 for the plan, which is not measured."""
        return next((one.amount for one in self.layers if one.layer is layer), ZERO)


def split_total(
    records: Sequence[DecisionRecord], fills: Sequence[Fill], plans: Mapping[str, BoundPlan]
) -> Split:
    """Split what fills earned over the decisions that asked for them.

    Args:
        records: Every decision of the books and the time in question, 1 to `RECORDS_MAX`, in
            any order.
        fills: Every fill of the same; positions begin flat.
        plans: The plans of the records, by name.

    Returns:
        The split. The order of its inputs changes nothing.

    Raises:
        InvalidField: There are none or too many records, one holds probabilities that no core of
            ours has written, a plan is missing, or there are fills of a book and symbol without
            any decision.
    """
    if not 1 <= len(records) <= RECORDS_MAX:
        raise InvalidField("records", f"{len(records)} items", f"1 to {RECORDS_MAX} items")
    missing = {record.plan_id for record in records} - set(plans)
    if missing:
        raise InvalidField("plans", f"none named {min(missing)!r}", "the plan of every record")
    sizes = usual_sizes(records)
    by_place: dict[tuple[str, str], list[Fill]] = {}
    for fill in sorted(fills, key=lambda fill: fill.fill_id):
        by_place.setdefault((fill.book, fill.symbol), []).append(fill)
    steps: list[Step] = []
    totals: list[Decimal] = []
    for place, group in itertools.groupby(_in_order(records), key=_place):
        own = by_place.pop(place, [])
        chain = steps_of(list(group), own, plans=plans, sizes=sizes)
        totals.append(_cash(own, chain[-1].record.row.bar_close))
        steps.extend(chain)
    if by_place:
        found = "/".join(min(by_place))
        raise InvalidField("fills", found, "fills of books and symbols that were decided")
    total = exact_sum(totals)
    layers = tuple(_layer_amount(layer, steps) for layer in MEASURED)
    return Split(
        total=total,
        layers=layers,
        residual=exact_difference(total, exact_sum(layer.amount for layer in layers)),
        decision_count=len(steps),
        last_record_hash=steps[-1].record_hash,
        unlinked_fill_ids=tuple(sorted(name for step in steps for name in step.unlinked)),
    )


def _place(record: DecisionRecord) -> tuple[str, str]:
    return record.book, record.row.symbol


def _in_order(records: Sequence[DecisionRecord]) -> list[DecisionRecord]:
    """Sort records by book, symbol and time; of one bar, those of a replaced plan come first.

    A plan that replaces another may be asked for an emergency on the bar that the other one
    decided last. Its sequence begins at 0 again and says nothing of which was first.
    """
    begun: dict[ChainKey, int] = {}
    replaced: dict[ChainKey, ChainKey] = {}
    for record in records:
        chain = record.plan_id, record.row.symbol
        begun[chain] = min(record.ts_ms, begun.get(chain, record.ts_ms))
        if record.carried is not None:
            replaced[chain] = record.carried.plan_id, record.row.symbol
    turns = _turns(replaced)

    def order(record: DecisionRecord) -> tuple[str, str, int, int, int, int, str]:
        chain = record.plan_id, record.row.symbol
        turn = begun[chain], turns.get(chain, 0)
        return *_place(record), record.ts_ms, *turn, record.sequence, record.plan_id

    return sorted(records, key=order)


def _turns(replaced: Mapping[ChainKey, ChainKey]) -> dict[ChainKey, int]:
    """Count, for every chain that goes on from another, how many there were before it."""
    turns: dict[ChainKey, int] = {}
    for begin in replaced:
        chain, way = begin, []
        while chain in replaced and chain not in turns:
            # A circle, which no ledger of ours writes, ends where it began.
            turns[chain] = 0
            way.append(chain)
            chain = replaced[chain]
        before = turns.get(chain, 0)
        turns.update((one, turn) for turn, one in enumerate(reversed(way), before + 1))
    return turns


def _cash(fills: Sequence[Fill], last_close: Decimal) -> Decimal:
    """Give what came in, minus what was paid, with what is still held at the last close."""
    held = exact_sum(fill.signed_quantity for fill in fills)
    paid = (exact_product(fill.signed_quantity, fill.price) for fill in fills)
    fees = (fill.fee for fill in fills)
    spent = exact_sum([*paid, *fees])
    return exact_difference(exact_product(held, last_close), spent)


def _layer_amount(layer: Layer, steps: Sequence[Step]) -> LayerAmount:
    """Add up what one layer did over all decisions, and find those that moved it most."""
    own = [part for part, of in LAYER_OF.items() if of is layer]
    moved = [(exact_sum(step.parts[part] for part in own), step) for step in steps]
    moved = [(amount, step) for amount, step in moved if amount]
    moved.sort(key=lambda pair: (-pair[0].copy_abs(), pair[1].record_hash))
    gain = exact_sum(amount for amount, _ in moved if amount > 0)
    loss = exact_sum(amount for amount, _ in moved if amount < 0)
    return LayerAmount(
        layer=layer,
        amount=exact_sum([gain, loss]),
        parts=tuple((part, exact_sum(step.parts[part] for step in steps)) for part in own),
        gain=gain,
        loss=loss,
        decision_count=len(moved),
        evidence=tuple(
            Evidence(
                record_hash=step.record_hash,
                symbol=step.record.row.symbol,
                ts_ms=step.record.ts_ms,
                amount=amount,
            )
            for amount, step in moved[:EVIDENCE_MAX]
        ),
    )
