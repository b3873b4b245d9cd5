"""Walk a plan over bars: ask, decide, fill, pay, mark. The decisions are the live core's."""

from collections.abc import Callable, Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from detent.contracts.errors import DataInvalid
from detent.contracts.units import PPM_ONE
from detent.core.evaluation.equity import EquityCurve
from detent.core.ledger.record import BoundPlan
from detent.core.policy.column_outcomes import (
    OutcomeColumns,
    StateColumns,
    Walked,
    before_each,
    outcomes_of,
    states_after,
    states_initial,
)
from detent.core.policy.column_steps import Moves, Walk, moves_of
from detent.core.policy.columns import (
    Asked,
    Floats,
    Ints,
    WantedColumns,
    direction_of,
    terms_of,
    wanted_columns,
)
from detent.core.signals.strength import strength_columns
from detent.offline.backtesting.account import (
    WEIGHT_MAX_PPM,
    Account,
    Costs,
    Fills,
    cents_of,
)
from detent.offline.backtesting.execution import Execution, Held, OrderRule, order_rule
from detent.offline.backtesting.market import Market
from detent.offline.backtesting.signals import Signals
from detent.offline.backtesting.strategy import TriggerParameters
from detent.offline.samples import Progress

# Bars that are prepared and explained together: long enough to pay for arrays, short enough to
# stay in a cache of a megabyte with fifty symbols.
STRETCH_BARS = 256
STAGE = "decide"


