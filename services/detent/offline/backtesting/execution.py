"""Say when and where what was decided is filled.

Research fills at the next bar's open what policy ordered. The two parity rules fill at the close
of the decision by a rule of their own, so that another back-tester that is given the same target
weights holds the same account (decision D25).
"""

from collections.abc import Callable
from enum import StrEnum

import msgspec
import numpy as np
from numpy.typing import NDArray

from detent.contracts.plan import PolicyConfig
from detent.contracts.units import PPM_ONE

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class Execution(StrEnum):
    """Names the ways in which a back-test fills.

    NEXT_BAR: what policy orders is filled at the open of the symbol's next bar.
    PARITY_A: at the same close; an order is due when the target differs from the last ordered
        one by more than the band, or is 0 while that was not.
    PARITY_B: at the same close; an order is due when the target is 0 and the position is not,
        else when the position's weight is further from it than the band, the difference is worth
        the least notional, and the cooldown since the last fill is over.
    """

    NEXT_BAR = "next_bar"
    PARITY_A = "parity_a"
    PARITY_B = "parity_b"


class Held(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Holds the account as an order rule sees it, before any order of the bar.

    Attributes:
        bar: Number of the bar, from 0.
        equity: Quote units.
        quantity: Shape (s,), base units.
        price: Shape (s,), closes of the bar.
        present: Shape (s,), the symbols that have a bar; None when all have.
    """

    bar: int
    equity: float
    quantity: Floats
    price: Floats
    present: Flags | None = None

    def there(self, due: Flags) -> Flags:
        """Keep only the symbols that have a bar."""
        return due if self.present is None else due & self.present


# Which symbols have an order due, given their target weights, shape (s,).
OrderRule = Callable[[Floats, Held], Flags]


class RuleA:
    """Orders when the target moves away from the last one that was ordered."""

    def __init__(self, config: PolicyConfig, symbol_count: int) -> None:
        """Take the band; nothing has been ordered."""
        self._band = config.epsilon_w_ppm / PPM_ONE
        self._ordered = np.zeros(symbol_count)

    def __call__(self, target: Floats, held: Held) -> Flags:
        """Say which symbols have an order due, and remember their targets."""
        moved = np.abs(target - self._ordered) > self._band
        closes = ~(np.abs(target) > 0.0) & (np.abs(self._ordered) > 0.0)
        due = held.there(moved | closes)
        self._ordered = np.where(due, target, self._ordered)
        return due


class RuleB:
    """Orders when the position's weight is far enough from the target, and not too often."""

    def __init__(self, config: PolicyConfig, symbol_count: int) -> None:
        """Take band, least notional and cooldown; nothing has been filled."""
        self._band = config.epsilon_w_ppm / PPM_ONE
        self._notional = float(config.min_trade_notional)
        self._cooldown_bars = config.rebalance_cooldown_bars
        # Whole numbers in float64, which compares with a number twice as quickly as int64.
        self._filled = np.full(symbol_count, -np.inf)

    def __call__(self, target: Floats, held: Held) -> Flags:
        """Say which symbols have an order due, and remember that they are filled."""
        away = held.quantity * held.price
        away /= held.equity
        np.subtract(target, away, out=away)
        np.abs(away, out=away)
        due = away > self._band
        # Products keep their order when they are rounded: where the band itself is worth the least
        # notional, whatever is beyond it is.
        if self._band * held.equity < self._notional:
            due &= away * held.equity >= self._notional
        if self._cooldown_bars:
            due &= self._filled <= float(held.bar - self._cooldown_bars)
        asks = target.astype(np.bool_)
        if np.count_nonzero(asks) < len(asks):
            due |= ~asks & held.quantity.astype(np.bool_)
        due = held.there(due)
        if self._cooldown_bars:
            np.putmask(self._filled, due, float(held.bar))
        return due


def order_rule(execution: Execution, config: PolicyConfig, symbol_count: int) -> OrderRule | None:
    """Give the rule of a way to fill; None where policy itself orders."""
    match execution:
        case Execution.NEXT_BAR:
            return None
        case Execution.PARITY_A:
            return RuleA(config, symbol_count)
        case Execution.PARITY_B:
            return RuleB(config, symbol_count)
