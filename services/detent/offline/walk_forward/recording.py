"""Turn what a run gave into its record: scores, bounds of folds, weights of features, rows."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version as library_version

import numpy as np

from detent.contracts.units import BPS_ONE, PPM_ONE
from detent.core.evaluation.scores import brier_score, log_loss
from detent.core.signals.binary_maps import binary_map
from detent.core.signals.calibration import Calibrator
from detent.offline.datasets.rows import PROXY, Rows
from detent.offline.walk_forward.fold_fit import FoldFit, direction_session, up
from detent.offline.walk_forward.folds import Fold, bounds_of
from detent.offline.walk_forward.record import (
    CandidateRecord,
    FeatureWeight,
    FoldRecord,
    FoldScore,
    predictions_bytes,
)

LIBRARIES = ("lightgbm", "numpy", "onnx", "onnxmltools", "optuna", "scikit-learn", "skl2onnx")
# Enough test rows to tell which features matter; more would only take longer.
WEIGHT_ROWS_MAX = 5_000
WEIGHTS_MAX = 64
PARITY_UNIT = 10**9


def fold_records(rows: Rows, folds: Sequence[Fold]) -> tuple[FoldRecord, ...]:
    """Give the bounds of the folds."""
    records = []
    for fold in folds:
        train, calibration, test = (
            bounds_of(rows.ts_ms, part) for part in (fold.train, fold.calibration, fold.test)
        )
        records.append(
            FoldRecord(
                number=fold.number,
                train_start_ts_ms=train[0],
                train_end_ts_ms=train[1],
                train_settled_ts_ms=bounds_of(rows.label_ts_ms, fold.train)[1],
                train_rows=len(fold.train),
                calibration_start_ts_ms=calibration[0],
                calibration_end_ts_ms=calibration[1],
                calibration_settled_ts_ms=bounds_of(rows.label_ts_ms, fold.calibration)[1],
                calibration_rows=len(fold.calibration),
                test_start_ts_ms=test[0],
                test_end_ts_ms=test[1],
                test_rows=len(fold.test),
            )
        )
    return tuple(records)


def candidate_records(
    rows: Rows,
    folds: Sequence[Fold],
    fits: Mapping[str, Sequence[FoldFit]],
    params: Mapping[str, Mapping[str, int]],
) -> tuple[CandidateRecord, ...]:
    """Score every candidate on the test rows of all folds."""
    records = []
    for name, found in fits.items():
        refusals = [fit for fit in found if fit.refusal is not None]
        labels = [rows.labels[fold.test] for fold in folds]
        said = np.concatenate([fit.p for fit in found])
        refusal = f"fold {refusals[0].fold_number}: {refusals[0].refusal}" if refusals else None
        records.append(
            CandidateRecord(
                architecture_id=name,
                params=dict(params[name]),
                refusal=refusal,
                log_loss_ppm=0 if refusals else _ppm(log_loss(said, np.concatenate(labels))),
                brier_ppm=0 if refusals else _ppm(brier_score(said, np.concatenate(labels))),
                graph_bytes=max(len(fit.graph) for fit in found),
                parity_e9=round(max(fit.parity for fit in found) * PARITY_UNIT),
                folds=tuple(
                    FoldScore(
                        number=fit.fold_number,
                        calibration_method=str(fit.calibration.method),
                        log_loss_ppm=_ppm(log_loss(fit.p, of_fold)),
                        brier_ppm=_ppm(brier_score(fit.p, of_fold)),
                    )
                    for fit, of_fold in zip(found, labels, strict=True)
                    if fit.calibration is not None and not refusals
                ),
            )
        )
    return tuple(records)


def baseline_losses(rows: Rows, folds: Sequence[Fold]) -> tuple[int, int]:
    """Give the log loss, in ppm, of the proxy and of a constant on the test rows."""
    tested = np.concatenate([fold.test for fold in folds])
    shares = [np.full(len(fold.test), float(np.mean(rows.labels[fold.train]))) for fold in folds]
    proxy = np.asarray(rows.targets[PROXY], dtype=np.float64)[tested] / BPS_ONE
    labels = rows.labels[tested]
    return _ppm(log_loss(proxy, labels)), _ppm(log_loss(np.concatenate(shares), labels))


def feature_weights(
    rows: Rows, fold: Fold, fit: FoldFit, names: Sequence[str], *, seed: int
) -> tuple[FeatureWeight, ...]:
    """Say by how much the log loss of test rows rises when a feature is shuffled among them.

    Source: Breiman 2001; row R153.
    """
    assert fit.calibration is not None
    chosen = fold.test[
        np.linspace(0, len(fold.test) - 1, min(len(fold.test), WEIGHT_ROWS_MAX)).astype(np.int64)
    ]
    values, labels = rows.values[chosen], rows.labels[chosen]
    session = direction_session(fit.graph, width=values.shape[1], input_shape=fit.input_shape)
    calibrated = binary_map(fit.calibration)

    def loss(given: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> float:
        return log_loss(calibrated.many(up(session, given)), labels)

    before, draws = loss(values), np.random.default_rng(seed)
    order = draws.permutation(len(values))
    weights = []
    for index, name in enumerate(names[:WEIGHTS_MAX]):
        shuffled = values.copy()
        shuffled[:, index] = values[order, index]
        weights.append(FeatureWeight(name=name, log_loss_rise_ppm=_ppm(loss(shuffled) - before)))
    return tuple(sorted(weights, key=lambda one: (-one.log_loss_rise_ppm, one.name)))


def predictions_of(rows: Rows, folds: Sequence[Fold], fits: Sequence[FoldFit]) -> bytes:
    """Give the content of `predictions.parquet`: what was said of rows that nothing had seen."""
    tested = np.concatenate([fold.test for fold in folds])
    return predictions_bytes(
        {
            "ts_ms": rows.ts_ms[tested],
            "label_ts_ms": rows.label_ts_ms[tested],
            "symbol": rows.symbols[tested],
            "fold": np.concatenate(
                [np.full(len(fold.test), fold.number, np.int32) for fold in folds]
            ),
            "p_raw": np.concatenate([fit.p_raw for fit in fits]),
            "p_hat_bps": np.concatenate([served_bps(fit) for fit in fits]),
            "proxy_p_hat_bps": rows.targets[PROXY][tested],
            "label": rows.labels[tested],
        }
    )


def served_bps(fit: FoldFit) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    """Give the integers that would be served: each row alone, as in a bar."""
    assert fit.calibration is not None
    calibrator = Calibrator.of(fit.calibration)
    found = [round(calibrator.probability(float(p)) * BPS_ONE) for p in fit.p_raw]
    return np.array(found, dtype=np.int32)


def library_versions() -> tuple[str, ...]:
    """Name what fitted and exported."""
    return tuple(f"{name}=={library_version(name)}" for name in LIBRARIES)


def _ppm(value: float) -> int:
    return round(value * PPM_ONE)
