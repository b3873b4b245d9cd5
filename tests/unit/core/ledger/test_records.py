"""Holds rows that are decided together to the records that each would have alone."""

import random
from decimal import Decimal
from unittest import mock

import pytest
from msgspec import structs
from tests.builders import HOUR_MS, START_MS, TRIGGER, emergency, plan_of, row_of
from tests.random_decisions import Course, draw_plan

from detent.contracts.binding import PROXY_BINDING
from detent.contracts.decision import DecisionKind, DecisionRecord
from detent.contracts.plan import Plan, PolicyState, PositionState, RiskOverrides, TriggerState
from detent.contracts.reasons import Reason
from detent.core.ledger import records
from detent.core.ledger.record import CHAIN_START, bind_plan, record_decision, recorded_outcome
from detent.core.ledger.records import TOGETHER_MIN, RowToDecide, record_decisions
from detent.core.signals.choice import ModelOutcome, refused
from detent.core.signals.proxy import FLAT, WARMING_UP, ProxyAnswer

SYMBOLS = tuple(f"S{number}" for number in range(2 * TOGETHER_MIN))
TS_MS = START_MS + 100 * HOUR_MS
BOUND = bind_plan(plan_of("plan", SYMBOLS), PROXY_BINDING)


def asked_again(record: DecisionRecord, state: PolicyState) -> RowToDecide:
    """Give what a record was decided from."""
    signal = record.signal
    return RowToDecide(
        row=record.row,
        proxy=ProxyAnswer(p_hat_bps=signal.proxy_p_hat_bps, reason=signal.proxy_reason),
        model=recorded_outcome(signal),
        point=structs.replace(
            CHAIN_START,
            sequence=record.sequence,
            previous_hash=record.previous_hash,
            state=state,
            carried=record.carried,
        ),
        standing=record.stand_down,
    )


@pytest.mark.parametrize("seed", range(60))
def test_rows_of_a_bar_get_the_records_that_each_has_alone(seed: int) -> None:
    chance = random.Random(seed)
    course = Course(chance, draw_plan(chance, "plan", symbol_count=2 * TOGETHER_MIN))
    states: dict[str, PolicyState] = {}
    for _ in range(6):
        bar = [written.record for written in course.bar()]
        found = [one for one in bar if one.kind is DecisionKind.BAR]
        rows = [asked_again(one, states.get(one.row.symbol, CHAIN_START.state)) for one in found]
        # Few rows of a drawn bar are of one account; here these go through arrays, too.
        with mock.patch.object(records, "TOGETHER_MIN", 1):
            again = record_decisions(
                bound=course.bound, ts_ms=found[0].ts_ms, kind=DecisionKind.BAR, rows=rows
            )

        assert again == found
        assert [one.canonical for one in again] == [one.canonical for one in found]
        states |= {one.row.symbol: one.state_after for one in bar}


@pytest.mark.parametrize("seed", range(40))
def test_plain_rows_get_the_records_that_each_has_alone(seed: int) -> None:
    """Whatever is held, permitted, believed and remembered, under whatever plan for profit."""
    chance = random.Random(seed)
    drawn = draw_plan(chance, "plan", symbol_count=2 * TOGETHER_MIN)
    plan = structs.replace(drawn.plan, book="book", learning=None, l2_limits=None)
    bound = structs.replace(drawn, plan=plan)
    equity = Decimal(chance.choice([1, 123_456_789_01, 10**15])).scaleb(-2)
    rows = [any_row(chance, symbol, plan, equity) for symbol in plan.symbols]
    with mock.patch.object(records, "record_decision") as alone:
        found = record_decisions(bound=bound, ts_ms=TS_MS, kind=DecisionKind.BAR, rows=rows)

    assert not alone.called
    for record, one in zip(found, rows, strict=True):
        expected = record_decision(
            bound=bound,
            ts_ms=TS_MS,
            kind=DecisionKind.BAR,
            row=one.row,
            proxy=one.proxy,
            model=one.model,
            point=one.point,
        )
        assert record.canonical == expected.canonical


def any_row(chance: random.Random, symbol: str, plan: Plan, equity: Decimal) -> RowToDecide:
    """Draw a row with nothing rare, and where its chain stands."""
    held_ppm = chance.choice([0, 1, -1, 10**8, -(10**8), chance.randint(-300_000, 300_000)])
    row = row_of(
        symbol,
        trigger_state=chance.choice(list(TriggerState)),
        active_trigger_ids=chance.choice([(), (TRIGGER,), ("a-stranger",)]),
        position=PositionState(current_weight_ppm=held_ppm, equity=equity),
        vol_hat_ppm=chance.choice([None, -7, 0, 1, 150_000, 10**18, chance.randrange(1, 10**7)]),
        vol_unit=plan.policy_config.vol_unit,
    )
    past_ms = [None, *[TS_MS - bars * HOUR_MS for bars in (1, 2, 3, 4, 50)]]
    state = PolicyState(
        last_target_weight_ppm=held_ppm,
        last_rebalance_ts_ms=chance.choice(past_ms),
        entry_ts_ms=chance.choice(past_ms),
        trade_set_count=chance.randrange(3),
        reversing_from_ppm=chance.choice([None, None, 200_000, -200_000]),
    )
    p_hat_bps = chance.choice([0, 5_000, 10_000, chance.randint(0, 10_000)])
    answer = ModelOutcome(features_hash="f" * 64, p_hat_raw_bps=1, p_hat_bps=p_hat_bps)
    return RowToDecide(
        row=row,
        proxy=chance.choice([WARMING_UP, FLAT, ProxyAnswer(p_hat_bps=p_hat_bps, reason=None)]),
        model=chance.choice([None, answer, refused(Reason.FEATURES_STALE)]),
        point=structs.replace(CHAIN_START, sequence=chance.randrange(9), state=state),
        standing=None,
    )


@pytest.mark.parametrize(
    ("equity", "kind", "by_arrays"),
    [
        pytest.param("100000", DecisionKind.BAR, True, id="plain"),
        pytest.param("100000.125", DecisionKind.BAR, False, id="below-hundredths"),
        pytest.param("1" + 30 * "0", DecisionKind.BAR, False, id="many-digits"),
        pytest.param("100000", DecisionKind.EMERGENCY, False, id="emergency"),
    ],
)
def test_only_plain_rows_are_decided_by_arrays(
    equity: str, kind: DecisionKind, *, by_arrays: bool
) -> None:
    intent = emergency() if kind is DecisionKind.EMERGENCY else None
    rows = [plain_row(symbol, equity, exit_intent=intent) for symbol in SYMBOLS]
    rows[3] = plain_row(SYMBOLS[3], equity, risk_overrides=RiskOverrides(max_weight_ppm=1))
    with mock.patch.object(records, "record_decision", wraps=record_decision) as alone:
        found = record_decisions(bound=BOUND, ts_ms=START_MS, kind=kind, rows=rows)

    assert alone.call_count == (1 if by_arrays else len(rows))
    assert [one.row.symbol for one in found] == list(SYMBOLS)


def plain_row(symbol: str, equity: str, **changes: object) -> RowToDecide:
    row = row_of(symbol, **changes)
    return RowToDecide(
        row=structs.replace(row, position=structs.replace(row.position, equity=Decimal(equity))),
        proxy=ProxyAnswer(p_hat_bps=6_000, reason=None),
        model=None,
        point=CHAIN_START,
        standing=None,
    )


def test_no_rows_have_no_records() -> None:
    assert record_decisions(bound=BOUND, ts_ms=START_MS, kind=DecisionKind.BAR, rows=[]) == []
