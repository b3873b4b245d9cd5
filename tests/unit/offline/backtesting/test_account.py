"""Proves cash, positions, fees, slippage, funding and the two parity rules on paper."""

import math
from decimal import Decimal

import numpy as np
import pytest
from msgspec import structs
from tests.backtests import market_of_walk, question_of, setup_of

from detent.contracts.errors import DataInvalid
from detent.contracts.plan import PolicyConfig
from detent.offline.backtesting.account import Account, Costs
from detent.offline.backtesting.engine import Setup, run
from detent.offline.backtesting.execution import Execution, Held, RuleA, RuleB
from detent.offline.backtesting.market import market_of, settlements
from detent.offline.bars import FUNDING_MS, RawBar, table_of

PRICE = np.array([100.0, 50.0])


def test_a_purchase_costs_price_slippage_and_fee() -> None:
    """1,000 of equity, 50 % at 100: five units, met at 100, filled at 101, fee on 505."""
    account = Account(2, cash=1_000.0, costs=Costs(fee_bps=10.0, slippage_bps=100.0))
    equity, _ = account.mark(PRICE)
    account.order(equity, PRICE, np.array([500_000.0, 0.0]), np.array([True, True]))
    fills = account.fill(PRICE, None)

    assert account.quantity.tolist() == [5.0, 0.0]
    assert (fills.traded, fills.slippage, fills.trades) == (500.0, 5.0, 1)
    assert math.isclose(fills.fees, 0.505)
    assert math.isclose(account.cash, 1_000.0 - 500.0 - 5.0 - 0.505)
    equity, held_ppm = account.mark(PRICE)
    assert math.isclose(equity, 1_000.0 - 5.505)
    assert held_ppm.tolist() == [round(500_000_000 / equity), 0.0]


def test_a_sale_is_filled_below_and_a_short_earns_funding() -> None:
    account = Account(2, cash=1_000.0, costs=Costs(fee_bps=0.0, slippage_bps=100.0))
    account.order(1_000.0, PRICE, np.array([0.0, -500_000.0]), np.array([True, True]))
    account.fill(PRICE, None)

    assert account.quantity.tolist() == [0.0, -10.0]
    assert math.isclose(account.cash, 1_000.0 + 500.0 - 5.0)
    assert account.pay_funding(PRICE, np.array([0.001, 0.001])) == -0.5
    assert math.isclose(account.cash, 1_495.5)


def test_an_order_waits_for_the_symbol_to_have_a_bar() -> None:
    account = Account(2, cash=1_000.0, costs=Costs(fee_bps=0.0))
    account.order(1_000.0, PRICE, np.array([1e5, 1e5]), np.array([True, True]))

    assert account.fill(PRICE, np.array([False, True])).trades == 1
    assert account.quantity.tolist() == [0.0, 2.0]
    assert account.fill(PRICE, None).trades == 1
    assert account.quantity.tolist() == [1.0, 2.0]
    assert account.fill(PRICE, None).trades == 0


def test_an_account_that_is_used_up_stops_the_run() -> None:
    account = Account(1, cash=100.0, costs=Costs(fee_bps=0.0))
    account.order(100.0, np.array([1.0]), np.array([-1e6]), np.array([True]))
    account.fill(np.array([1.0]), None)

    with pytest.raises(DataInvalid, match="used up"):
        account.mark(np.array([2.5]))


def test_funding_is_settled_every_eight_hours() -> None:
    hours = FUNDING_MS * 100 + 3_600_000 * np.arange(1, 17)

    assert settlements(hours, 3_600_000).tolist() == [0] * 7 + [1] + [0] * 7 + [1]
    assert settlements(np.array([FUNDING_MS * 103]), 3 * FUNDING_MS).tolist() == [3]


def test_a_settled_rate_is_paid_when_it_was_settled_and_not_eight_hours_later() -> None:
    """It stands on the bar that opens then; the bar before is the one that closes then."""
    first_ms = FUNDING_MS * 60_000
    rates = {0: "0.0001", 8: "-0.0003", 16: "0.0002"}
    rows = [
        RawBar(
            row=hour + 1,
            open_ts_ms=first_ms + 3_600_000 * hour,
            symbol="AAA",
            numbers=(Decimal(100),) * 4 + (Decimal(1),),
            settled=Decimal(rates[hour]) if hour in rates else None,
        )
        for hour in range(20)
    ]
    market = market_of(table_of("bars", rows))

    assert market.funding is not None
    paid = {int(row) + 1: market.funding[row, 0] for row in np.flatnonzero(market.funding[:, 0])}
    # Before the first bar nothing was held: what was settled then is paid by nobody.
    assert {hour: share for hour, share in paid.items() if hour > 1} == {8: -0.0003, 16: 0.0002}


