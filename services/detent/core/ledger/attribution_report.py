"""Attribute the books of a ledger: profit together, every learning book for itself.

What learning earned or lost is in no number of the profit part (decision D24).

Source: rows R248, R250, R350, R352 and R353; ADR 0032.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal

import msgspec

from detent.contracts.binding import SignalSource
from detent.contracts.decision import DecisionRecord
from detent.contracts.errors import InvalidField
from detent.contracts.learning import LEARNING_BOOK_PREFIX, LearningTags
from detent.contracts.reasons import Reason
from detent.contracts.trades import Fill, Outcome, OutcomeLabel
from detent.contracts.units import BPS_ONE
from detent.core.ledger.attribution import Split, split_total
from detent.core.ledger.exact_money import exact_sum
from detent.core.ledger.record import BoundPlan
from detent.core.ledger.trade_sets import TradeSet, trade_sets
from detent.core.ledger.verdict import TradeMetrics, Verdict, judge, trade_metrics

PROFIT = "profit"
BREACHES_MAX = 100


class SourceQuality(msgspec.Struct, frozen=True, kw_only=True):
    """Compares the model with the proxy on the bars where both answered and time has told.

    Attributes:
        outcome_count: Such bars; an outcome of FLAT counts as not up.
        model_error_sum: Sum of (p - y)^2 in squared basis points: the model's Brier score
            times `outcome_count` times 10^8.
        proxy_error_sum: The same of the proxy, on the same bars.
        model_count: Bars that the model answered.
        fallbacks: Reason and count of the bars that the proxy answered for it.
    """

    outcome_count: int
    model_error_sum: int
    proxy_error_sum: int
    model_count: int
    fallbacks: tuple[tuple[Reason, int], ...]


class BookAttribution(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the attribution of the profit books, or of one learning book.

    Attributes:
        name: `profit`, or the name of the learning book.
        split: Who earned what.
        sets: From flat to flat.
        metrics: What became of them.
        source: Model and proxy against what happened.
        verdict: Who did it; None when nothing was traded.
    """

    name: str
    split: Split
    sets: tuple[TradeSet, ...]
    metrics: TradeMetrics
    source: SourceQuality
    verdict: Verdict | None


class Experiment(msgspec.Struct, frozen=True, kw_only=True):
    """Says what one experiment's trade sets earned so far; never part of any profit."""

    tags: LearningTags
    set_count: int
    net: Decimal


