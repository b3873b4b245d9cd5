"""Proves that fills and outcomes are taken once, as they are, and only where they belong."""

import asyncio
import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from tests.builders import OTHER_SYMBOL, START_MS, SYMBOL, call_of, row_of
from tests.fakes import PolicyHost
from tests.service.policy_calls import PLAN, ask, close_plan, decide, open_plan
from tests.trades import LEARNING_BOOK, TAGS, calm, fill_of, outcome_of

from detent.adapters.ledger_reading import canonical_texts, open_reader
from detent.adapters.sqlite_facts import KEYS_PER_READ
from detent.contracts.calls.policy import (
    RecordFillsRequest,
    RecordFillsResponse,
    RecordOutcomesRequest,
    RecordOutcomesResponse,
)
from detent.contracts.canonical import parse_json
from detent.contracts.errors import (
    BindingMismatch,
    DataConflict,
    DecisionNotFound,
    DetentError,
    InvalidField,
    PlanNotFound,
    SymbolNotInPlan,
)
from detent.contracts.json_codec import from_json
from detent.contracts.trades import Fill, Outcome, OutcomeLabel, Side
from detent.contracts.wire import from_wire, message_class, to_bytes
from detent_client import ClientOptions, DetentClient


def facts_of(host: PolicyHost, kind: Any, table: str) -> list[Any]:
    """Give the facts that a reader of the ledger finds."""
    texts = canonical_texts(open_reader(str(host.ledger_file)), table, "plan")
    return [from_json(kind, parse_json(table, text)) for text in texts]


@pytest.fixture(name="opened")
async def _opened(host: PolicyHost) -> PolicyHost:
    await open_plan(host, PLAN, host.binding)
    return host


def counts(found: RecordFillsResponse | RecordOutcomesResponse) -> tuple[int, int]:
    return found.accepted_count, found.known_count


async def record(host: PolicyHost, *fills: Fill, **changes: Any) -> RecordFillsResponse:
    query = RecordFillsRequest(
        binding_hash=host.binding.binding_hash, plan_id=fills[0].plan_id, fills=fills
    )
    return await host.handler.record_fills(structs.replace(query, **changes), call_of())


async def resolve(host: PolicyHost, *outcomes: Outcome) -> RecordOutcomesResponse:
    query = RecordOutcomesRequest(
        binding_hash=host.binding.binding_hash, plan_id=outcomes[0].plan_id, outcomes=outcomes
    )
    return await host.handler.record_outcomes(query, call_of())


def held(host: PolicyHost, table: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(host.ledger_file)) as db:
        return db.execute(f"SELECT * FROM {table}").fetchall()


async def test_fill_is_kept_with_its_decision_and_once(opened: PolicyHost) -> None:
    decision = await decide(opened)
    fill = fill_of("f1", record_hash=decision.record_hash)

    first, again = await record(opened, fill), await record(opened, fill, fill_of("f2"))

    assert (counts(first), counts(again)) == ((1, 0), (1, 1))
    assert facts_of(opened, Fill, "fills") == [fill, fill_of("f2")]
    assert list(canonical_texts(open_reader(str(opened.ledger_file)), "fills", "other")) == []


async def test_fill_with_other_content_is_refused_and_nothing_of_its_call_is_kept(
    opened: PolicyHost,
) -> None:
    await record(opened, fill_of("f1"))

    with pytest.raises(DataConflict) as refused:
        await record(opened, fill_of("f2"), fill_of("f1", price="101"))

    assert refused.value.field == "fills[1]"
    assert '"price":"101"' in str(refused.value.found)
    assert '"price":"100"' in refused.value.expected
    assert len(held(opened, "fills")) == 1


async def test_fills_of_a_closed_plan_are_still_taken(opened: PolicyHost) -> None:
    await close_plan(opened)

    assert counts(await record(opened, fill_of("late"))) == (1, 0)


async def test_same_fill_from_many_callers_is_kept_once(opened: PolicyHost) -> None:
    answers = await asyncio.gather(*(record(opened, fill_of("f1")) for _ in range(20)))

    assert sum(answer.accepted_count for answer in answers) == 1
    assert len(held(opened, "fills")) == 1


async def test_call_of_more_fills_than_one_read_asks_for_finds_those_that_are_held(
    opened: PolicyHost,
) -> None:
    fills = [fill_of(f"f{number}") for number in range(KEYS_PER_READ + 1)]
    await record(opened, fills[0], fills[-1])

    assert counts(await record(opened, *fills)) == (KEYS_PER_READ - 1, 2)


@pytest.mark.parametrize(
    ("changes", "kind", "says"),
    [
        pytest.param({"book": "other"}, InvalidField, "fills[0].book", id="book"),
        pytest.param({"symbol": "AUDUSD"}, SymbolNotInPlan, "AUDUSD", id="symbol"),
        pytest.param({"plan_id": "nobody"}, PlanNotFound, "nobody", id="plan"),
        pytest.param({"record_hash": "e" * 64}, DecisionNotFound, "e" * 64, id="decision"),
    ],
)
async def test_fill_that_the_plan_cannot_have_asked_for_is_refused(
    opened: PolicyHost, changes: dict[str, Any], kind: type[DetentError], says: str
) -> None:
    with pytest.raises(kind) as refused:
        await record(opened, fill_of("f1", **changes))

    assert says in refused.value.message
    assert held(opened, "fills") == []


