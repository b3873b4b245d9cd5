"""Keep cash and positions of a simulated account: what is ordered, filled, paid and held.

Positions are fractional and may be negative. Everything is float64 in the order in which it is
written here, so that whoever steps an account over the same bars holds the same to the bit.
"""

import msgspec
import numpy as np
from numpy.typing import NDArray

from detent.contracts.errors import DataInvalid
from detent.contracts.units import BPS_ONE, PPM_ONE

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
# Equity is told to policy in hundredths of the account's currency.
CENTS = 100
# What a row may say that is held: more is a unit error (`PositionState`).
WEIGHT_MAX_PPM = 100.0 * PPM_ONE


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what trading costs, basis points of notional.

    Attributes:
        fee_bps: Paid to the exchange.
        slippage_bps: How much worse than the price that an order meets it is filled.
    """

    fee_bps: float = 5.0
    slippage_bps: float = 0.0


class Fills(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Holds what the fills of one bar came to.

    Attributes:
        traded: Their notional at the prices that were met, quote units.
        fees: Quote units.
        slippage: Quote units.
        bought: Shape (s,), base units, signed; 0 where nothing was filled.
    """

    traded: float
    fees: float
    slippage: float
    bought: Floats

    @property
    def trades(self) -> int:
        """Count the fills."""
        return int(np.count_nonzero(self.bought))


class Account:
    """Holds cash, the quantity of each symbol, and the orders that wait for their fill.

    Attributes:
        cash: Quote units.
        quantity: Shape (s,), base units, signed.
        waiting: Shape (s,), base units ordered and not yet filled.
    """

    __slots__ = ("_fee", "_is_waiting", "_no_fills", "_slip", "cash", "quantity", "waiting")

    def __init__(self, symbol_count: int, *, cash: float, costs: Costs) -> None:
        """Start with cash and nothing else."""
        self.cash = cash
        self.quantity = np.zeros(symbol_count)
        self.waiting = np.zeros(symbol_count)
        self._no_fills = Fills(traded=0.0, fees=0.0, slippage=0.0, bought=self.waiting)
        self._is_waiting = False
        self._fee = costs.fee_bps / BPS_ONE
        self._slip = costs.slippage_bps / BPS_ONE

    def fill(self, price: Floats, present: Flags | None) -> Fills:
        """Fill what waits at the prices of a bar.

        Args:
            price: Shape (s,): what an order meets, before slippage.
            present: Shape (s,): the symbols that have a bar; None when all have.
        """
        if not self._is_waiting:
            return self._no_fills
        bought = self.waiting
        if present is None:
            self.waiting, self._is_waiting = self._no_fills.bought, False
        else:
            bought, self.waiting = np.where(present, bought, 0.0), np.where(present, 0.0, bought)
            self._is_waiting = bool(self.waiting.any())
        traded = float(np.abs(bought).dot(price))
        net = float(bought.dot(price))
        slippage = traded * self._slip
        # What is paid on is the price of the fill: above the met one to buy, below it to sell.
        fees = (traded + net * self._slip) * self._fee
        self.cash -= net + slippage + fees
        self.quantity = self.quantity + bought
        return Fills(traded=traded, fees=fees, slippage=slippage, bought=bought)

    def pay_funding(self, price: Floats, share: Floats) -> float:
        """Pay what is due on what is held, shares of its notional; gives what was paid."""
        paid = float((self.quantity * price).dot(share))
        self.cash -= paid
        return paid

    def mark(self, price: Floats) -> tuple[float, Floats]:
        """Give equity and the weight of each position at some prices.

        Returns:
            Quote units; and shape (s,), whole parts per million.

        Raises:
            DataInvalid: The account is used up: nothing that follows would mean anything.
        """
        notional = self.quantity * price
        equity = self.cash + float(np.add.reduce(notional))
        if not equity * CENTS >= 1.0:
            found, expected = f"equity {equity:.2f}", "at least a hundredth"
            message = f"the account is used up: found {found}, expected {expected}"
            raise DataInvalid(message, found=found, expected=expected)
        notional *= PPM_ONE / equity
        return equity, np.rint(notional, out=notional)

    def order(self, equity: float, price: Floats, final_ppm: Floats, trades: Flags) -> None:
        """Order what brings the rows that trade to their weights, at equity and price of now."""
        wanted = final_ppm * (equity / PPM_ONE)
        wanted /= price
        wanted -= self.quantity
        if self._is_waiting:
            # One that still waits is replaced.
            self.waiting = np.where(trades, wanted, self.waiting)
        else:
            self.waiting, self._is_waiting = wanted * trades, True


def cents_of(equity: float) -> int:
    """Give equity as policy is told it, in hundredths."""
    return round(equity * CENTS)
