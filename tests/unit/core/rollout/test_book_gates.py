"""Proves what an order book keeps out: by a table, and by a second way of saying the rules."""

from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from msgspec import structs
from tests.builders import HOUR_MS, START_MS, SYMBOL, plan_of, record_of, row_of

from detent.contracts.binding import PROXY_BINDING
from detent.contracts.errors import InvalidField
from detent.contracts.plan import L2Limits, MissingL2, OrderStyle, Plan, TriggerState
from detent.contracts.reasons import Reason
from detent.contracts.snapshots import L2FeatureSnapshot
from detent.core.ledger.record import bind_plan
from detent.core.rollout.book_gates import BookGates, book_gates
from detent.core.signals.proxy import ProxyAnswer

LIMITS = L2Limits(missing_l2=MissingL2.ALLOW)
LONG, SHORT = TriggerState.LONG_ALLOWED, TriggerState.SHORT_ALLOWED


def book(**changes: Any) -> L2FeatureSnapshot:
    """Give a book that nothing is wrong with, at the close of the bar."""
    snapshot = L2FeatureSnapshot(
        ts_ms=START_MS,
        symbol=SYMBOL,
        venue="TEST",
        depth=5,
        depth_bid_qty_top_n=Decimal(3),
        depth_ask_qty_top_n=Decimal(3),
        depth_imbalance_top_n_bps=0,
        impact_buy_top_n_bps=2,
        impact_sell_top_n_bps=2,
        impact_buy_top_n_insufficient_depth=0,
        impact_sell_top_n_insufficient_depth=0,
        wall_bid_score_top_n_x1000=1000,
        wall_ask_score_top_n_x1000=1000,
        qty_ref=Decimal("0.003"),
    )
    return structs.replace(snapshot, **changes)


def gated_plan(limits: L2Limits | None = LIMITS) -> Plan:
    return plan_of("plan", l2_limits=limits)


# What the book is, and the codes of the long side.
TABLE = [
    ({}, ()),
    ({"impact_buy_top_n_bps": 49}, ()),
    ({"impact_buy_top_n_bps": 50}, ("EXEC_L2_IMPACT_BUY_HIGH",)),
    ({"impact_buy_top_n_bps": 199}, ("EXEC_L2_IMPACT_BUY_HIGH",)),
    (
        {"impact_buy_top_n_bps": 200},
        ("L2_IMPACT_BUY_HIGH", "L2_BLOCK_BUY", "EXEC_L2_IMPACT_BUY_HIGH"),
    ),
    # Too little depth is told first; the sentinel that stands for its impact is not.
    (
        {"impact_buy_top_n_bps": 500, "impact_buy_top_n_insufficient_depth": 1},
        ("L2_INSUFFICIENT_DEPTH_BUY", "L2_BLOCK_BUY", "EXEC_L2_INSUFFICIENT_DEPTH_BUY"),
    ),
    # A true impact of 500 with enough depth is an impact.
    (
        {"impact_buy_top_n_bps": 500},
        ("L2_IMPACT_BUY_HIGH", "L2_BLOCK_BUY", "EXEC_L2_IMPACT_BUY_HIGH"),
    ),
    ({"ts_ms": START_MS - 1_500}, ()),
    ({"ts_ms": START_MS - 1_501}, ("EXEC_L2_STALE",)),
    # A book from after the close is not of the bar.
    ({"ts_ms": START_MS + 1}, ("EXEC_L2_STALE",)),
    # The guard tells age before depth and depth before impact; the entry gate knows no age.
    ({"ts_ms": START_MS - 1_501, "impact_buy_top_n_bps": 199}, ("EXEC_L2_STALE",)),
    (
        {"ts_ms": START_MS - 1_501, "impact_buy_top_n_insufficient_depth": 1},
        ("L2_INSUFFICIENT_DEPTH_BUY", "L2_BLOCK_BUY", "EXEC_L2_STALE"),
    ),
    # The other side of the book does not matter.
    ({"impact_sell_top_n_insufficient_depth": 1, "impact_sell_top_n_bps": 500}, ()),
]


@pytest.mark.proves("R327", "R328")
@pytest.mark.parametrize(("changes", "codes"), TABLE, ids=str)
def test_a_side_is_shut_by_the_first_check_that_fails(
    changes: dict[str, int], codes: tuple[str, ...]
) -> None:
    gates = book_gates(LIMITS, book(**changes), ts_ms=START_MS)

    assert gates.no_new_long == tuple(Reason(code) for code in codes)


@pytest.mark.proves("R327", "R328")
@pytest.mark.parametrize(("changes", "codes"), TABLE, ids=str)
def test_the_two_sides_mirror_each_other(changes: dict[str, int], codes: tuple[str, ...]) -> None:
    swapped = {_mirrored(name, "buy", "sell"): value for name, value in changes.items()}
    expected = tuple(Reason(_mirrored(code, "BUY", "SELL")) for code in codes)

    assert book_gates(LIMITS, book(**swapped), ts_ms=START_MS).no_new_short == expected


def _mirrored(text: str, one: str, other: str) -> str:
    return text.replace(one, "?").replace(other, one).replace("?", other)


@pytest.mark.proves("R328")
def test_what_a_missing_book_means_is_said_by_the_plan() -> None:
    with pytest.raises(TypeError, match="missing_l2"):
        L2Limits()  # type: ignore[call-arg]
    blocked = (Reason.EXEC_L2_MISSING,)

    assert book_gates(LIMITS, None, ts_ms=START_MS) == BookGates()
    limits = L2Limits(missing_l2=MissingL2.BLOCK)
    assert book_gates(limits, None, ts_ms=START_MS) == BookGates(
        no_new_long=blocked, no_new_short=blocked
    )


