"""Write the fills of a stretch of bars as `RecordFills` keeps them: the same facts, the same text.

Quantities are told as the difference of two positions, each rounded to decimal places of the
symbol's own. So the fills of a position that was left add up to nothing, exactly, and trade sets
close. The first fill of every stretch is read and written again by the contract; another text
stops the run.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from detent.contracts.canonical import canonical_bytes, parse_json
from detent.contracts.errors import InternalError
from detent.contracts.json_codec import from_json, to_json
from detent.contracts.trades import Fill, Side
from detent.contracts.units import BPS_ONE
from detent.core.policy.columns import Flags, Floats, Ints
from detent.offline.backtesting.engine import Setup, Stretch
from detent.offline.backtesting.execution import Execution
from detent.offline.backtesting.market import Market
from detent.offline.backtesting.record_texts import close_texts

# Digits of a position that is worth the whole account at the start.
QUANTITY_DIGITS = 12
PLACES_MAX = 18
_SIDE_TEXTS = {True: Side.BUY.value, False: Side.SELL.value}
# One row of `fills`.
FiledFill = tuple[str, str, str, str, int, str]


class FillWriter:
    """Writes the fills of one plan, stretch by stretch, each with the decision that asked for it.

    A fill is named after that decision: an order is filled whole or not at all, so a decision has
    one fill at most, and the hash of a record is nobody else's.
    """

    def __init__(self, setup: Setup) -> None:
        """Start with nothing ordered."""
        self._setup = setup
        self._at_once = setup.execution is not Execution.NEXT_BAR
        self._early_ms = 0 if self._at_once else setup.market.interval_ms
        symbols = setup.market.symbols
        self._ordered_by = [""] * len(symbols)
        self._places = [
            places_of(setup.market, column, cash=setup.cash) for column in range(len(symbols))
        ]
        self._scales = np.array([10.0**places for places in self._places])

    def rows(self, stretch: Stretch, record_hashes: Sequence[str]) -> Iterator[FiledFill]:
        """Give the fills of a stretch as the ledger files them, bar by bar.

        Args:
            stretch: The bars.
            record_hashes: Hashes of their records, in the order in which those were written.

        Raises:
            InternalError: The first of them is not what the contract writes.
        """
        present = stretch.walked.present
        numbers = np.cumsum(present).reshape(present.shape) - 1
        orders = latest_orders(stretch.walked.trades)
        held = np.rint(stretch.fills.quantity * self._scales)
        bars, places = np.nonzero(held[1:] != held[:-1])
        if len(bars):
            asked = bars if self._at_once else orders[bars, places]
            ordered_by = [
                self._ordered_by[place] if bar < 0 else record_hashes[numbers[bar, place]]
                for bar, place in zip(asked.tolist(), places.tolist(), strict=True)
            ]
            units = [
                # Integers, which subtract without rounding whatever their size.
                int(after) - int(before)
                for after, before in zip(
                    held[bars + 1, places].tolist(), held[bars, places].tolist(), strict=True
                )
            ]
            times_ms = stretch.walked.ts_ms[bars] - self._early_ms
            met = stretch.fills.price[bars, places]
            yield from self._filed(ordered_by, places, units, met, times_ms)
        self._remember(orders[-1], numbers, record_hashes)

    def _filed(
        self,
        ordered_by: Sequence[str],
        places: Ints,
        units: Sequence[int],
        met: Floats,
        times_ms: Ints,
    ) -> Iterator[FiledFill]:
        """Write some fills, at least one; what they met are the prices before slippage."""
        plan, costs = self._setup.bound.plan, self._setup.costs
        signed = np.array(units, dtype=np.float64)
        price = met * (1.0 + np.sign(signed) * (costs.slippage_bps / BPS_ONE))
        fee = np.abs(signed) / self._scales[places] * price * (costs.fee_bps / BPS_ONE)
        columns = zip(
            ordered_by,
            places.tolist(),
            units,
            close_texts(price),
            close_texts(fee),
            times_ms.tolist(),
            strict=True,
        )
        is_checked = False
        for record_hash, place, moved, price_text, fee_text, ts_ms in columns:
            symbol, side = plan.symbols[place], _SIDE_TEXTS[moved > 0]
            text = (
                f'{{"book":"{plan.book}","fee":"{fee_text}","fill_id":"{record_hash}",'
                f'"plan_id":"{plan.plan_id}","price":"{price_text}",'
                f'"quantity":"{units_text(abs(moved), self._places[place])}",'
                f'"record_hash":"{record_hash}","schema":"{Fill.SCHEMA}","sequence":{place},'
                f'"side":"{side}","symbol":"{symbol}","ts_ms":{ts_ms}}}'
            )
            if not is_checked:
                check_fill_text(text)
                is_checked = True
            yield record_hash, plan.plan_id, plan.book, symbol, ts_ms, text

    def _remember(self, latest: Ints, numbers: Ints, record_hashes: Sequence[str]) -> None:
        """Keep who ordered last: where bars are missing, a later stretch fills it."""
        for place, bar in enumerate(latest.tolist()):
            if bar >= 0:
                self._ordered_by[place] = record_hashes[numbers[bar, place]]


def latest_orders(trades: Flags) -> Ints:
    """Give the last bar before each in which a symbol ordered; -1 where there was none.

    Args:
        trades: Shape (t, s): whether it ordered.

    Returns:
        Shape (t + 1, s): the last row says it of what follows.
    """
    bars = np.where(trades, np.arange(len(trades))[:, np.newaxis], -1)
    first = np.full((1, trades.shape[1]), -1)
    return np.maximum.accumulate(np.vstack([first, bars]), axis=0)


def places_of(market: Market, column: int, *, cash: float) -> int:
    """Give the decimal places of a symbol's positions, from what the account could buy of it."""
    first = int(np.argmax(market.present[:, column]))
    digits_before = math.ceil(math.log10(cash / float(market.close[first, column])))
    return min(max(QUANTITY_DIGITS - digits_before, 0), PLACES_MAX)


def units_text(units: int, places: int) -> str:
    """Write a number of the smallest units, at least 0, as a canonical decimal."""
    if not places:
        return str(units)
    digits = str(units).rjust(places + 1, "0")
    part = digits[-places:].rstrip("0")
    return f"{digits[:-places]}.{part}" if part else digits[:-places]


def check_fill_text(text: str) -> None:
    """Refuse a fill that the contract does not read, or writes otherwise.

    Raises:
        InternalError: It is another text.
        InvalidField: It is no fill.
    """
    fill = from_json(Fill, parse_json("fill", text.encode("ascii")))
    expected = canonical_bytes(Fill.SCHEMA, to_json(fill)).decode("ascii")
    if text != expected:
        raise InternalError(f"a fill: found {text}, expected {expected}")
