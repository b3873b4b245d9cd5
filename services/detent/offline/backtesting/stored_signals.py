"""Replay signals that were stored: at each bar the last one that was there by then (R78)."""

import bisect
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from detent.contracts.checks import check_hash64, check_int, check_symbol, check_ts_ms
from detent.contracts.errors import InvalidField
from detent.contracts.reasons import Reason
from detent.contracts.units import BPS_ONE
from detent.core.policy.columns import ABSENT
from detent.offline.backtesting.market import Market
from detent.offline.backtesting.signals import REFUSAL_CODES, ModelSignals, no_answers
from detent.offline.cells import file_sha256, integer_cell, invalid, invalid_at, raw_cells

COLUMNS = ("ts_ms", "symbol", "p_hat_raw_bps", "p_hat_bps")
FEATURES_HASH = "features_hash"


class StoredSignal(msgspec.Struct, frozen=True, kw_only=True):
    """Holds one answer of a model.

    Attributes:
        ts_ms: From when it holds, Unix milliseconds: the close of the bar that it was given.
        p_hat_raw_bps: Uncalibrated, [0, 10000].
        p_hat_bps: Calibrated, [0, 10000].
        features_hash: Hash of what the model was given; empty where nobody kept it.
    """

    ts_ms: int
    p_hat_raw_bps: int
    p_hat_bps: int
    features_hash: str = ""

    def __post_init__(self) -> None:
        """Refuse what is no answer."""
        check_ts_ms("ts_ms", self.ts_ms)
        check_int("p_hat_raw_bps", self.p_hat_raw_bps, 0, BPS_ONE)
        check_int("p_hat_bps", self.p_hat_bps, 0, BPS_ONE)
        if self.features_hash:
            check_hash64("features_hash", self.features_hash)


class StoredSignals:
    """Holds the answers of a model by symbol, oldest first."""

    def __init__(
        self,
        signals: Mapping[str, Iterable[StoredSignal]] | None = None,
        *,
        file_sha256: str | None = None,
    ) -> None:
        """Sort them.

        Args:
            signals: The answers by symbol, in any order.
            file_sha256: SHA-256 of the file that held them, 64 hex; None where they were in none.

        Raises:
            InvalidField: Two of one symbol hold from the same instant.
        """
        self._signals: dict[str, Sequence[StoredSignal]] = {}
        self._times_ms: dict[str, NDArray[np.int64]] = {}
        self._file_sha256 = file_sha256
        for symbol, items in (signals or {}).items():
            ordered = sorted(items, key=lambda one: one.ts_ms)
            times_ms = np.array([one.ts_ms for one in ordered], dtype=np.int64)
            repeated = np.flatnonzero(np.diff(times_ms) == 0)
            if len(repeated):
                found = f"{symbol} at {times_ms[repeated[0]]} twice"
                raise InvalidField("ts_ms", found, "each instant once")
            self._signals[symbol], self._times_ms[symbol] = ordered, times_ms

    def at(self, symbol: str, ts_ms: int) -> StoredSignal | None:
        """Give the last signal of a symbol that holds at an instant; None when none does yet.

        It takes time in the logarithm of the symbol's signals.
        """
        times_ms = self._times_ms.get(symbol)
        if times_ms is None:
            return None
        place = bisect.bisect_right(times_ms, ts_ms)
        return self._signals[symbol][place - 1] if place else None

    def over(self, market: Market, *, max_age_ms: int | None) -> ModelSignals:
        """Give the signal that holds at each bar.

        Args:
            market: The bars.
            max_age_ms: How old a signal may be at the close of the bar; None for any age.
        """
        found = no_answers(market.close.shape, Reason.MODEL_NOT_LOADED, hashed=True)
        for column, symbol in enumerate(market.symbols):
            if len(self._times_ms.get(symbol, ())):
                self._fill(found, market, column, symbol, max_age_ms)
        return structs.replace(found, file_sha256=self._file_sha256)

    def _fill(
        self, found: ModelSignals, market: Market, column: int, symbol: str, max_age_ms: int | None
    ) -> None:
        times_ms, signals = self._times_ms[symbol], self._signals[symbol]
        places = np.searchsorted(times_ms, market.ts_ms, side="right") - 1
        rows = np.flatnonzero(places >= 0)
        if max_age_ms is not None:
            old = market.ts_ms[rows] - times_ms[places[rows]] > max_age_ms
            found.refusal[rows[old], column] = REFUSAL_CODES[Reason.FEATURES_STALE]
            rows = rows[~old]
        chosen = places[rows]
        raw, calibrated = (
            np.array([getattr(one, name) for one in signals], dtype=np.int16)
            for name in ("p_hat_raw_bps", "p_hat_bps")
        )
        found.p_hat_raw_bps[rows, column] = raw[chosen]
        found.p_hat_bps[rows, column] = calibrated[chosen]
        found.refusal[rows, column] = ABSENT
        hashes = np.array([one.features_hash for one in signals], dtype="S64")
        assert found.features_hash is not None
        found.features_hash[rows, column] = hashes[chosen]


def load_stored_signals(path: Path) -> StoredSignals:
    """Read signals from a `.parquet` or `.csv` file with the columns of `COLUMNS`.

    The column `features_hash` may be there; other columns are ignored.

    Raises:
        DataInvalid: The file cannot be read, or a row is not what it should be.
    """
    signals: dict[str, list[StoredSignal]] = {}
    digest = file_sha256(path)
    for row, cells in raw_cells(path, COLUMNS, optional=(FEATURES_HASH,)):
        try:
            check_symbol("symbol", cells["symbol"])
            signal = StoredSignal(
                ts_ms=integer_cell("ts_ms", cells["ts_ms"]),
                p_hat_raw_bps=integer_cell("p_hat_raw_bps", cells["p_hat_raw_bps"]),
                p_hat_bps=integer_cell("p_hat_bps", cells["p_hat_bps"]),
                features_hash=cells.get(FEATURES_HASH) or "",
            )
        except InvalidField as error:
            raise invalid_at(path.name, row, error) from error
        signals.setdefault(cells["symbol"], []).append(signal)
    try:
        return StoredSignals(signals, file_sha256=digest)
    except InvalidField as error:
        raise invalid(path.name, error.found, error.expected, column="ts_ms") from error
