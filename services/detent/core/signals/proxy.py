"""Compute the rule-based probability that needs no artifact and cannot fail.

It is computed on every bar, in every mode, so that falling back is a choice between two
ready values and not another path.
"""

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from detent.contracts.proxy import ProxyConfig
from detent.contracts.reasons import Reason
from detent.contracts.units import BPS_HALF, BPS_ONE

Floats = NDArray[np.float64]
# Relative to the largest momentum: below this the deviation is rounding, not movement.
DEVIATION_RELATIVE_MIN = 1e-12
# How far apart on average the bars may lie that the proxy looks back on: hourly ones of an
# instrument that rests over a long holiday do.
BARS_APART_MAX = 8
# So many windows of a series are summed one by one at a time.
SERIES_ROWS = 1_024
# What a series holds where there is no probability; no probability is below 0.
SERIES_WARMING_UP, SERIES_FLAT = -1, -2
# Around the middle between two integers an array does not decide: two implementations of tanh
# differ by some 1e-16.
UNDECIDED_BPS = 1e-6
# A series sums windows together where the spread is at least this share of the squares, and the
# deviation far from where momentum is flat.
SPREAD_SHARE_MIN, DEVIATION_CLEAR_MIN = 1e-4, 1e3 * DEVIATION_RELATIVE_MIN


class ProxyAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the proxy's probability in basis points and, if it is 5000 for want, why."""

    p_hat_bps: int
    reason: Reason | None


WARMING_UP = ProxyAnswer(p_hat_bps=BPS_HALF, reason=Reason.PROXY_WARMING_UP)
FLAT = ProxyAnswer(p_hat_bps=BPS_HALF, reason=Reason.PROXY_FLAT)


def proxy_answer(closes: Sequence[float], config: ProxyConfig) -> ProxyAnswer:
    """Compute the proxy for one symbol; see `proxy_answers`."""
    return proxy_answers([closes], config)[0]


def proxy_answers(closes: Sequence[Sequence[float]], config: ProxyConfig) -> list[ProxyAnswer]:
    """Compute 0.5 * (1 + tanh(k * zscore(momentum))) over the newest closes of each symbol.

    All symbols go through one array, each in a row of its own, so that a symbol's answer is
    the same alone and in company.

    Args:
        closes: Per symbol the closes, oldest first, all above 0; the newest
            `config.closes_needed` count.
        config: Lookback, window, ddof and k.

    Returns:
        Per symbol the probability; 5000 with a reason when history is short or momentum is
        flat.

    Source: seed 002, phase 1 B; row R204.
    """
    needed = config.closes_needed
    answers = [WARMING_UP] * len(closes)
    warm = [index for index, row in enumerate(closes) if len(row) >= needed]
    if not warm:
        return answers
    recent = np.array([closes[index][-needed:] for index in warm], dtype=np.float64)
    momentum = recent[:, config.lookback_bars :] / recent[:, : -config.lookback_bars] - 1.0
    moving, away, deviation = _standing(momentum, config)
    for index, moves, last, spread in zip(
        warm, moving.tolist(), away.tolist(), deviation.tolist(), strict=True
    ):
        if not moves:
            answers[index] = FLAT
            continue
        p_hat = _belief(last, spread, config)
        answers[index] = ProxyAnswer(p_hat_bps=round(p_hat * BPS_ONE), reason=None)
    return answers


