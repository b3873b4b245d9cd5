"""Fit the Dirichlet map q = softmax(W ln p + b), drawn towards a map of single classes.

A plain penalty on all of W would draw it towards a constant, the uniform distribution. The
penalty here is on what lies off the diagonal, and on the offsets (ODIR): drawn to the end it
leaves one weight per class, which is nearly a temperature, and the identity is among these.

Source: Kull et al. 2019, section 4; QUANT section A1.
"""

from decimal import Decimal

import numpy as np

from detent.contracts.calibration import DirichletRow, DirichletSpec
from detent.contracts.calibration_form import PARAMETER_MAX
from detent.contracts.errors import ArtifactInvalid
from detent.contracts.reasons import Reason
from detent.core.evaluation.class_scores import class_log_loss
from detent.core.signals.binary_maps import Floats
from detent.core.signals.calibration_temperature import Classes
from detent.core.signals.class_maps import SHARE_MIN
from detent.core.signals.forward_folds import forward_folds, scored_rows

# What is tried for both penalties, on forward folds of the rows of the fit itself.
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
INNER_FOLD_COUNT = 3
# The logs of shares that sum to 1 are nearly dependent, so the last digits of the weights are
# noise of the arithmetic: they are rounded away before anything is hashed.
WEIGHT_STEP = Decimal("1E-9")
STEPS_MAX = 200
HALVINGS_MAX = 40
DECREASE_MIN = 1e-14
RIDGE = 1e-12
SUFFICIENT_DECREASE = 1e-4


def fit_dirichlet(shares: Floats, classes: Classes) -> DirichletSpec:
    """Fit the map with the penalty that does best on later rows of these.

    Args:
        shares: Shape (n, k), float64, each row a distribution, of rows that training did not
            see, in the order of time.
        classes: Shape (n,), int64, the class that came true, in [0, k).

    Raises:
        ArtifactInvalid: The rows cannot calibrate anything: too few, one class only, or no
            finite optimum.
    """
    losses = {penalty: _held_out_loss(shares, classes, penalty) for penalty in PENALTIES}
    # Of equals the strongest, which is the simplest map.
    best = min(reversed(PENALTIES), key=lambda penalty: losses[penalty])
    weights = fit_dirichlet_weights(shares, classes, odir_penalty(shares.shape[1], best))
    if not np.abs(weights).max() < float(PARAMETER_MAX):
        raise _failed("weights without bound", f"weights below {PARAMETER_MAX}")
    rows = [[Decimal(weight).quantize(WEIGHT_STEP) for weight in row] for row in weights.tolist()]
    return DirichletSpec(
        rows=tuple(DirichletRow(weights=tuple(row[:-1]), offset=row[-1]) for row in rows)
    )


def odir_penalty(class_count: int, penalty: float) -> Floats:
    """Give the weight of each squared parameter: off the diagonal, and of the offsets.

    Returns:
        Shape (k, k + 1): over k (k - 1) off the diagonal, 0 on it, over k in the last column.
    """
    weights = np.full((class_count, class_count + 1), penalty / (class_count * (class_count - 1)))
    np.fill_diagonal(weights, 0.0)
    weights[:, -1] = penalty / class_count
    return weights


def fit_dirichlet_weights(shares: Floats, classes: Classes, penalty: Floats) -> Floats:
    """Minimise the mean log loss plus the weighted squares of the parameters, by Newton.

    Args:
        shares: Shape (n, k), float64.
        classes: Shape (n,), int64.
        penalty: Shape (k, k + 1), float64, at least 0: the weight of each square.

    Returns:
        Shape (k, k + 1): W and, as the last column, b.

    Raises:
        ArtifactInvalid: No rows, one class only, or no finite optimum.
    """
    if len(classes) == 0 or len(shares) != len(classes) or classes.min() == classes.max():
        raise _failed(f"{len(classes)} rows", "rows of several classes")
    inputs, happened = _inputs(shares), np.zeros_like(shares)
    happened[np.arange(len(classes)), classes] = 1.0
    weights = np.eye(*penalty.shape)
    loss = _loss(inputs, happened, penalty, weights)
    for _ in range(STEPS_MAX):
        step, decrease = _newton_step(inputs, happened, penalty, weights)
        if decrease <= DECREASE_MIN * loss:
            return weights + step
        share = 1.0
        for _ in range(HALVINGS_MAX):
            trial = _loss(inputs, happened, penalty, weights + share * step)
            if trial <= loss - SUFFICIENT_DECREASE * share * decrease:
                break
            share /= 2
        weights, loss = weights + share * step, trial
    raise _failed(f"no optimum in {STEPS_MAX} steps", "convergence")


def dirichlet_shares(shares: Floats, weights: Floats) -> Floats:
    """Map distributions by parameters as `fit_dirichlet_weights` gives them."""
    mapped: Floats = np.exp(_log_shares(_inputs(shares), weights))
    return mapped


def _held_out_loss(shares: Floats, classes: Classes, penalty: float) -> float:
    """Give the log loss on later rows; infinite where a fold has no fit."""
    folds = forward_folds(len(classes), fold_count=INNER_FOLD_COUNT)
    weights = odir_penalty(shares.shape[1], penalty)
    try:
        held_out = [
            dirichlet_shares(
                shares[block], fit_dirichlet_weights(shares[:end], classes[:end], weights)
            )
            for end, block in folds
        ]
    except ArtifactInvalid:
        return float("inf")
    return class_log_loss(np.concatenate(held_out), classes[scored_rows(folds)])


def _inputs(shares: Floats) -> Floats:
    logs = np.log(np.maximum(shares, SHARE_MIN))
    return np.concatenate([logs, np.ones((len(logs), 1))], axis=1)


def _log_shares(inputs: Floats, weights: Floats) -> Floats:
    scores = np.einsum("ni,ki->nk", inputs, weights)
    scores -= scores.max(axis=1, keepdims=True)
    logs: Floats = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return logs


def _loss(inputs: Floats, happened: Floats, penalty: Floats, weights: Floats) -> float:
    logs = _log_shares(inputs, weights)
    return float(-(happened * logs).sum() / len(inputs) + (penalty * weights**2).sum())


def _newton_step(
    inputs: Floats, happened: Floats, penalty: Floats, weights: Floats
) -> tuple[Floats, float]:
    """Give the step, and twice the decrease of the loss that it promises."""
    class_count, width = weights.shape
    q = np.exp(_log_shares(inputs, weights))
    excess = (q - happened) / len(inputs)
    # Sums that add up alike on any number of threads: the optimum is where they are 0. Matrix
    # products may differ in their last bits, and only lead there.
    gradient = np.einsum("nk,ni->ki", excess, inputs) + 2.0 * penalty * weights
    hessian = np.zeros((class_count, width, class_count, width))
    for i in range(class_count):
        for j in range(i, class_count):
            curvature = q[:, i] * ((i == j) - q[:, j]) / len(inputs)
            block = inputs.T @ (curvature[:, None] * inputs)
            hessian[i, :, j, :] = hessian[j, :, i, :] = block
    square = hessian.reshape(class_count * width, -1)
    square += np.diag(2.0 * penalty.ravel() + RIDGE)
    step: Floats = -np.linalg.solve(square, gradient.ravel()).reshape(weights.shape)
    return step, float(-(gradient * step).sum())


def _failed(found: str, expected: str) -> ArtifactInvalid:
    return ArtifactInvalid(
        f"calibration: found {found}, expected {expected}",
        gate_reason=Reason.CALIBRATION_FAILED,
        found=found,
        expected=expected,
    )