class AttributionReport(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the attribution of a ledger.

    Attributes:
        profit: The profit books; None when there are none.
        learning: The learning books, by name.
        experiments: What each experiment earned, by its tags.
        breaches: Where a trade's tags are not those of its decision or of its set; at most
            `BREACHES_MAX` are written out.
    """

    profit: BookAttribution | None
    learning: tuple[BookAttribution, ...]
    experiments: tuple[Experiment, ...]
    breaches: tuple[str, ...]


def attribute(
    records: Sequence[DecisionRecord],
    fills: Sequence[Fill],
    outcomes: Sequence[Outcome],
    *,
    plans: Mapping[str, BoundPlan],
    plan_score: int | None = None,
) -> AttributionReport:
    """Attribute everything that is in a window of a ledger.

    Args:
        records: Decisions, at least one, in any order.
        fills: What was executed for them.
        outcomes: How their bars turned out, as far as known.
        plans: The plans of the records, by name.
        plan_score: What a judge of plans gave, [0, 100]; None when nobody did.

    Raises:
        InvalidField: There is no decision, or see `split_total`, `trade_sets` and `judge`.
    """
    if not records:
        raise InvalidField("records", "(none)", "at least one decision")
    parts = {}
    for name in sorted({_part_of(record.book) for record in records}):
        parts[name] = _part(
            name,
            [record for record in records if _part_of(record.book) == name],
            [fill for fill in fills if _part_of(fill.book) == name],
            outcomes,
            plans=plans,
            plan_score=plan_score,
        )
    strangers = sorted({fill.book for fill in fills if _part_of(fill.book) not in parts})
    if strangers:
        raise InvalidField("fills", strangers[0], "fills of books that were decided")
    learning = tuple(part for name, part in parts.items() if name != PROFIT)
    return AttributionReport(
        profit=parts.get(PROFIT),
        learning=learning,
        experiments=_experiments(learning),
        breaches=_breaches(records, fills, learning),
    )


def _part_of(book: str) -> str:
    return book if book.startswith(LEARNING_BOOK_PREFIX) else PROFIT


def _part(
    name: str,
    records: Sequence[DecisionRecord],
    fills: Sequence[Fill],
    outcomes: Sequence[Outcome],
    *,
    plans: Mapping[str, BoundPlan],
    plan_score: int | None,
) -> BookAttribution:
    split = split_total(records, fills, plans)
    sets = trade_sets(fills)
    emergencies = [one.record_hash for one in records if _left_in_an_emergency(one)]
    metrics = trade_metrics(sets, emergencies=emergencies)
    return BookAttribution(
        name=name,
        split=split,
        sets=sets,
        metrics=metrics,
        source=_source_quality(records, outcomes),
        verdict=judge(split, sets, metrics, plan_score=plan_score) if sets else None,
    )


def _left_in_an_emergency(record: DecisionRecord) -> bool:
    """Say whether an emergency closed a position; one that finds nothing to close did not."""
    executed = Reason.EMERGENCY_EXIT_EXECUTED in record.outcome.reasons
    return executed and record.row.position.current_weight_ppm != 0


def _source_quality(
    records: Sequence[DecisionRecord], outcomes: Sequence[Outcome]
) -> SourceQuality:
    """Score model and proxy in integers, on the same bars."""
    labels = {(one.plan_id, one.symbol, one.ts_ms): one.label for one in outcomes}
    model_errors, proxy_errors = [], []
    model_count = 0
    fallbacks: Counter[Reason] = Counter()
    for record in records:
        signal = record.signal
        if signal.fallback_reason is not None:
            fallbacks[signal.fallback_reason] += 1
        if signal.signal_source is not SignalSource.MODEL:
            continue
        model_count += 1
        label = labels.get((record.plan_id, record.row.symbol, record.ts_ms))
        if label is not None:
            came_true = BPS_ONE if label is OutcomeLabel.UP else 0
            model_errors.append((signal.p_hat_bps - came_true) ** 2)
            proxy_errors.append((signal.proxy_p_hat_bps - came_true) ** 2)
    return SourceQuality(
        outcome_count=len(model_errors),
        model_error_sum=sum(model_errors),
        proxy_error_sum=sum(proxy_errors),
        model_count=model_count,
        fallbacks=tuple(sorted(fallbacks.items(), key=lambda pair: (-pair[1], pair[0].value))),
    )


def _experiments(parts: Sequence[BookAttribution]) -> tuple[Experiment, ...]:
    """Add up the sets of each experiment; a set of two experiments belongs to neither."""
    sets: dict[tuple[str, str], list[TradeSet]] = {}
    for part in parts:
        for item in part.sets:
            if len(item.learning) == 1:
                tags = item.learning[0]
                key = (tags.experiment_id, tags.experiment_variant or "")
                sets.setdefault(key, []).append(item)
    return tuple(
        Experiment(
            tags=own[0].learning[0], set_count=len(own), net=exact_sum(item.net for item in own)
        )
        for _, own in sorted(sets.items())
    )


def _breaches(
    records: Sequence[DecisionRecord], fills: Sequence[Fill], parts: Sequence[BookAttribution]
) -> tuple[str, ...]:
    """Find every trade whose tags changed on the way from its decision to here."""
    tags = {record.record_hash: record.learning for record in records}
    found = [
        f"fill {fill.fill_id} carries {_shown(fill.learning)}, its decision"
        f" {fill.record_hash[:16]} {_shown(tags[fill.record_hash])}"
        for fill in sorted(fills, key=lambda fill: fill.fill_id)
        if fill.record_hash in tags
        and fill.record_hash is not None
        and fill.learning != tags[fill.record_hash]
    ]
    found += [
        f"trade set {item.trade_set_id} carries the tags of {len(item.learning)} experiments"
        for part in parts
        for item in part.sets
        if len(item.learning) > 1
    ]
    return tuple(found[:BREACHES_MAX])


def _shown(tags: LearningTags | None) -> str:
    if tags is None:
        return "no tags"
    variant = "" if tags.experiment_variant is None else f"/{tags.experiment_variant}"
    return f"{tags.experiment_id}{variant}"
