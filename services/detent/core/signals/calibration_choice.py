"""Choose a calibration by how its methods do on rows that they were not fitted on.

The rows are in the order of time. They are cut into blocks; each block but the first is
scored by fits on the blocks before it. The least mean log loss over all scored rows wins, in
parts per million, so that the choice follows from what is recorded of it; of two that score
alike the simpler one, which comes first among the methods, and so the identity unless another
is better. The winner is fitted again, on all rows.

Source: decision D17; QUANT sections A1 and C5; ADR 0041.
"""

from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np
from msgspec import structs

from detent.contracts.calibration import (
    Calibration,
    CalibrationMethod,
    CalibrationSpec,
    HeldOutChoice,
    MethodScore,
    TemperatureSpec,
)
from detent.contracts.errors import ArtifactInvalid
from detent.contracts.reasons import Reason
from detent.contracts.units import PPM_ONE
from detent.core.evaluation.scores import brier_score, log_loss
from detent.core.signals.binary_maps import Floats, binary_map, clipped
from detent.core.signals.calibration import Labels, fit_calibration
from detent.core.signals.calibration_temperature import fit_temperature

FOLD_COUNT = 5

Fit = Callable[[Floats, Labels], Calibration]


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


def _identity(_p_hat_raw: Floats, _labels: Labels) -> CalibrationSpec:
    return CalibrationSpec(method=CalibrationMethod.IDENTITY, a=None, b=None)


def _temperature(p_hat_raw: Floats, labels: Labels) -> TemperatureSpec:
    p = clipped(p_hat_raw)
    return fit_temperature(np.stack([1.0 - p, p], axis=1), labels.astype(np.int64))


BINARY_FITS: Mapping[CalibrationMethod, Fit] = {
    CalibrationMethod.IDENTITY: _identity,
    CalibrationMethod.TEMPERATURE: _temperature,
    CalibrationMethod.PLATT: fit_calibration,
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
        methods: Which to try; each a method of one probability.
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
    scores, refusals, fitted = [], [], {}
    for method in sorted(set(methods), key=list(CalibrationMethod).index):
        fit = BINARY_FITS[method]
        try:
            fitted[method] = fit(p_hat_raw, labels)
            held_out = [
                binary_map(fit(p_hat_raw[:end], labels[:end])).many(p_hat_raw[block])
                for end, block in folds
            ]
        except ArtifactInvalid as error:
            refusals.append((method, str(error)))
            continue
        scores.append(_score(method, np.concatenate(held_out), labels[folds[0][1].start :]))
    spec = chosen_spec(fitted, scores, folds)
    return CalibrationChoice(spec=spec, scores=tuple(scores), refusals=tuple(refusals))


def forward_folds(
    row_count: int, *, fold_count: int, purge_rows: int = 0
) -> list[tuple[int, slice]]:
    """Cut rows into blocks of one size, each but the first to be scored.

    Returns:
        Per scored block how many of the first rows may be fitted on, and its own rows.

    Raises:
        ArtifactInvalid: A fold has nothing to be fitted on, or nothing to score.
    """
    edges = [block * row_count // (fold_count + 1) for block in range(fold_count + 2)]
    if fold_count < 1 or edges[1] - purge_rows < 1 or purge_rows < 0:
        raise too_few(f"{row_count} rows for {fold_count} folds, {purge_rows} rows apart")
    return [
        (edges[block] - purge_rows, slice(edges[block], edges[block + 1]))
        for block in range(1, fold_count + 1)
    ]


def chosen_spec(
    fitted: Mapping[CalibrationMethod, Calibration],
    scores: Sequence[MethodScore],
    folds: Sequence[tuple[int, slice]],
) -> Calibration:
    """Give the winner with the evidence of its choice.

    Raises:
        ArtifactInvalid: There is no winner, or the identity has nothing to win against.
    """
    if not scores:
        raise too_few("no method that can be fitted on every fold")
    choice = HeldOutChoice(
        fold_count=len(folds),
        row_count=folds[-1][1].stop - folds[0][1].start,
        tried=tuple(scores),
    )
    spec = structs.replace(fitted[choice.chosen], choice=choice)
    if not spec.may_serve:
        raise too_few("the identity alone")
    return spec


def too_few(found: str) -> ArtifactInvalid:
    """Say that rows do not suffice for a choice."""
    return ArtifactInvalid(
        f"calibration: found {found}, expected a choice on held-out rows",
        gate_reason=Reason.CALIBRATION_FAILED,
        found=found,
        expected="a choice on held-out rows",
    )


def ppm(value: float) -> int:
    """Round a score to parts per million."""
    return round(value * PPM_ONE)


def _score(method: CalibrationMethod, p: Floats, labels: Labels) -> MethodScore:
    return MethodScore(
        method=method,
        log_loss_ppm=ppm(log_loss(p, labels)),
        brier_ppm=ppm(brier_score(p, labels)),
    )
