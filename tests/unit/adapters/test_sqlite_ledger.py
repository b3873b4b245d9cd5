"""Proves what the ledger keeps: each bar once, plans for good, and everything that was not one."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec import structs
from tests.builders import (
    HOUR_MS,
    OTHER_SYMBOL,
    START_MS,
    SYMBOL,
    model_binding,
    plan_of,
    record_of,
    row_of,
    written_of,
)

from detent.adapters.ledger_reading import SqliteReader, record_row
from detent.adapters.sqlite_ledger import BlockEvent, ModelInputRow, SqliteLedger, Written
from detent.adapters.sqlite_schema import BLOCK_EVENTS_KEPT, BY_HASH, IN_CHAIN, RUN_ROWS
from detent.contracts.binding import PROXY_BINDING
from detent.contracts.decision import DecisionKind, LocalAnswer
from detent.contracts.errors import BindingMismatch, LedgerUnavailable
from detent.contracts.plan import Plan, PlanStatus
from detent.contracts.reasons import Reason
from detent.core.ledger.record import CHAIN_START, BoundPlan, ChainPoint, bind_plan

BOUND = bind_plan(plan_of("plan", (SYMBOL, OTHER_SYMBOL)), model_binding())


@pytest.fixture(name="ledger")
async def _ledger(tmp_path: Path) -> AsyncIterator[SqliteLedger]:
    ledger = SqliteLedger(tmp_path / "ledger.sqlite")
    yield ledger
    await ledger.close()


def chain_of(
    length: int, *, bound: BoundPlan = BOUND, symbol: str = SYMBOL, first_bar: int = 0
) -> list[Written]:
    point, rows = CHAIN_START, []
    for bar in range(first_bar, first_bar + length):
        record = record_of(
            bound=bound,
            row=row_of(symbol, close=str(100 + bar)),
            ts_ms=START_MS + bar * HOUR_MS,
            point=point,
        )
        rows.append(written_of(record))
        point = ChainPoint(
            sequence=record.sequence + 1,
            previous_hash=record.record_hash,
            state=record.state_after,
        )
    return rows


async def test_a_record_is_found_by_its_key_and_by_its_hash(ledger: SqliteLedger) -> None:
    rows = chain_of(3)
    await ledger.add_records(rows)

    for item in rows:
        by_key = await ledger.find_record(
            plan_id="plan", symbol=SYMBOL, ts_ms=item.record.ts_ms, kind=DecisionKind.BAR
        )
        assert by_key == item
        assert await ledger.find_record_by_hash(item.record_hash) == item
    other = await ledger.find_record(
        plan_id="plan", symbol=SYMBOL, ts_ms=START_MS, kind=DecisionKind.EMERGENCY
    )
    assert other is await ledger.find_record_by_hash("0" * 64) is None


async def test_a_record_is_found_by_its_hash_in_whichever_part_it_lies(
    ledger: SqliteLedger,
) -> None:
    """Numbers as far apart as those of a long ledger; the last record of each part is found."""
    rows = chain_of(5)
    numbers = (1, 4_095, 4_096, 50_000, 1_000_000)
    sql = (
        "INSERT INTO decision_records (id, plan_id, symbol, ts_ms, kind, sequence, record_hash,"
        " canonical) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
    )
    filed = [
        (
            number,
            item.record.plan_id,
            item.record.row.symbol,
            item.record.ts_ms,
            item.record.kind.value,
            item.record.sequence,
            item.record_hash,
            item.canonical.decode(),
        )
        for number, item in zip(numbers, rows, strict=True)
    ]
    await ledger.file.write([(sql, filed)])
    reader = SqliteReader(ledger.path)

    for item in rows:
        assert await ledger.find_record_by_hash(item.record_hash) == item
        for asked in (item.record_hash, item.record_hash[:16]):
            assert record_row(reader, asked) == (item.canonical.decode(), item.record_hash)


@pytest.mark.parametrize(
    "asked", [" = ?", " IN (?, 'b')", " = ? AND substr(record_hash, 1, 64) = 'b'"]
)
async def test_the_search_by_hash_looks_into_the_index_alone(
    ledger: SqliteLedger, asked: str
) -> None:
    plan = await ledger.file.read(f"EXPLAIN QUERY PLAN {BY_HASH}{asked}", ("a",))

    assert plan[-1][-1] == (
        "SEARCH decision_records USING INDEX decision_records_part (<expr>=? AND <expr>=?)"
    )


async def test_a_summary_looks_at_the_records_of_its_plan_alone(ledger: SqliteLedger) -> None:
    """Nothing of the plan is decided meanwhile, however long the ledger is."""
    stranger = bind_plan(plan_of("stranger"), PROXY_BINDING)
    own = [*chain_of(3), *chain_of(2, symbol=OTHER_SYMBOL)]
    await ledger.add_records([*chain_of(5, bound=stranger), *own])
    plan = await ledger.file.read(f"EXPLAIN QUERY PLAN {RUN_ROWS}", ("plan", "plan"))

    found = await ledger.run_rows("plan")

    assert [row.record_hash for row in found] == [item.record_hash for item in own]
    assert await ledger.run_rows("nobody's") == []
    assert not [step for *_, step in plan if "SCAN decision_records" in step]


@pytest.mark.parametrize("again", ["same", "other content", "other place"])
async def test_a_key_is_used_once(ledger: SqliteLedger, again: str) -> None:
    (first, second) = chain_of(2)
    await ledger.add_records([first])
    record = first.record
    if again == "other content":
        record = record_of(bound=BOUND, row=row_of(close="99"))
    if again == "other place":
        record = structs.replace(second.record, sequence=0)

    with pytest.raises(LedgerUnavailable, match="UNIQUE"):
        await ledger.add_records([written_of(record)])

    assert (await ledger.verify("")).record_count == 1


async def test_records_of_one_call_are_kept_all_or_none(ledger: SqliteLedger) -> None:
    rows = chain_of(3)
    await ledger.add_records([rows[1]])

    with pytest.raises(LedgerUnavailable):
        await ledger.add_records([rows[0], rows[1], rows[2]])

    assert (await ledger.verify("")).record_count == 1


async def test_the_last_record_of_every_symbol_is_where_a_restart_begins(
    ledger: SqliteLedger,
) -> None:
    long, short = chain_of(5), chain_of(2, symbol=OTHER_SYMBOL)
    await ledger.add_records([*long, *short])

    last = await ledger.last_records(BOUND.plan)

    assert {item.record.row.symbol: item for item in last} == {
        SYMBOL: long[-1],
        OTHER_SYMBOL: short[-1],
    }
    assert await ledger.last_records(plan_of("other")) == []


async def test_a_restart_looks_for_the_end_of_each_chain_in_the_index(
    ledger: SqliteLedger,
) -> None:
    """A plan that rests does not make it walk over all that others wrote meanwhile."""
    lengths = {"A": 1, "B": 9, "C": 8, "D": 1, "E": 40, "F": 2}
    bound = bind_plan(plan_of("many", tuple(lengths)), PROXY_BINDING)
    chains = {name: chain_of(size, bound=bound, symbol=name) for name, size in lengths.items()}
    for chain in chains.values():
        await ledger.add_records(chain)
    steps = await ledger.file.read(f"EXPLAIN QUERY PLAN {IN_CHAIN}", (0, "many", "A"))

    last = await ledger.last_records(bound.plan)

    assert {item.record.row.symbol: item for item in last} == {
        name: chain[-1] for name, chain in chains.items()
    }
    assert "USING INDEX decision_records_chain (sequence=? AND plan_id=? AND symbol=?)" in str(
        steps
    )


async def test_a_plan_sees_its_own_closes_and_its_books_before_it(ledger: SqliteLedger) -> None:
    book = BOUND.plan.book
    later = bind_plan(structs.replace(plan_of("later"), book=book), PROXY_BINDING)
    stranger = bind_plan(plan_of("stranger"), PROXY_BINDING)
    for bound in (BOUND, later, stranger):
        await ledger.add_plan_event(bound, PlanStatus.OPEN)
    await ledger.add_records(chain_of(6))
    await ledger.add_records(chain_of(9, bound=stranger))

    async def seen(
        plan: Plan, *, since: int = 0, until: int = 10, symbol: str = SYMBOL
    ) -> list[float]:
        instants = (START_MS + bar * HOUR_MS for bar in (since, until))
        closes = (await ledger.closes_between(plan, *instants)).get(symbol, {})
        assert [*closes] == sorted(closes)
        return [*closes.values()]

    assert await seen(later.plan) == [100, 101, 102, 103, 104, 105]
    assert await seen(later.plan, until=4) == [100, 101, 102, 103]
    assert await seen(later.plan, since=4) == [104, 105]
    assert await seen(later.plan, symbol=OTHER_SYMBOL) == []
    # From its first record on, its past is its own: bar 5 of the other plan is not in it.
    await ledger.add_records(chain_of(1, bound=later, first_bar=4))
    assert await seen(later.plan) == [100, 101, 102, 103, 104]


async def test_plans_are_kept_with_their_bindings_open_and_closed(ledger: SqliteLedger) -> None:
    other = bind_plan(plan_of("other"), PROXY_BINDING)
    for bound in (BOUND, other):
        await ledger.add_plan_event(bound, PlanStatus.OPEN)
    await ledger.add_plan_event(other, PlanStatus.CLOSED)

    assert await ledger.open_plans() == [BOUND]
    assert await ledger.find_plan("plan") == (BOUND, PlanStatus.OPEN)
    assert await ledger.find_plan("other") == (other, PlanStatus.CLOSED)
    assert await ledger.find_plan("none") is None


async def test_refusals_late_answers_and_local_answers_have_tables_of_their_own(
    ledger: SqliteLedger, tmp_path: Path
) -> None:
    (item,) = chain_of(1)
    error = BindingMismatch("A" * 64, "a" * 64)
    event = BlockEvent(
        at_ms=1, method="PolicyService/X", plan_id="plan", binding_hash="A", ts_ms=2, error=error
    )
    answer = LocalAnswer(
        ts_ms=START_MS,
        kind=DecisionKind.BAR,
        row=row_of(),
        target_weight_final_ppm=0,
        reason=Reason.CLIENT_NO_SERVICE,
    )

    await ledger.add_block_events([event])
    await ledger.add_late_answers([item], at_ms=3)
    taken = [await ledger.add_local_answers("plan", [answer]) for _ in range(2)]

    assert taken == [1, 0]
    counts = [
        (await ledger._file.read(f"SELECT COUNT(*) FROM {table}"))[0][0]
        for table in ("block_events", "late_answers", "local_answers", "decision_records")
    ]
    assert counts == [1, 1, 1, 0]
    (reason,) = (await ledger._file.read("SELECT reason FROM block_events"))[0]
    assert reason == "BINDING_MISMATCH"


async def test_a_ledger_that_is_opened_again_carries_on(tmp_path: Path) -> None:
    rows = chain_of(4)
    for pair in (rows[:2], rows[2:]):
        ledger = SqliteLedger(tmp_path / "ledger.sqlite")
        await ledger.add_records(pair)
        verified = await ledger.verify("plan")
        await ledger.close()

    assert (verified.record_count, verified.breaks) == (4, ())
    assert [head.record_hash for head in verified.heads] == [rows[-1].record_hash]


# What is forgotten in time


def input_row(features_hash: str, *, expires_ms: int) -> ModelInputRow:
    return ModelInputRow(
        features_hash=features_hash,
        expires_ms=expires_ms,
        canonical="{}",
        model_input=b"\x00\x00\x80\x3f",
    )


async def test_what_a_model_was_given_is_kept_with_its_record(ledger: SqliteLedger) -> None:
    (item,) = chain_of(1)
    signal = structs.replace(item.record.signal, features_hash="a" * 64)
    cited = written_of(structs.replace(item.record, signal=signal))
    given = [input_row(letter * 64, expires_ms=START_MS) for letter in "ab"]
    ledger.stage_inputs(given)
    await ledger.add_records([cited])

    # The record is durable, and the answer may leave, before its input is written.
    assert await ledger.find_record_by_hash(cited.record_hash) == cited
    assert await ledger.find_input("a" * 64) is None
    await ledger.settle()
    assert await ledger.find_input("a" * 64) == given[0]
    assert await ledger.find_input("b" * 64) is None, "no record cites it"


async def test_a_ledger_that_is_closed_keeps_what_its_records_cite(tmp_path: Path) -> None:
    first = SqliteLedger(tmp_path / "ledger.sqlite")
    items = chain_of(3)
    for item, letter in zip(items, "abc", strict=True):
        signal = structs.replace(item.record.signal, features_hash=letter * 64)
        first.stage_inputs([input_row(letter * 64, expires_ms=START_MS)])
        await first.add_records([written_of(structs.replace(item.record, signal=signal))])
    await first.close()

    again = SqliteLedger(tmp_path / "ledger.sqlite")
    assert all([await again.find_input(letter * 64) for letter in "abc"])
    await again.close()


async def test_an_input_that_cannot_be_written_costs_no_decision(
    ledger: SqliteLedger, caplog: pytest.LogCaptureFixture
) -> None:
    (item,) = chain_of(1)
    signal = structs.replace(item.record.signal, features_hash="a" * 64)
    unwritable = structs.replace(
        input_row("a" * 64, expires_ms=1),
        model_input=object(),  # type: ignore[arg-type]
    )
    ledger.stage_inputs([unwritable])
    await ledger.add_records([written_of(structs.replace(item.record, signal=signal))])
    await ledger.settle()

    assert await ledger.find_input("a" * 64) is None
    assert [record.message for record in caplog.records] == ["LEDGER_INPUTS_LOST"]


async def test_inputs_are_forgotten_when_their_time_is_over_and_not_before(
    ledger: SqliteLedger,
) -> None:
    late_ms = 4_000_000_000_000
    (one, two, three) = chain_of(3)
    for item, letter, expires_ms in ((one, "a", 1), (two, "b", late_ms), (three, "c", 1)):
        signal = structs.replace(item.record.signal, features_hash=letter * 64)
        ledger.stage_inputs([input_row(letter * 64, expires_ms=expires_ms)])
        await ledger.add_records([written_of(structs.replace(item.record, signal=signal))])
    await ledger.settle()

    await ledger.forget_inputs(now_ms=START_MS)

    assert await ledger.find_input("a" * 64) is None
    assert await ledger.find_input("b" * 64) is not None
    assert await ledger.find_input("c" * 64) is not None, "the newest keeps its number"
    with pytest.raises(LedgerUnavailable, match="append-only"):
        await ledger.forget_inputs(now_ms=late_ms + 1)


async def test_refusals_are_bounded_and_the_newest_are_kept(ledger: SqliteLedger) -> None:
    error = BindingMismatch("0" * 64, "1" * 64)
    for number in range(102):
        event = BlockEvent(
            at_ms=number, method="m", plan_id="plan", binding_hash="", ts_ms=None, error=error
        )
        await ledger.add_block_events([event] * 1_000)

    ((count, newest),) = await ledger._file.read("SELECT COUNT(*), MAX(at_ms) FROM block_events")
    assert (count, newest) == (BLOCK_EVENTS_KEPT, 101)
    with pytest.raises(LedgerUnavailable, match="append-only"):
        await ledger._file.write([("DELETE FROM block_events WHERE at_ms = ?", [(101,)])])
