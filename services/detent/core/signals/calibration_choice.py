"""Choose a calibration by how its methods do on rows that they were not fitted on.

The rows are in the order of time. They are cut into blocks; each block but the first is
scored by fits on the blocks before it. The least mean log loss over all scored rows wins, in
parts per million, so that the choice follows from what is recorded of it; of two that score
alike the simpler one, which comes first among the methods, and so the identity unless another
is better. The winner is fitted again, on all rows.

Source: decision D17; QUANT sections A1 and C5; ADR 0041.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from detent.contracts.calibration import (
    Calibration,
    CalibrationMethod,
    CalibrationSpec,
    HeldOutChoice,
    MethodScore,
    TemperatureSpec,
)
from detent.contracts.errors import ArtifactInvalid
from detent.contracts.units import PPM_ONE
from detent.core.evaluation.class_scores import brier_sum, class_log_loss
from detent.core.evaluation.scores import brier_score, log_loss
from detent.core.signals.binary_maps import Floats, binary_map, clipped
from detent.core.signals.calibration import Labels, fit_calibration
from detent.core.signals.calibration_beta import fit_beta
from detent.core.signals.calibration_dirichlet import fit_dirichlet
from detent.core.signals.calibration_tables import fit_isotonic, fit_venn_abers
from detent.core.signals.calibration_temperature import Classes, fit_temperature
from detent.core.signals.class_maps import class_map
from detent.core.signals.forward_folds import Fold, forward_folds, no_choice, scored_rows

FOLD_COUNT = 5

# (what a model said, what came true): of one probability, or of several classes.
Fit = Callable[[Floats, NDArray[Any]], Calibration]


class CalibrationChoice(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the calibration that was chosen, and how every method did.

    Attributes:
        spec: The winner, fitted on all rows; it carries the scores with it.
        scores: The methods that could be fitted everywhere, in their order.
        refusals: Those that could not, each with the reason.
    """

    spec: Calibration
    scores: tuple[MethodScore, ...]
    refusals: tuple[tuple[CalibrationMethod, str], ...]


def _fit_identity(_said: Floats, _came_true: NDArray[Any]) -> CalibrationSpec:
    return CalibrationSpec(method=CalibrationMethod.IDENTITY, a=None, b=None)


def fit_binary_temperature(p_hat_raw: Floats, labels: Labels) -> TemperatureSpec:
    """Fit a temperature of one probability: over the two classes (1 - p, p).

    Raises:
        ArtifactInvalid: As for `fit_temperature`.
    """
    p = clipped(p_hat_raw)
    return fit_temperature(np.stack([1.0 - p, p], axis=1), labels.astype(np.int64))


# In the order of a choice: of two that score alike, the first is taken.
BINARY_FITS: Mapping[CalibrationMethod, Fit] = {
    CalibrationMethod.IDENTITY: _fit_identity,
    CalibrationMethod.TEMPERATURE: fit_binary_temperature,
    CalibrationMethod.PLATT: fit_calibration,
    CalibrationMethod.BETA: fit_beta,
    CalibrationMethod.ISOTONIC: fit_isotonic,
    CalibrationMethod.VENN_ABERS: fit_venn_abers,
}
CLASS_FITS: Mapping[CalibrationMethod, Fit] = {
    CalibrationMethod.IDENTITY: _fit_identity,
    CalibrationMethod.TEMPERATURE: fit_temperature,
    CalibrationMethod.DIRICHLET: fit_dirichlet,
}