def test_a_plan_that_asks_nothing_of_the_book_is_never_shut() -> None:
    worst = book(ts_ms=START_MS - HOUR_MS, impact_buy_top_n_insufficient_depth=1)

    assert book_gates(None, worst, ts_ms=START_MS) == BookGates()


@pytest.mark.proves("R327", "R328")
def test_random_books_agree_with_the_rules_written_as_arrays() -> None:
    chance = np.random.default_rng(7)
    count = 20_000
    entry, execution = chance.integers(0, 300, (2, count))
    age_max, age = chance.integers(0, 2_000, count), chance.integers(-20, 2_000, count)
    impact = np.where(chance.random(count) < 0.5, entry, execution) + chance.integers(-1, 2, count)
    impact = np.maximum(impact, 0)
    thin = chance.random(count) < 0.2
    entry_code = np.select([thin, impact >= entry], ["L2_INSUFFICIENT_DEPTH", "L2_IMPACT"], "")
    exec_code = np.select(
        [(age < 0) | (age > age_max), thin, impact >= execution],
        ["EXEC_L2_STALE", "EXEC_L2_INSUFFICIENT_DEPTH", "EXEC_L2_IMPACT"],
        "",
    )

    for index in range(count):
        limits = L2Limits(
            missing_l2=MissingL2.BLOCK,
            entry_impact_bps=int(entry[index]),
            exec_impact_bps=int(execution[index]),
            exec_max_age_ms=int(age_max[index]),
        )
        found = book_gates(
            limits,
            book(
                ts_ms=START_MS - int(age[index]),
                impact_buy_top_n_bps=int(impact[index]),
                impact_buy_top_n_insufficient_depth=int(thin[index]),
            ),
            ts_ms=START_MS,
        ).no_new_long
        codes = [reason.value.replace("_BUY", "").replace("_HIGH", "") for reason in found]
        blocked = ["L2_BLOCK"] if entry_code[index] else []
        assert codes == [code for code in (entry_code[index], *blocked, exec_code[index]) if code]
    assert {"EXEC_L2_STALE", "EXEC_L2_IMPACT", ""} < set(exec_code)


# What it means for a weight


@pytest.mark.proves("R327", "R328")
@pytest.mark.parametrize("state", [LONG, SHORT])
@pytest.mark.parametrize(
    "changes",
    [
        {"impact_buy_top_n_insufficient_depth": 1, "impact_sell_top_n_insufficient_depth": 1},
        {"impact_buy_top_n_bps": 50, "impact_sell_top_n_bps": 50},
        {"ts_ms": START_MS - HOUR_MS},
    ],
    ids=str,
)
def test_a_shut_book_keeps_the_weight_where_it_is(
    state: TriggerState, changes: dict[str, int]
) -> None:
    side = 1 if state is LONG else -1
    bound = bind_plan(gated_plan(), PROXY_BINDING)
    for held_ppm in (0, 50_000):
        row = row_of(weight_ppm=side * held_ppm, trigger_state=state, l2_snapshot=book(**changes))
        proxied = record_of(bound=bound, row=row, **_belief(side))

        assert proxied.outcome.target_weight_policy_ppm * side > held_ppm
        assert proxied.outcome.target_weight_final_ppm == side * held_ppm
        assert proxied.outcome.order_style is OrderStyle.NONE
        assert proxied.outcome.precedence_tier == 3
        assert any("L2" in reason for reason in proxied.outcome.reasons)


def _belief(side: int) -> dict[str, Any]:
    return {"proxy": ProxyAnswer(p_hat_bps=5_000 + side * 4_000, reason=None)}


@pytest.mark.proves("R327", "R328")
@pytest.mark.parametrize("held_ppm", [200_000, -200_000])
@pytest.mark.parametrize("state", list(TriggerState))
def test_a_shut_book_changes_no_way_out(held_ppm: int, state: TriggerState) -> None:
    """Whatever gets smaller gets as small as without a book, on the same bar."""
    shut = book(impact_buy_top_n_insufficient_depth=1, impact_sell_top_n_insufficient_depth=1)
    row = row_of(weight_ppm=held_ppm, trigger_state=state, l2_snapshot=shut)
    gated, free = (
        record_of(bound=bind_plan(gated_plan(limits), PROXY_BINDING), row=row).outcome
        for limits in (LIMITS, None)
    )

    if abs(free.target_weight_final_ppm) < abs(held_ppm):
        if free.target_weight_final_ppm * held_ppm >= 0:
            assert gated.target_weight_final_ppm == free.target_weight_final_ppm
            assert gated.order_style is free.order_style
        else:
            assert gated.target_weight_final_ppm == 0, "the way out passes, the new side does not"
    if state in (TriggerState.INACTIVE, TriggerState.EXIT_ONLY):
        assert gated == free
        assert gated.order_style is OrderStyle.TAKER


def test_a_book_of_another_symbol_is_refused() -> None:
    with pytest.raises(InvalidField) as refused:
        row_of(l2_snapshot=book(symbol="GBPUSD"))

    assert (refused.value.field, refused.value.expected) == ("l2_snapshot.symbol", SYMBOL)


@pytest.mark.parametrize(
    ("field", "value"),
    [("entry_impact_bps", -1), ("exec_impact_bps", True), ("exec_max_age_ms", 366 * 86_400_001)],
)
def test_limits_out_of_range_are_refused(field: str, value: Any) -> None:
    with pytest.raises(InvalidField, match=field):
        L2Limits(missing_l2=MissingL2.ALLOW, **{field: value})
