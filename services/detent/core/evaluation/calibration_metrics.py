"""Give every measure of a calibration at once, each by the name that states its definition.

Scores are proper and lower is better; errors are distances from the diagonal and 0 at best; of
`mcb`, `dsc` and `unc` a score is the first less the second plus the third.

Source: QUANT A2 and C5; decisions D17 and D21.
"""

from collections.abc import Mapping

import numpy as np

from detent.contracts.errors import ArtifactInvalid
from detent.core.evaluation.binning import Binning
from detent.core.evaluation.calibration_errors import (
    MCE_COUNT_MIN,
    ErrorOf,
    average_error,
    classwise_bins,
    classwise_error,
    debiased_squared_error,
    error_name,
    maximum_error,
    top_label,
)
from detent.core.evaluation.calibration_line import calibration_line
from detent.core.evaluation.class_scores import (
    Classes,
    brier_class_mean,
    brier_half,
    brier_sum,
    class_log_loss,
    top_label_accuracy,
)
from detent.core.evaluation.decomposition import corp_parts
from detent.core.evaluation.reliability import (
    BIN_COUNT,
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
from detent.core.evaluation.smooth_error import SMOOTH_ERROR_NAME, smooth_error

SCORES = {"brier": brier_score, LOG_LOSS_NAME: log_loss}


def binary_metrics(p: Floats, labels: Labels, draws: Floats) -> Mapping[str, float]:
    """Measure probabilities of one class.

    Args:
        p: Shape (n,), float64, each in [0, 1], n at least 1.
        labels: Shape (n,), bool.
        draws: Shape (resamples, n), float64, uniform on [0, 1), for the null bands.

    Returns:
        Each measure by its name. What rows do not define is absent: a maximum over no bin of
        enough rows, and a slope through one class only or through rows that are separated.

    Raises:
        InvalidField: There are no rows or no draws, or a value is no probability.
    """
    found = {"accuracy": accuracy(p, labels), SMOOTH_ERROR_NAME: smooth_error(p, labels)}
    for name, score in SCORES.items():
        parts = corp_parts(p, labels, score=score)
        found[name] = parts.score
        found[f"{name}_mcb"] = parts.miscalibration
        found[f"{name}_dsc"] = parts.discrimination
        found[f"{name}_unc"] = parts.uncertainty
    for binning in (Binning.WIDTH, Binning.MASS):
        bins = reliability_bins(p, labels, binning=binning)
        found[ece_name(binning=binning)] = calibration_error(bins)
        band = null_band(p, draws, binning=binning)
        found[f"{ece_name(binning=binning)}_null95"] = band.ece_high
        found[error_name("ace", ErrorOf.POSITIVE, binning=binning)] = average_error(bins)
        if max(bin_.count for bin_ in bins) >= MCE_COUNT_MIN:
            name = error_name(f"mce_min{MCE_COUNT_MIN}", ErrorOf.POSITIVE, binning=binning)
            found[name] = maximum_error(bins)
    name = error_name("l2_debiased", ErrorOf.POSITIVE, binning=Binning.ROWS)
    found[name] = debiased_squared_error(reliability_bins(p, labels, binning=Binning.ROWS))
    return found | _line(p, labels)


def class_metrics(shares: Floats, classes: Classes) -> Mapping[str, float]:
    """Measure distributions over several classes.

    Args:
        shares: Shape (n, k), float64, each row a distribution, n at least 1.
        classes: Shape (n,), int64, the class that came true, in [0, k).

    Raises:
        InvalidField: There are no rows, or a row is no distribution.
    """
    found = {
        "accuracy_top_label": top_label_accuracy(shares, classes),
        "brier_sum": brier_sum(shares, classes),
        "brier_half": brier_half(shares, classes),
        "brier_class_mean": brier_class_mean(shares, classes),
        LOG_LOSS_NAME: class_log_loss(shares, classes),
    }
    said, came_true = top_label(shares, classes)
    for binning in (Binning.WIDTH, Binning.MASS):
        bins = reliability_bins(said, came_true, bin_count=BIN_COUNT, binning=binning)
        of_each = classwise_bins(shares, classes, binning=binning)
        found[error_name("ece", ErrorOf.TOP_LABEL, binning=binning)] = calibration_error(bins)
        found[error_name("ece", ErrorOf.CLASSWISE, binning=binning)] = classwise_error(of_each)
    return found


def post_hoc_improvement(p_raw: Floats, p: Floats, labels: Labels) -> Mapping[str, float]:
    """Give what calibration wins in each proper score (PHI): that before less that after.

    Args:
        p_raw: Shape (n,), float64, each in [0, 1]: before calibration.
        p: Shape (n,), float64, each in [0, 1]: after it, on the same rows.
        labels: Shape (n,), bool, of rows that the calibrator has not seen.

    Returns:
        By `phi_` and the score's name; below 0 the calibrator does harm.

    Raises:
        InvalidField: There are no rows, or a value is no probability.
    """
    return {
        f"phi_{name}": score(p_raw, labels) - score(p, labels) for name, score in SCORES.items()
    }


def _line(p: Floats, labels: Labels) -> dict[str, float]:
    if not np.ptp(p) > 0.0:
        return {}
    try:
        line = calibration_line(p, labels)
    except ArtifactInvalid:
        return {}
    return {
        "calibration_slope": line.slope,
        "calibration_slope_error": line.slope_error,
        "calibration_intercept": line.intercept,
        "calibration_intercept_error": line.intercept_error,
    }
