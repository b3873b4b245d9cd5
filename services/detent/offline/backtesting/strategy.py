"""Play the strategist: what permits a direction on each bar, and how volatile it is.

Rules are small and deterministic, so that the very same rows can be asked of a running service.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from detent.contracts.canonical import canonical_hash
from detent.contracts.checks import check_hash64, check_int, check_symbol, check_ts_ms
from detent.contracts.errors import DataInvalid, InvalidField
from detent.contracts.json_codec import to_json
from detent.contracts.plan import Trigger, TriggerState, VolUnit
from detent.contracts.units import PPM_ONE
from detent.core.evaluation.equity import periods_in_year
from detent.core.policy.columns import INACTIVE, LONG, SHORT, TRIGGER_CODES
from detent.offline.backtesting.market import Floats, Market, closes_of
from detent.offline.cells import file_sha256, integer_cell, invalid, invalid_at, raw_cells

Codes = NDArray[np.int8]
BARS_MAX = 100_000
FILE_COLUMNS = ("ts_ms", "symbol", "trigger_state")


class TriggerRule(StrEnum):
    """Names the rules that a back-test can permit a direction by."""

    TREND = "trend"
    ALWAYS_LONG = "always_long"
    FILE = "file"


class TriggerParameters(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the rule and its parameters; their hash stands in the plan.

    Attributes:
        rule: The rule.
        window_bars: Bars of the moving average of the trend.
        shorts: Whether the trend permits shorts below it.
        file_sha256: SHA-256 of the file of a rule by file, 64 hex; None by any other rule.
    """

    SCHEMA = "detent.backtest_trigger.v1"
    JSON_GROWN: ClassVar[frozenset[str]] = frozenset({"file_sha256"})

    rule: TriggerRule = TriggerRule.TREND
    window_bars: int = 96
    shorts: bool = True
    file_sha256: str | None = None

    def __post_init__(self) -> None:
        """Refuse a window of no bars, and a digest that is none."""
        check_int("window_bars", self.window_bars, 1, BARS_MAX)
        if self.file_sha256 is not None:
            check_hash64("file_sha256", self.file_sha256)

    @property
    def trigger(self) -> Trigger:
        """Give the trigger as a plan declares it."""
        return Trigger(
            trigger_id=f"backtest_{self.rule}",
            parameters_hash=canonical_hash(self.SCHEMA, to_json(self)),
        )


def trigger_columns(
    market: Market, parameters: TriggerParameters, file: Path | None = None
) -> Codes:
    """Say what is permitted on each bar, shape (t, s), as `TRIGGER_CODES` numbers it.

    Trend permits long while the close is above the mean of the last `window_bars` closes, that
    of the bar included, and short while it is below, where shorts are allowed; nothing until
    there are as many bars, and nothing on the mean itself.

    Raises:
        DataInvalid: The file cannot be used, is not the one that the parameters name, or
            nothing would read it.
    """
    if file is not None and parameters.rule is not TriggerRule.FILE:
        found, expected = f"{file.name} beside {parameters.rule}", f"the rule {TriggerRule.FILE}"
        raise DataInvalid(f"trigger file: found {found}, expected {expected}", found=found)
    match parameters.rule:
        case TriggerRule.TREND:
            return _by_symbol(market, lambda closes: _trend(closes, parameters))
        case TriggerRule.ALWAYS_LONG:
            return np.full(market.close.shape, LONG, dtype=np.int8)
        case TriggerRule.FILE:
            if file is None:
                raise DataInvalid("a rule by file: found no file, expected one", found="no file")
            # The plan's hash covers this digest: no other content may permit anything under it.
            found = file_sha256(file)
            if found != parameters.file_sha256:
                raise invalid(file.name, found, f"the content {parameters.file_sha256}")
            return _from_file(market, file)


