"""Fit forests and boosted trees so that a graph of float32 takes the same branches.

Source: rows R147, R154; seed 003, section 12.9.
"""

import re
from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestClassifier

from detent.core.evaluation.scores import Floats
from detent.offline.walk_forward.candidate import Fitted, Params, Rows
from detent.offline.walk_forward.export import (
    Inputs,
    export_lightgbm,
    export_sklearn,
    floor_float32,
)

# Each tree of a forest sees so many of the rows: they overlap, and more would say the same.
ROWS_PER_TREE_MAX = 10_000
LEAVES_MAX = 31
EARLY_STOPPING_ROUNDS = 50
# One thread and one way of counting, whatever machine it runs on.
LIGHTGBM_FIXED = {
    "objective": "binary",
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}
_THRESHOLDS = re.compile(r"^threshold=(.+)$", re.MULTILINE)
_SIZES = re.compile(r"^tree_sizes=.*\n", re.MULTILINE)


def fit_forest(rows: Rows, params: Params, *, seed: int) -> Fitted:
    """Fit a forest of scikit-learn."""
    model = RandomForestClassifier(
        n_estimators=params["n_estimators"],
        max_depth=params["max_depth"],
        min_samples_leaf=params["min_samples_leaf"],
        max_samples=min(len(rows.labels), ROWS_PER_TREE_MAX),
        random_state=seed,
        n_jobs=1,
    )
    model.fit(rows.values, rows.labels.astype(np.int64))
    floor_forest(model)

    def native(values: Inputs) -> Floats:
        return np.asarray(model.predict_proba(values), dtype=np.float64)[:, 1]

    return Fitted(exported=export_sklearn(model, width=rows.values.shape[1]), native=native)


def floor_forest(model: Any) -> None:
    """Round the thresholds of a fitted forest down to float32; no row changes its branch."""
    for tree in model.estimators_:
        tree.tree_.threshold[:] = floor_float32(tree.tree_.threshold)


def fit_lightgbm(rows: Rows, params: Params, *, seed: int) -> Fitted:
    """Fit boosted trees of LightGBM."""
    booster = train_lightgbm(
        rows.values, rows.labels.astype(np.float64), lightgbm_params(params, seed=seed)
    )

    def native(values: Inputs) -> Floats:
        return np.asarray(booster.predict(values.astype(np.float64), num_threads=1))

    return Fitted(exported=export_lightgbm(booster, width=rows.values.shape[1]), native=native)


def lightgbm_params(params: Params, *, seed: int) -> dict[str, Any]:
    """Give LightGBM's own parameters."""
    depth = params["max_depth"]
    return {
        **LIGHTGBM_FIXED,
        "num_iterations": params["n_estimators"],
        "max_depth": depth,
        "num_leaves": min(2**depth, LEAVES_MAX),
        "learning_rate": params["learning_rate_x1000"] / 1_000,
        "min_data_in_leaf": params["min_child_samples"],
        "seed": seed,
    }


def train_lightgbm(values: Inputs, labels: Floats, params: dict[str, Any]) -> Any:
    """Train a booster whose thresholds are float32."""
    import lightgbm  # noqa: PLC0415  It is loaded by whoever fits one.

    data = lightgbm.Dataset(values.astype(np.float64), label=labels, free_raw_data=True)
    return floor_booster(lightgbm.train(params, data))


def floor_booster(booster: Any) -> Any:
    """Round the thresholds of a booster down to float32; no row changes its branch."""
    import lightgbm  # noqa: PLC0415

    text = _THRESHOLDS.sub(_floored, booster.model_to_string())
    # Sizes in bytes of what was rewritten; without them the text is read as it is.
    return lightgbm.Booster(model_str=_SIZES.sub("", text))


def _floored(line: re.Match[str]) -> str:
    found = floor_float32(np.array(line.group(1).split(), dtype=np.float64))
    return "threshold=" + " ".join(repr(float(value)) for value in found)


def lightgbm_space(trial: Any) -> dict[str, int]:
    """Draw parameters within the bounds of R154."""
    return {
        "n_estimators": trial.suggest_int("n_estimators", 50, 200),
        "max_depth": trial.suggest_int("max_depth", 3, 8),
        "learning_rate_x1000": trial.suggest_int("learning_rate_x1000", 10, 300),
        "min_child_samples": trial.suggest_int("min_child_samples", 10, 100),
    }


def forest_space(trial: Any) -> dict[str, int]:
    """Draw the shape of a forest."""
    return {
        "n_estimators": trial.suggest_int("n_estimators", 20, 60),
        "max_depth": trial.suggest_int("max_depth", 3, 8),
        "min_samples_leaf": trial.suggest_int("min_samples_leaf", 20, 200),
    }


def early_stopped_rounds(
    values: Inputs, labels: Floats, judged: tuple[Inputs, Floats], params: dict[str, Any]
) -> int:
    """Count the trees after which `EARLY_STOPPING_ROUNDS` more brought nothing on later rows."""
    import lightgbm  # noqa: PLC0415

    data = lightgbm.Dataset(values.astype(np.float64), label=labels)
    later = lightgbm.Dataset(judged[0].astype(np.float64), label=judged[1], reference=data)
    booster = lightgbm.train(
        params | {"metric": "binary_logloss"},
        data,
        valid_sets=[later],
        callbacks=[lightgbm.early_stopping(EARLY_STOPPING_ROUNDS, verbose=False)],
    )
    return int(booster.best_iteration)