def test_rule_a_orders_when_the_target_moves_from_the_last_ordered() -> None:
    rule = RuleA(PolicyConfig(horizon_id="x", epsilon_w_ppm=50_000), 1)
    held = Held(bar=0, equity=1.0, quantity=np.zeros(1), price=np.ones(1))
    targets = [0.05, 0.06, 0.10, 0.11, 0.01, 0.0, 0.0, 0.04]

    found = [bool(rule(np.array([target]), held)[0]) for target in targets]

    # From 0 to .05 is not more than the band; .01 is .05 below .06, which is not more either.
    assert found == [False, True, False, False, False, True, False, False]


def test_rule_b_orders_by_what_is_held_and_waits_for_the_cooldown() -> None:
    config = PolicyConfig(
        horizon_id="x",
        epsilon_w_ppm=10_000,
        rebalance_cooldown_bars=2,
        min_trade_notional=Decimal(0),
    )
    rule = RuleB(config, 1)

    def due(bar: int, target: float, quantity: float) -> bool:
        held = Held(bar=bar, equity=100.0, quantity=np.array([quantity]), price=np.ones(1))
        return bool(rule(np.array([target]), held)[0])

    assert due(0, 0.5, 0.0)
    assert not due(1, 0.6, 50.0)
    assert due(2, 0.6, 50.0)
    assert due(3, 0.0, 60.0)
    assert not due(9, 0.605, 60.0)
    large = structs.replace(config, min_trade_notional=Decimal(50), rebalance_cooldown_bars=0)
    held = Held(bar=0, equity=100.0, quantity=np.zeros(1), price=np.ones(1))
    assert not RuleB(large, 1)(np.array([0.49]), held)[0]
    assert RuleB(large, 1)(np.array([0.5]), held)[0]


def by_the_rule(setup: Setup, target: np.ndarray, *, rule_a: bool) -> list[float]:
    """Keep the account of the published rule in plain floats, symbol by symbol."""
    config = setup.bound.plan.policy_config
    band, least = config.epsilon_w_ppm / 1e6, float(config.min_trade_notional)
    cash, held = setup.cash, [0.0] * len(setup.market.symbols)
    ordered, filled = [0.0] * len(held), [-(10**9)] * len(held)
    equity = []
    for bar, prices in enumerate(setup.market.close.tolist()):
        value = cash + sum(q * p for q, p in zip(held, prices, strict=True))
        for place, price in enumerate(prices):
            wanted = target[bar, place]
            if rule_a:
                last = ordered[place]
                due = abs(wanted - last) > band or (wanted == 0 and last != 0)
            elif wanted == 0 and held[place] != 0:
                due = True
            else:
                away = abs(wanted - held[place] * price / value)
                rested = bar - filled[place] >= config.rebalance_cooldown_bars
                due = away > band and away * value >= least and rested
            if due:
                size = wanted * value / price - held[place]
                cash -= size * price + abs(size) * price * 0.0005
                held[place] += size
                ordered[place], filled[place] = wanted, bar
        equity.append(cash + sum(q * p for q, p in zip(held, prices, strict=True)))
    return equity


@pytest.mark.parametrize("rule_a", [True, False])
def test_parity_keeps_the_account_of_the_published_rule(rule_a: bool) -> None:
    """Targets are the core's own; orders, fees and equity are computed a second way."""
    execution = Execution.PARITY_A if rule_a else Execution.PARITY_B
    setup = setup_of(market_of_walk(500), execution=execution)
    final: list[np.ndarray] = []
    ran = run(setup, (lambda stretch: final.append(stretch.walked.final_ppm),))

    expected = by_the_rule(setup, np.vstack(final) / 1e6, rule_a=rule_a)

    assert ran.curve.trades.sum() > 100
    assert ran.curve.equity == pytest.approx(expected, rel=1e-9)


def test_the_next_bar_fills_what_this_one_decided() -> None:
    """The account is that of a strategist who trades every decision at the next open."""
    setup = setup_of(market_of_walk(400), costs=Costs(fee_bps=5.0, slippage_bps=2.0))
    stretches: list[object] = []
    ran = run(setup, (stretches.append,))
    market = setup.market
    final = np.vstack([one.walked.final_ppm for one in stretches])  # type: ignore[attr-defined]
    trades = np.vstack([one.walked.trades for one in stretches])  # type: ignore[attr-defined]
    cash, held, size = setup.cash, np.zeros(3), np.zeros(3)
    for bar in range(len(market.ts_ms)):
        fill = market.open[bar] * (1 + np.sign(size) * 0.0002)
        cash -= float(np.sum(size * fill + np.abs(size) * fill * 0.0005))
        held = held + size
        equity = cash + float(np.sum(held * market.close[bar]))
        assert ran.curve.equity[bar] == pytest.approx(equity, rel=1e-12)
        size = (final[bar] / 1e6 * equity / market.close[bar] - held) * trades[bar]
    assert trades.sum() > 100
    assert question_of().costs.fee_bps == 5.0
