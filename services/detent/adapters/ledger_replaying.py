"""Decide what a ledger holds once more, where it lies: from its text alone, without a service."""

from collections.abc import Iterator, Sequence
from functools import partial

import msgspec

from detent.adapters.ledger_reading import (
    LedgerReader,
    check_plan_known,
    plan_row,
    record_row,
)
from detent.adapters.ledger_spans import SHARED_ROWS_MIN, Span, spread
from detent.adapters.plan_texts import bound_of
from detent.adapters.sqlite_ledger import Written, written_of
from detent.contracts.calls.ledger import ReplayDecisionResponse
from detent.contracts.canonical import sha256_hex
from detent.contracts.decision import DecisionRecord
from detent.contracts.errors import DecisionNotFound, DetentError, PlanNotFound
from detent.core.ledger.chain import StoredRecord
from detent.core.ledger.record import (
    CHAIN_START,
    BoundPlan,
    ChainPoint,
    carried_from,
    chain_point_after,
    chain_start,
    replay_decision,
)

DIFFERENCES_MAX = 100


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Names one record that is not decided the same again, and why."""

    plan_id: str
    symbol: str
    sequence: int
    record_hash: str
    message: str


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what a replay of many records found; no differences means the same bytes.

    Attributes:
        record_count: The records that were decided again.
        difference_count: Those that came out otherwise.
        differences: The first `DIFFERENCES_MAX` of them.
    """

    record_count: int
    difference_count: int
    differences: tuple[Difference, ...]


def find_record(readers: Sequence[LedgerReader], record_hash: str) -> Written:
    """Give a record by its hash, from the first reader that has it.

    Raises:
        DecisionNotFound: None has it.
        LedgerUnavailable: One cannot be read.
    """
    for reader in readers:
        row = record_row(reader, record_hash)
        if row is not None:
            return written_of(row)
    message = f"the ledger holds no record {record_hash}"
    raise DecisionNotFound(message, record_hash=record_hash)


def replay_one(readers: Sequence[LedgerReader], record_hash: str) -> ReplayDecisionResponse:
    """Decide one recorded bar again, from its probabilities on, and give both bytes.

    Raises:
        DecisionNotFound: No reader has the record, or the one that it goes on from.
        PlanNotFound: None has the plan.
        LedgerUnavailable: One cannot be read.
    """
    written = find_record(readers, record_hash)
    bound = _find_plan(readers, written.record.plan_id)
    point = _point_before(readers, written.record)
    replayed = replay_decision(written.record, bound=bound, point=point).canonical
    return ReplayDecisionResponse(
        record_hash=written.record_hash,
        replayed_hash=sha256_hex(replayed),
        recorded_json=written.canonical.decode("ascii"),
        replayed_json=replayed.decode("ascii"),
    )


def _point_before(readers: Sequence[LedgerReader], record: DecisionRecord) -> ChainPoint:
    """Find where the chain stood before a record."""
    if record.sequence > 0:
        before = find_record(readers, record.previous_hash)
        return chain_point_after(before.record, before.record_hash)
    if record.carried is None:
        return CHAIN_START
    # From the record that it cites, not from what it says of it.
    cited = find_record(readers, record.carried.record_hash)
    return chain_start(carried_from(cited.record, cited.record_hash))


def replay_all(
    reader: LedgerReader,
    plan_id: str = "",
    *,
    workers: int = 1,
    shared_rows_min: int = SHARED_ROWS_MIN,
) -> Replayed:
    """Decide every record of a plan again, or of all when the name is empty.

    A record builds on the text of the one before it, not on what its replay gave: one that
    differs is named once, and not everything after it as well.

    Args:
        reader: Where the ledger lies.
        plan_id: Only this plan; empty replays all.
        workers: Processes that share the records.
        shared_rows_min: Records from which on they do.

    Raises:
        PlanNotFound: The ledger has not heard of the plan.
        LedgerUnavailable: It cannot be read.
    """
    counts = reader.symbol_counts(plan_id) if workers > 1 else ()
    walk = partial(_replay, reader, plan_id)
    parts = spread(walk, counts, workers=workers, shared_rows_min=shared_rows_min)
    record_count = sum(part.record_count for part in parts)
    if plan_id and not record_count:
        check_plan_known((reader,), plan_id)
    return Replayed(
        record_count=record_count,
        difference_count=sum(part.difference_count for part in parts),
        differences=tuple(one for part in parts for one in part.differences)[:DIFFERENCES_MAX],
    )


def _replay(reader: LedgerReader, plan_id: str, span: Span) -> Replayed:
    record_count = difference_count = 0
    differences: list[Difference] = []
    for row, message in _replayed(reader, plan_id, span):
        record_count += 1
        if message is None:
            continue
        difference_count += 1
        if len(differences) < DIFFERENCES_MAX:
            differences.append(_difference(row, message))
    return Replayed(
        record_count=record_count,
        difference_count=difference_count,
        differences=tuple(differences),
    )


def _replayed(
    reader: LedgerReader, plan_id: str, span: Span
) -> Iterator[tuple[StoredRecord, str | None]]:
    """Give every record with what is wrong with it, or None."""
    plans: dict[str, BoundPlan] = {}
    points: dict[tuple[str, str], ChainPoint] = {}
    for row in reader.stored(plan_id, span):
        of_plan, symbol, _, _, _, record_hash, canonical = row
        chain = of_plan, symbol
        try:
            record = written_of((canonical.decode("ascii"), record_hash)).record
            if of_plan not in plans:
                plans[of_plan] = _find_plan([reader], of_plan)
            if chain not in points:
                points[chain] = _point_before([reader], record)
            yield row, _judged(row, record, plans[of_plan], points[chain])
            points[chain] = chain_point_after(record, sha256_hex(canonical))
        # Whoever rewrote a record may have written anything: our own checks may break on it.
        except (DetentError, AssertionError, AttributeError, UnicodeError) as error:
            message = error.message if isinstance(error, DetentError) else type(error).__name__
            yield row, f"it cannot be decided again: {message}"


def _judged(
    row: StoredRecord, record: DecisionRecord, bound: BoundPlan, point: ChainPoint
) -> str | None:
    *_, record_hash, canonical = row
    found_hash = sha256_hex(canonical)
    if found_hash != record_hash:
        return f"the bytes hash to {found_hash}, the row says {record_hash}"
    replayed = replay_decision(record, bound=bound, point=point).canonical
    if replayed == canonical:
        return None
    return f"decided again it hashes to {sha256_hex(replayed)}"


def _difference(row: StoredRecord, message: str) -> Difference:
    plan_id, symbol, _, _, sequence, record_hash, _ = row
    return Difference(
        plan_id=str(plan_id),
        symbol=str(symbol),
        sequence=sequence if isinstance(sequence, int) else -1,
        record_hash=str(record_hash),
        message=message,
    )


def _find_plan(readers: Sequence[LedgerReader], plan_id: str) -> BoundPlan:
    for reader in readers:
        row = plan_row(reader, plan_id)
        if row is not None:
            return bound_of(row)
    raise PlanNotFound(f"no plan is named {plan_id!r}", plan_id=plan_id)