def choose_calibration(
    p_hat_raw: Floats,
    labels: Labels,
    *,
    methods: Sequence[CalibrationMethod] = tuple(BINARY_FITS),
    fold_count: int = FOLD_COUNT,
    purge_rows: int = 0,
) -> CalibrationChoice:
    """Choose and fit the calibration of one probability.

    Args:
        p_hat_raw: Shape (n,), float64, each in [0, 1], of rows that training did not see, in
            the order of time.
        labels: Shape (n,), bool, up or not.
        methods: Which to try; each one of `BINARY_FITS`.
        fold_count: Blocks that are scored.
        purge_rows: Rows left out before each scored block: those whose labels reach into it.

    Returns:
        The winner, and the scores of all.

    Raises:
        ArtifactInvalid: The rows cannot calibrate anything: too few, one class or one score
            only, a score that points the wrong way, or no method that can be fitted on every
            fold; or the identity has nothing to win against.
    """
    # Whatever the methods: no map makes a model of one that is right when it is inverted.
    fit_calibration(p_hat_raw, labels)
    folds = forward_folds(len(labels), fold_count=fold_count, purge_rows=purge_rows)
    fits = {method: fit for method, fit in BINARY_FITS.items() if method in methods}
    return _choose(fits, p_hat_raw, labels, folds, score=_binary_score)


def choose_class_calibration(
    shares: Floats,
    classes: Classes,
    *,
    methods: Sequence[CalibrationMethod] = tuple(CLASS_FITS),
    fold_count: int = FOLD_COUNT,
    purge_rows: int = 0,
) -> CalibrationChoice:
    """Choose and fit the calibration of a head of several classes.

    Args:
        shares: Shape (n, k), float64, each row a distribution, of rows that training did not
            see, in the order of time.
        classes: Shape (n,), int64, the class that came true, in [0, k).
        methods: Which to try; each one of `CLASS_FITS`.
        fold_count: Blocks that are scored.
        purge_rows: Rows left out before each scored block: those whose labels reach into it.

    Returns:
        The winner, and the scores of all.

    Raises:
        ArtifactInvalid: As for `choose_calibration`; a model points the wrong way where no
            temperature in range fits it.
    """
    fit_temperature(shares, classes)
    folds = forward_folds(len(classes), fold_count=fold_count, purge_rows=purge_rows)
    fits = {method: fit for method, fit in CLASS_FITS.items() if method in methods}
    return _choose(fits, shares, classes, folds, score=_class_score)


def _choose(
    fits: Mapping[CalibrationMethod, Fit],
    said: Floats,
    came_true: NDArray[Any],
    folds: list[Fold],
    *,
    score: Callable[[CalibrationMethod, Floats, NDArray[Any]], MethodScore],
) -> CalibrationChoice:
    scores, refusals, fitted = [], [], {}
    for method, fit in fits.items():
        try:
            fitted[method] = fit(said, came_true)
            held_out = [
                _mapped(fit(said[:end], came_true[:end]), said[block]) for end, block in folds
            ]
        except ArtifactInvalid as error:
            refusals.append((method, str(error)))
            continue
        scores.append(score(method, np.concatenate(held_out), came_true[scored_rows(folds)]))
    if not scores:
        raise no_choice("no method that can be fitted on every fold")
    rows = scored_rows(folds)
    choice = HeldOutChoice(
        fold_count=len(folds), row_count=rows.stop - rows.start, tried=tuple(scores)
    )
    spec = structs.replace(fitted[choice.chosen], choice=choice)
    if not spec.may_serve:
        raise no_choice("the identity alone")
    return CalibrationChoice(spec=spec, scores=choice.tried, refusals=tuple(refusals))


def _mapped(spec: Calibration, said: Floats) -> Floats:
    """Map rows as they will be served; the identity, which has won nothing yet, as well."""
    if spec.method is CalibrationMethod.IDENTITY:
        return said
    if said.ndim == 1:
        return binary_map(spec).many(said)
    classes = class_map(spec, class_count=said.shape[1])
    return np.array([classes.shares(row) for row in said.tolist()])


def _binary_score(method: CalibrationMethod, p: Floats, labels: Labels) -> MethodScore:
    return MethodScore(
        method=method,
        log_loss_ppm=_ppm(log_loss(p, labels)),
        brier_ppm=_ppm(brier_score(p, labels)),
    )


def _class_score(method: CalibrationMethod, shares: Floats, classes: Classes) -> MethodScore:
    return MethodScore(
        method=method,
        log_loss_ppm=_ppm(class_log_loss(shares, classes)),
        brier_ppm=_ppm(brier_sum(shares, classes)),
    )


def _ppm(value: float) -> int:
    return round(value * PPM_ONE)