def proxy_series(closes: Floats, config: ProxyConfig) -> NDArray[np.int32]:
    """Compute the proxy at every bar of one symbol, as `proxy_answers` does bar by bar.

    Args:
        closes: Shape (n,), all above 0, oldest first, no bar missing.
        config: Lookback, window, ddof and k.

    Returns:
        Shape (n,): the probability in basis points; `SERIES_WARMING_UP` where history is
        short, `SERIES_FLAT` where momentum is flat.
    """
    series = np.full(len(closes), SERIES_WARMING_UP, dtype=np.int32)
    first = config.closes_needed - 1
    if len(closes) <= first:
        return series
    momentum = closes[config.lookback_bars :] / closes[: -config.lookback_bars] - 1.0
    series[first:], undecided = _quick_bps(momentum, config)
    windows = sliding_window_view(momentum, config.window_bars)
    for start in range(0, len(undecided), SERIES_ROWS):
        some = undecided[start : start + SERIES_ROWS]
        # A copy row by row: sums then add up in the order in which they do for one bar.
        rows = np.array(windows[some], order="C")
        series[first + some] = _beliefs_bps(*_standing(rows, config), config)
    return series


def _quick_bps(momentum: Floats, config: ProxyConfig) -> tuple[Floats, NDArray[np.int64]]:
    """Round beliefs from sums that windows share, and say which windows have to be summed alone.

    Shared sums are right to some fifteen digits. The spread has fewer by as many as it is smaller
    than the squares; where those are at most four, a belief is known to a tenth of
    `UNDECIDED_BPS`.
    """
    squares = _window_sums(momentum * momentum, config.window_bars)
    mean = _window_sums(momentum, config.window_bars) / config.window_bars
    spread = squares - mean * mean * config.window_bars
    deviation = np.sqrt(np.maximum(spread, 0.0) / (config.window_bars - config.ddof))
    clear = (spread > SPREAD_SHARE_MIN * squares) & (deviation > DEVIATION_CLEAR_MIN)
    score = (momentum[config.window_bars - 1 :] - mean) / np.where(clear, deviation, 1.0)
    exact = _belief_bps(score, config)
    rounded = np.rint(exact)
    clear &= np.abs(exact - rounded) <= 0.5 - UNDECIDED_BPS
    return rounded, np.flatnonzero(~clear)


def _window_sums(items: Floats, window: int) -> Floats:
    """Sum each window of some length, shape (n,) to (n - window + 1,), without differences.

    Sums of 1, 2, 4 and more items are doubled; those that the length consists of are added up.
    """
    count = len(items) - window + 1
    total, begin, width = np.zeros(count), 0, 1
    while begin < window:
        if window & width:
            total += items[begin : begin + count]
            begin += width
        items = items[:-width] + items[width:]
        width *= 2
    return total


def _belief_bps(score: Floats, config: ProxyConfig) -> Floats:
    return 0.5 * (1.0 + np.tanh(config.k_x1000 / 1000.0 * score)) * BPS_ONE


def _beliefs_bps(
    moving: NDArray[np.bool_], away: Floats, deviation: Floats, config: ProxyConfig
) -> NDArray[np.int32]:
    """Round beliefs as `round` does; one that lies near a tie is computed alone."""
    exact = _belief_bps(away / np.where(moving, deviation, 1.0), config)
    rounded = np.rint(exact)
    for row in np.flatnonzero(np.abs(exact - rounded) > 0.5 - UNDECIDED_BPS).tolist():
        belief = _belief(float(away[row]), float(deviation[row]), config) if moving[row] else 0.0
        rounded[row] = round(belief * BPS_ONE)
    return np.where(moving, rounded, SERIES_FLAT).astype(np.int32)


def _standing(momentum: Floats, config: ProxyConfig) -> tuple[NDArray[np.bool_], Floats, Floats]:
    """Give of each row whether it moves, its last and its usual distance; it is used up."""
    mean = momentum.sum(axis=1) / config.window_bars
    momentum -= mean[:, np.newaxis]
    last = momentum[:, -1].copy()
    momentum *= momentum
    deviation = np.sqrt(momentum.sum(axis=1) / (config.window_bars - config.ddof))
    moving = deviation > DEVIATION_RELATIVE_MIN * np.maximum(1.0, np.abs(mean))
    return moving, last, deviation


def _belief(last: float, spread: float, config: ProxyConfig) -> float:
    return 0.5 * (1.0 + math.tanh(config.k_x1000 / 1000.0 * (last / spread)))