class Setup(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Holds everything that a back-test depends on.

    Attributes:
        bound: The plan under its binding; for profit, without limits of the order book.
        market: The bars; their symbols are the plan's, by name.
        trigger: int8 of shape (t, s), what is permitted, as `TRIGGER_CODES` numbers it.
        vol_hat_ppm: int64 of shape (t, s), volatility; 0 where it is unknown.
        signals: What model and proxy said.
        costs: What trading costs.
        cash: Quote units at the start.
        execution: When and where is filled.
        trigger_parameters: By what `trigger` permits; None where it was given as it is.
        vol_bars: Returns that `vol_hat_ppm` is of; None where it was given as it is.
    """

    bound: BoundPlan
    market: Market
    trigger: NDArray[np.int8]
    vol_hat_ppm: Ints
    signals: Signals
    costs: Costs = Costs()
    cash: float = 1_000_000.0
    execution: Execution = Execution.NEXT_BAR
    trigger_parameters: TriggerParameters | None = None
    vol_bars: int | None = None

    def __post_init__(self) -> None:
        """Refuse what a back-test does not simulate, and symbols of another plan."""
        plan = self.bound.plan
        if plan.learning is not None or plan.l2_limits is not None:
            found, expected = "learning or l2_limits", "a plan for profit, without l2_limits"
            message = f"plan: found {found}, expected {expected}"
            raise DataInvalid(message, found=found, expected=expected)
        if plan.symbols != self.market.symbols:
            found, expected = str(self.market.symbols[:4]), f"those of the plan {plan.symbols[:4]}"
            message = f"symbols: found {found}, expected {expected}"
            raise DataInvalid(message, found=found, expected=expected)


class FillColumns(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Holds what was filled on successive bars.

    Attributes:
        price: Shape (t, s): what orders met, before slippage.
        quantity: Shape (t + 1, s), base units: what was held before the first bar, and after
            the fills of each; a symbol was filled where it changes.
    """

    price: Floats
    quantity: Floats


class Stretch(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Holds everything about successive bars; arrays of shape (t, s), see each type.

    Attributes:
        rows: Which bars of the market.
        asked: What was asked of policy.
        p_hat_bps: int64, the probability that counted.
        wanted: What the signal asked for.
        walked: What was held and decided.
        fills: What was filled.
        outcomes: Why.
        before: What policy remembered before the first bar.
        states: What it remembered after each.
    """

    rows: slice
    asked: Asked
    p_hat_bps: Ints
    wanted: WantedColumns
    walked: Walked
    fills: FillColumns
    outcomes: OutcomeColumns
    before: StateColumns
    states: StateColumns


Observe = Callable[[Stretch], None]


class Ran(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Holds what a back-test came to.

    Attributes:
        curve: The account, bar by bar.
        weight_ppm: Shape (t, s), float64: what was held at each close, before its orders.
        funding: Quote units paid for funding in all.
        waiting: Orders that no bar filled any more.
    """

    curve: EquityCurve
    weight_ppm: NDArray[np.float32]
    funding: float
    waiting: int


class _Columns:
    """Collects the account, stretch by stretch."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.equity, self.traded, self.fees, self.slippage = np.zeros((4, shape[0]))
        self.trades = np.zeros(shape[0], dtype=np.int64)
        self.weight_ppm = np.zeros(shape, dtype=np.float32)
        self.funding = 0.0

    def note(self, rows: slice, equity: list[float], fills: list[Fills]) -> None:
        self.equity[rows] = equity
        self.traded[rows] = [one.traded for one in fills]
        self.fees[rows] = [one.fees for one in fills]
        self.slippage[rows] = [one.slippage for one in fills]
        self.trades[rows] = np.count_nonzero([one.bought for one in fills], axis=1)


def run(setup: Setup, observe: tuple[Observe, ...] = (), progress: Progress | None = None) -> Ran:
    """Run a back-test.

    Args:
        setup: What it depends on.
        observe: Told of every stretch of bars, in order.
        progress: Told of (stage, bars done, bars in all).

    Raises:
        DataInvalid: The account is used up, or holds more than a row can say.
    """
    market = setup.market
    symbol_count, bar_count = len(market.symbols), len(market.ts_ms)
    account = Account(symbol_count, cash=setup.cash, costs=setup.costs)
    columns = _Columns(market.close.shape)
    for stretch in _stretches(setup, account, columns):
        for tell in observe:
            tell(stretch)
        if progress is not None:
            progress(STAGE, min(stretch.rows.stop, bar_count), bar_count)
    curve = EquityCurve(
        ts_ms=market.ts_ms,
        equity=columns.equity,
        traded=columns.traded,
        fees=columns.fees,
        slippage=columns.slippage,
        trades=columns.trades,
    )
    return Ran(
        curve=curve,
        weight_ppm=columns.weight_ppm,
        funding=columns.funding,
        waiting=int(np.count_nonzero(account.waiting)),
    )


def _stretches(setup: Setup, account: Account, columns: _Columns) -> Iterator[Stretch]:
    market, plan = setup.market, setup.bound.plan
    terms = terms_of(plan, plan.symbols)
    walk = Walk(terms)
    rule = order_rule(setup.execution, plan.policy_config, len(plan.symbols))
    before = states_initial(len(plan.symbols))
    for start in range(0, len(market.ts_ms), STRETCH_BARS):
        rows = slice(start, min(start + STRETCH_BARS, len(market.ts_ms)))
        asked, p_hat_bps = _asked(setup, rows)
        wanted = wanted_columns(terms, asked)
        moves = moves_of(terms, asked, wanted)
        walked, fills = _walk(
            setup, rows, walk=walk, moves=moves, account=account, rule=rule, to=columns
        )
        states = states_after(walked, before)
        outcomes = outcomes_of(
            terms,
            asked,
            wanted_reasons=wanted.reasons,
            moves=moves,
            walked=walked,
            rebalanced_before=before_each(states.last_rebalance_ts_ms, before.last_rebalance_ts_ms),
        )
        yield Stretch(
            rows=rows,
            asked=asked,
            p_hat_bps=p_hat_bps,
            wanted=wanted,
            walked=walked,
            fills=fills,
            outcomes=outcomes,
            before=before,
            states=states,
        )
        before = states.last()


def _asked(setup: Setup, rows: slice) -> tuple[Asked, Ints]:
    p_hat_bps, usable = setup.signals.chosen(rows)
    trigger = setup.trigger[rows]
    asked = Asked(
        trigger=trigger,
        # The rule that permits is always the plan's own trigger.
        known=np.ones(trigger.shape, dtype=np.bool_),
        strength_bps=strength_columns(p_hat_bps, direction_of(trigger)),
        usable=usable,
        vol_hat_ppm=setup.vol_hat_ppm[rows],
    )
    return asked, p_hat_bps


def _walk(
    setup: Setup,
    rows: slice,
    *,
    walk: Walk,
    moves: Moves,
    account: Account,
    rule: OrderRule | None,
    to: _Columns,
) -> tuple[Walked, FillColumns]:
    """Walk over some bars: fill what waits, pay, mark, decide, order."""
    market = setup.market
    present, opened, closed = market.present[rows], market.open[rows], market.close[rows]
    whole: list[bool] = np.asarray(present.all(axis=1)).tolist()
    times_ms: list[int] = market.ts_ms[rows].tolist()
    equities: list[float] = []
    cents: list[int] = []
    filled: list[Fills] = []
    # Rows of their own until the end: that is quicker than to write each into its place.
    current, final, trades, quantity = [], [], [], [account.quantity]
    for bar, ts_ms in enumerate(times_ms):
        price, there = closed[bar], None if whole[bar] else present[bar]
        if rule is None:
            fills = account.fill(opened[bar], there)
        if market.funding is not None:
            to.funding += account.pay_funding(price, market.funding[rows.start + bar])
        equity, held_ppm = account.mark(price)
        equity_cents = cents_of(equity)
        final_ppm, traded = walk.step(
            moves, bar, ts_ms=ts_ms, current_ppm=held_ppm, equity_cents=equity_cents
        )
        if there is not None:
            traded &= there
        walk.traded(traded, ts_ms)
        if rule is None:
            if np.count_nonzero(traded):
                account.order(equity, price, final_ppm, traded)
        else:
            held = Held(
                bar=rows.start + bar,
                equity=equity,
                quantity=account.quantity,
                price=price,
                present=there,
            )
            account.order(equity, price, final_ppm, rule(final_ppm / PPM_ONE, held))
            fills = account.fill(price, there)
            equity -= fills.fees + fills.slippage
        equities.append(equity)
        cents.append(equity_cents)
        filled.append(fills)
        current.append(held_ppm)
        final.append(final_ppm)
        trades.append(traded)
        quantity.append(account.quantity)
    walked = Walked(
        ts_ms=market.ts_ms[rows],
        equity_cents=cents,
        current_ppm=np.array(current),
        final_ppm=np.array(final),
        trades=np.array(trades),
        present=present,
    )
    _check_weights(walked.current_ppm)
    to.weight_ppm[rows] = walked.current_ppm
    to.note(rows, equities, filled)
    met = opened if rule is None else closed
    return walked, FillColumns(price=met, quantity=np.array(quantity))


def _check_weights(current_ppm: Floats) -> None:
    """Refuse a position that a row could not state."""
    largest = float(np.abs(current_ppm).max(initial=0.0))
    if largest > WEIGHT_MAX_PPM:
        found, expected = f"{largest / PPM_ONE:.0f} times equity", "at most a hundred times equity"
        raise DataInvalid(f"position: found {found}, expected {expected}", found=found)
