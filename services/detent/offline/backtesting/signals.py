"""Hold what a model and the proxy said of each bar, wherever it comes from."""

import msgspec
import numpy as np
from numpy.typing import NDArray

from detent.contracts.proxy import PROXY_DEFAULT
from detent.contracts.reasons import Reason
from detent.core.policy.columns import ABSENT
from detent.core.signals.proxy import BARS_APART_MAX, SERIES_WARMING_UP, proxy_series
from detent.offline.backtesting.market import Flags, Floats, Ints, Market, closes_of

Bps = NDArray[np.int16]
REFUSALS = tuple(Reason)
REFUSAL_CODES = {reason: code for code, reason in enumerate(REFUSALS)}


class ModelSignals(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Holds what a model answered; arrays of shape (t, s).

    Attributes:
        p_hat_raw_bps: int16, uncalibrated; `ABSENT` without an answer.
        p_hat_bps: int16, calibrated; `ABSENT` without an answer.
        refusal: int16, place in `REFUSALS` of the reason why there is none; `ABSENT` with one.
        features_hash: 64 ASCII hex, empty where nothing was built; None where none is known.
        file_sha256: SHA-256 of the file that they were stored in, 64 hex; None where they were in
            none.
    """

    p_hat_raw_bps: Bps
    p_hat_bps: Bps
    refusal: Bps
    features_hash: NDArray[np.bytes_] | None = None
    file_sha256: str | None = None


def no_answers(shape: tuple[int, ...], reason: Reason, *, hashed: bool = False) -> ModelSignals:
    """Give signals in which nothing has been answered yet."""
    return ModelSignals(
        p_hat_raw_bps=np.full(shape, ABSENT, dtype=np.int16),
        p_hat_bps=np.full(shape, ABSENT, dtype=np.int16),
        refusal=np.full(shape, REFUSAL_CODES[reason], dtype=np.int16),
        features_hash=np.zeros(shape, dtype="S64") if hashed else None,
    )


class Signals(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Holds both probabilities of each bar; arrays of shape (t, s).

    Attributes:
        model: What the model answered; None for a plan that binds the proxy.
        proxy: int16, basis points, or what `proxy_series` says instead.
    """

    model: ModelSignals | None
    proxy: Bps

    def chosen(self, rows: slice) -> tuple[Ints, Flags]:
        """Give the probability that counts on some bars, and whether it is usable."""
        proxy = self.proxy[rows]
        p_hat_bps = np.where(proxy < 0, 5_000, proxy).astype(np.int64)
        usable = proxy != SERIES_WARMING_UP
        if self.model is None:
            return p_hat_bps, usable
        answered = self.model.p_hat_bps[rows] != ABSENT
        return np.where(answered, self.model.p_hat_bps[rows], p_hat_bps), answered | usable


def proxy_columns(market: Market) -> Bps:
    """Give the proxy's answer on every bar of every symbol."""
    columns = np.full(market.close.shape, SERIES_WARMING_UP, dtype=np.int16)
    for column in range(len(market.symbols)):
        rows, closes = closes_of(market, column)
        columns[rows, column] = _answers(market.ts_ms[rows], closes, market.interval_ms)
    return columns


def _answers(ts_ms: Ints, closes: Floats, interval_ms: int) -> Bps:
    needed = PROXY_DEFAULT.closes_needed
    if len(closes) < needed:
        return np.full(len(closes), SERIES_WARMING_UP, dtype=np.int16)
    answers = proxy_series(closes, PROXY_DEFAULT).astype(np.int16)
    spans_ms = ts_ms[needed - 1 :] - ts_ms[: len(ts_ms) - needed + 1]
    too_old = spans_ms > needed * interval_ms * BARS_APART_MAX
    answers[needed - 1 :][too_old] = SERIES_WARMING_UP
    return answers
