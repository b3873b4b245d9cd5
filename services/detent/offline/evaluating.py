"""Measure a calibrated model on rows that nothing was fitted on."""

import msgspec
import numpy as np

from detent.contracts.manifest import Metric
from detent.contracts.units import BPS_ONE, PPM_ONE
from detent.core.evaluation.reliability import (
    calibration_error,
    ece_name,
    null_band,
    reliability_bins,
)
from detent.core.evaluation.scores import (
    LOG_LOSS_NAME,
    Floats,
    Labels,
    accuracy,
    brier_score,
    log_loss,
)
from detent.offline.train_report import ReportBin

NULL_RESAMPLES = 500
NULL_SEED = 0


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the scores of one model on its test rows.

    Attributes:
        accuracy_bps: Share of rows on the right side of one half, after calibration.
        metrics: Every score, by the name that states its definition (D21).
        reliability_raw: Reliability curve before calibration, with its null band.
        reliability: Reliability curve after calibration, with its null band.
    """

    accuracy_bps: int
    metrics: tuple[Metric, ...]
    reliability_raw: tuple[ReportBin, ...]
    reliability: tuple[ReportBin, ...]


def evaluate(
    p_raw: Floats,
    p: Floats,
    labels: Labels,
    *,
    base_share: float,
    log_loss_name: str = LOG_LOSS_NAME,
) -> Evaluation:
    """Score raw and calibrated probabilities beside a constant.

    Args:
        p_raw: Shape (n,), float64: before calibration.
        p: Shape (n,), float64: after calibration.
        labels: Shape (n,), bool.
        base_share: Share of up in the training rows: what a model without inputs says.
        log_loss_name: What the log loss is called; `FORMER_LOG_LOSS_NAME` where an artifact
            from before has to be built again to the byte.
    """
    base = np.full(p.shape, base_share)
    # The draws of the null band: the same for the same number of rows, run after run.
    draws = np.random.default_rng(NULL_SEED).random((NULL_RESAMPLES, len(p)))
    found = {"up_share_ppm": float(np.mean(labels))}
    for suffix, probabilities in (("", p), ("_raw", p_raw), ("_base", base)):
        bins = reliability_bins(probabilities, labels)
        found[f"brier{suffix}_ppm"] = brier_score(probabilities, labels)
        found[f"{log_loss_name}{suffix}_ppm"] = log_loss(probabilities, labels)
        found[f"{ece_name()}{suffix}_ppm"] = calibration_error(bins)
    found[f"{ece_name()}_null95_ppm"] = null_band(p, draws).ece_high
    return Evaluation(
        accuracy_bps=round(accuracy(p, labels) * BPS_ONE),
        metrics=tuple(Metric(name=name, value=_ppm(found[name])) for name in sorted(found)),
        reliability_raw=_curve(p_raw, labels, draws),
        reliability=_curve(p, labels, draws),
    )


def _curve(p: Floats, labels: Labels, draws: Floats) -> tuple[ReportBin, ...]:
    band = null_band(p, draws)
    bins = reliability_bins(p, labels)
    return tuple(
        ReportBin(
            low_ppm=_ppm(bin_.low),
            high_ppm=_ppm(bin_.high),
            count=bin_.count,
            p_mean_ppm=_ppm(bin_.p_mean),
            up_share_ppm=_ppm(bin_.up_share),
            null_low_ppm=_ppm(low),
            null_high_ppm=_ppm(high),
        )
        for bin_, low, high in zip(bins, band.up_low, band.up_high, strict=True)
    )


def _ppm(value: float) -> int:
    return round(value * PPM_ONE)