def vol_columns(market: Market, *, window_bars: int, unit: VolUnit) -> NDArray[np.int64]:
    """Forecast volatility: the deviation of the last log returns, parts per million.

    Args:
        market: The bars.
        window_bars: Returns that count, at least 2; their deviation has ddof 1.
        unit: Per bar or per year of 365 days.

    Returns:
        Shape (t, s); 0, which is unknown, until there are as many returns.
    """
    scale = 1.0 if unit is VolUnit.PER_BAR else periods_in_year(market.interval_ms) ** 0.5
    columns = np.zeros(market.close.shape, dtype=np.int64)
    for column in range(len(market.symbols)):
        rows, closes = closes_of(market, column)
        if len(closes) > window_bars:
            deviation = _deviations(np.diff(np.log(closes)), window_bars)
            columns[rows[window_bars:], column] = np.rint(deviation * (scale * PPM_ONE))
    return columns


def _deviations(returns: Floats, window_bars: int) -> Floats:
    """Give the deviation, ddof 1, of each window; sums run over differences from the mean."""
    centred = returns - returns.mean()
    first = _window_sums(centred, window_bars)
    second = _window_sums(centred * centred, window_bars)
    variance = (second - first * first / window_bars) / (window_bars - 1)
    return np.sqrt(np.maximum(variance, 0.0))


def _window_sums(items: Floats, window_bars: int) -> Floats:
    sums = np.concatenate(([0.0], np.cumsum(items)))
    return np.asarray(sums[window_bars:] - sums[:-window_bars])


def _trend(closes: Floats, parameters: TriggerParameters) -> Codes:
    codes = np.full(len(closes), INACTIVE, dtype=np.int8)
    window_bars = parameters.window_bars
    if len(closes) >= window_bars:
        # From the first close on, so that a long series loses no digits to its own size.
        away = closes - closes[0]
        mean = _window_sums(away, window_bars) / window_bars
        below = SHORT if parameters.shorts else INACTIVE
        newest = away[window_bars - 1 :]
        codes[window_bars - 1 :] = np.where(
            newest > mean, LONG, np.where(newest < mean, below, INACTIVE)
        )
    return codes


def _by_symbol(market: Market, rule: Callable[[Floats], Codes]) -> Codes:
    codes = np.full(market.close.shape, INACTIVE, dtype=np.int8)
    for column in range(len(market.symbols)):
        rows, closes = closes_of(market, column)
        codes[rows, column] = rule(closes)
    return codes


def _from_file(market: Market, file: Path) -> Codes:
    """Read what is permitted, one row per bar; a bar that the file does not name is inactive.

    One that names no bar at all is of other symbols or other times than was meant.
    """
    codes = np.full(market.close.shape, INACTIVE, dtype=np.int8)
    columns = {symbol: column for column, symbol in enumerate(market.symbols)}
    rows: Mapping[int, int] = {int(ts_ms): row for row, ts_ms in enumerate(market.ts_ms)}
    seen: set[tuple[int, str]] = set()
    named = 0
    for number, cells in raw_cells(file, FILE_COLUMNS):
        symbol, state = cells["symbol"], cells["trigger_state"]
        try:
            ts_ms = integer_cell("ts_ms", cells["ts_ms"])
            check_ts_ms("ts_ms", ts_ms)
            check_symbol("symbol", symbol)
            code = TRIGGER_CODES[TriggerState(state)]
        except InvalidField as error:
            raise invalid_at(file.name, number, error) from error
        except ValueError as error:
            expected = f"one of {', '.join(TriggerState)}"
            raise invalid(file.name, state, expected, row=number, column="trigger_state") from error
        if (ts_ms, symbol) in seen:
            raise invalid(file.name, f"{symbol} at {ts_ms} again", "each bar once", row=number)
        seen.add((ts_ms, symbol))
        if symbol in columns and ts_ms in rows:
            codes[rows[ts_ms], columns[symbol]] = code
            named += 1
    if not named:
        found = f"{len(seen)} rows, none of them of a bar"
        raise invalid(file.name, found, "closes of the bars, and their symbols")
    return codes