async def test_fill_of_another_symbols_decision_is_refused(opened: PolicyHost) -> None:
    answer = await ask(opened, row_of(), row_of(OTHER_SYMBOL))
    assert answer.results[1].decision is not None

    with pytest.raises(InvalidField) as refused:
        await record(opened, fill_of("f1", record_hash=answer.results[1].decision.record_hash))

    assert refused.value.field == "fills[0].record_hash"
    assert f"plan/{SYMBOL}" in refused.value.expected


async def test_fill_with_tags_that_its_plan_has_not_is_refused(opened: PolicyHost) -> None:
    """A trade cannot become learning, nor profit, on its way from the order to the ledger."""
    with pytest.raises(InvalidField) as refused:
        await record(opened, fill_of("f1", book=LEARNING_BOOK, learning=TAGS))

    assert refused.value.field == "fills[0].book"


async def test_wrong_binding_is_refused(opened: PolicyHost) -> None:
    with pytest.raises(BindingMismatch):
        await record(opened, fill_of("f1"), binding_hash="0" * 64)


async def test_outcome_is_kept_once_and_other_content_is_refused(opened: PolicyHost) -> None:
    await ask(opened)

    assert counts(await resolve(opened, outcome_of())) == (1, 0)
    assert counts(await resolve(opened, outcome_of())) == (0, 1)
    with pytest.raises(DataConflict):
        await resolve(opened, outcome_of(label=OutcomeLabel.DOWN))
    assert facts_of(opened, Outcome, "outcomes") == [outcome_of()]


async def test_outcome_of_a_bar_that_nobody_decided_is_refused(opened: PolicyHost) -> None:
    with pytest.raises(InvalidField) as refused:
        await resolve(opened, outcome_of(bar=3))

    assert refused.value.field == "outcomes[0].ts_ms"


@pytest.mark.parametrize("late_ms", [0, -1])
def test_outcome_that_was_known_at_its_bar_is_refused(late_ms: int) -> None:
    with pytest.raises(InvalidField) as refused:
        outcome_of(known_ts_ms=START_MS + late_ms)

    assert refused.value.field == "known_ts_ms"


@pytest.mark.parametrize(
    "changes",
    [
        {"quantity": "0"},
        {"quantity": "-1"},
        {"price": "0"},
        {"fee": "NaN"},
        {"ts_ms": 1_700_000_000},
        {"sequence": -1},
        {"fill_id": ""},
        {"record_hash": "abc"},
        {"learning": TAGS},
        {"book": LEARNING_BOOK},
    ],
    ids=str,
)
def test_malformed_fill_is_refused_by_name(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidField) as refused:
        fill_of(**({"fill_id": "f1"} | changes))

    assert refused.value.field in (*changes, "book")


@pytest.mark.parametrize("changes", [{"label": None}, {"bracket_key": "b1"}], ids=str)
def test_outcome_that_says_nothing_or_two_things_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidField):
        outcome_of(**changes)


def test_report_of_two_plans_or_of_one_fill_twice_is_refused() -> None:
    for fills in ((fill_of("a"), fill_of("b", plan_id="other")), (fill_of("a"), fill_of("a"))):
        with pytest.raises(InvalidField):
            RecordFillsRequest(binding_hash="a" * 64, plan_id="plan", fills=fills)


def test_facts_come_back_equal_from_the_wire() -> None:
    fills = (
        fill_of("f1", Side.SELL, "0.5", "1.25", fee="-0.01"),
        fill_of("f2", book=LEARNING_BOOK, learning=TAGS, record_hash="a" * 64),
    )
    outcomes = (outcome_of(), outcome_of(1, None, bracket_key="b1"))
    for sent in (
        RecordFillsRequest(binding_hash="a" * 64, plan_id="plan", fills=fills),
        RecordOutcomesRequest(binding_hash="a" * 64, plan_id="plan", outcomes=outcomes),
    ):
        message = message_class(type(sent).__name__).FromString(to_bytes(sent))

        assert from_wire(type(sent), message) == sent


async def test_client_reports_fills_and_outcomes_over_the_wire(
    opened: PolicyHost, tmp_path: Path
) -> None:
    names = {"binding_hash": opened.binding.binding_hash, "plan_id": "plan"}
    decision = await decide(opened)
    fills = (fill_of("f1", record_hash=decision.record_hash),)
    options = ClientOptions(journal_file=tmp_path / "journal.jsonl", policy_target=opened.target)
    async with DetentClient(options) as client:
        first = await client.record(RecordFillsRequest(**names, fills=fills))
        again = await client.record(RecordFillsRequest(**names, fills=fills))
        told = await client.record(RecordOutcomesRequest(**names, outcomes=(outcome_of(),)))
        with pytest.raises(DataConflict) as refused:
            await client.record(RecordFillsRequest(**names, fills=(fill_of("f1", price="7"),)))

    assert [counts(answer) for answer in (first, again, told)] == [(1, 0), (0, 1), (1, 0)]
    assert refused.value.field == "fills[0]"


async def test_row_of_a_profit_plan_that_speaks_of_learning_is_refused(opened: PolicyHost) -> None:
    result = (await ask(opened, row_of(learning=calm()))).results[0]

    assert result.refusal is not None
    assert result.refusal.metadata["field"] == "learning"
