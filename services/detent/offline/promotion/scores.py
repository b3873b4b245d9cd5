"""Measure probabilities that were given out of fold: alone, and beside a baseline's."""

from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from detent.contracts.units import PPM_ONE
from detent.core.evaluation.auc_comparison import compare_auc
from detent.core.evaluation.calibration_intervals import Interval, calibration_intervals
from detent.core.evaluation.measures import CalibrationMeasures, IntervalPpm, ScoreComparison
from detent.core.evaluation.paired_loss import (
    Ints,
    bar_means,
    block_bars,
    brier_losses,
    hac_mean,
    log_losses,
    stationary_blocks,
    upper_bound,
)
from detent.core.evaluation.reliability import (
    calibration_error,
    null_band,
    reliability_bins,
)
from detent.core.evaluation.scores import Floats, Labels, brier_score, log_loss

PPB_ONE = 10**9
RESAMPLES = 1_000
NULL_RESAMPLES = 500
# The same draws for the same bars, run after run.
SEED = 0
# A class needs two rows before an order of them means anything.
_CLASS_ROWS_MIN = 2


class Predictions(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Holds what a model said of rows that it had not seen, with what the proxy said of them.

    All arrays have shape (n,).

    Attributes:
        ts_ms: int64, close of the bar.
        symbols: Names of the instruments.
        p_raw: float64, before calibration.
        p: float64, after it.
        proxy_p: float64, the proxy's.
        labels: bool, whether the price went up.
    """

    ts_ms: Ints
    symbols: NDArray[np.str_]
    p_raw: Floats
    p: Floats
    proxy_p: Floats
    labels: Labels

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.ts_ms)


def resampled_bars(bar_count: int, horizon_bars: int, resamples: int) -> Iterator[Ints]:
    """Draw bars anew, block by block; every call gives the same."""
    chance = np.random.default_rng(SEED)
    block = block_bars(bar_count, horizon_bars)
    for _ in range(resamples):
        restarts, starts = chance.random((2, bar_count))
        yield stationary_blocks(restarts, starts, block_bar_count=block)


def measure_calibration(found: Predictions, horizon_bars: int) -> CalibrationMeasures:
    """Measure a model's probabilities, of at least one row."""
    draws = np.random.default_rng(SEED).random((NULL_RESAMPLES, len(found)))
    line = calibration_intervals(found.p, found.labels, found.ts_ms, lag_count=horizon_bars)
    return CalibrationMeasures(
        brier_ppb=_ppb(brier_score(found.p, found.labels)),
        brier_raw_ppb=_ppb(brier_score(found.p_raw, found.labels)),
        log_loss_ppb=_ppb(log_loss(found.p, found.labels)),
        log_loss_raw_ppb=_ppb(log_loss(found.p_raw, found.labels)),
        ece_ppm=_ece_ppm(found.p, found.labels),
        ece_null_high_ppm=ppm(null_band(found.p, draws).ece_high),
        slope=None if line is None else _interval(line.slope),
        intercept=None if line is None else _interval(line.intercept),
    )


def compare_scores(
    found: Predictions,
    baseline_p: Floats,
    *,
    horizon_bars: int,
    baseline: str,
    baseline_version_hash: str | None = None,
    is_simpler: bool = False,
    resamples: int = RESAMPLES,
) -> ScoreComparison:
    """Compare a model with a baseline on the same rows, at least one.

    Args:
        found: The model's rows.
        baseline_p: Shape (n,), the baseline's probabilities of them.
        horizon_bars: How far ahead a label looks: neighbouring bars depend on one another.
        baseline: Who the baseline is.
        baseline_version_hash: Its manifest hash; None for the proxy.
        is_simpler: Whether the model is simpler than the baseline.
        resamples: How often bars are drawn anew.
    """
    differences = [
        bar_means(found.ts_ms, losses(found.p, found.labels) - losses(baseline_p, found.labels))
        for losses in (brier_losses, log_losses)
    ]
    brier, logs = (_with_bound(one, horizon_bars, resamples) for one in differences)
    share = np.full(len(found), np.mean(found.labels))
    ups = int(np.sum(found.labels))
    order = None
    if min(ups, len(found) - ups) >= _CLASS_ROWS_MIN:
        order = compare_auc(found.p, baseline_p, found.labels)
    return ScoreComparison(
        baseline=baseline,
        baseline_version_hash=baseline_version_hash,
        row_count=len(found),
        is_simpler=is_simpler,
        brier_difference_ppb=brier[0],
        brier_upper_ppb=brier[1],
        brier_uncertainty_ppb=_ppb(brier_score(share, found.labels)),
        log_loss_difference_ppb=logs[0],
        log_loss_upper_ppb=logs[1],
        log_loss_uncertainty_ppb=_ppb(log_loss(share, found.labels)),
        ece_difference_ppm=_ece_ppm(found.p, found.labels) - _ece_ppm(baseline_p, found.labels),
        auc_difference_ppm=None if order is None else ppm(order.first - order.second),
        auc_p_value_ppm=None if order is None else ppm(order.p_value),
    )


def common_rows(found: Predictions, other: Predictions) -> tuple[Predictions, Floats]:
    """Give the rows that two models both have, and the other's probabilities of them."""
    places = {key: place for place, key in enumerate(_keys(other))}
    pairs = [(place, places[key]) for place, key in enumerate(_keys(found)) if key in places]
    mine = np.array([pair[0] for pair in pairs], dtype=np.int64)
    others = np.array([pair[1] for pair in pairs], dtype=np.int64)
    return rows_of(found, mine), other.p[others]


def rows_of(found: Predictions, places: Ints) -> Predictions:
    """Give some of the rows."""
    return Predictions(
        **{name: getattr(found, name)[places] for name in Predictions.__struct_fields__}
    )


def ppm(value: float) -> int:
    """Round a share to parts per million."""
    return round(value * PPM_ONE)


def _with_bound(differences: Floats, horizon_bars: int, resamples: int) -> tuple[int, int]:
    """Give the mean of a difference per bar, and what the true one stays below.

    The bound is the higher of two: over blocks drawn anew, and of a variance that counts
    neighbours. They differ where there are few blocks, and then neither is to be relied upon.
    """

    def mean(bars: Ints) -> float:
        return float(np.mean(differences[bars]))

    count = len(differences)
    drawn = upper_bound(mean, resampled_bars(count, horizon_bars, resamples))
    found = hac_mean(differences, block_bars(count, horizon_bars))
    return _ppb(found.mean), _ppb(max(drawn, found.upper))


def _keys(found: Predictions) -> Iterator[tuple[int, str]]:
    return zip(found.ts_ms.tolist(), found.symbols.tolist(), strict=True)


def _ece_ppm(p: Floats, labels: Labels) -> int:
    return ppm(calibration_error(reliability_bins(p, labels)))


def _interval(found: Interval) -> IntervalPpm:
    return IntervalPpm(low_ppm=ppm(found.low), value_ppm=ppm(found.value), high_ppm=ppm(found.high))


def _ppb(value: float) -> int:
    return round(value * PPB_ONE)
