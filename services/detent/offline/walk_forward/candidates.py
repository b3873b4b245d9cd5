"""Name the models that are tried, the simplest first, and fit each of them.

A fit depends on rows, parameters and seed alone: one thread, because the order in which
threads add up shows in the last bit.

Source: seed 003, milestone M8-03b-1; seed 002, phase 2 A; rows R147 to R149, R154, R163.
"""

import functools
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from detent.core.evaluation.scores import Floats
from detent.offline.walk_forward.candidate import Candidate, Fitted, Params, Rows
from detent.offline.walk_forward.export import Inputs, export_line, export_sklearn
from detent.offline.walk_forward.tcn import fit_tcn
from detent.offline.walk_forward.trees import (
    fit_forest,
    fit_lightgbm,
    forest_space,
    lightgbm_space,
)

# The straight line is no probability near its ends.
LINE_EDGE = 0.01
HIDDEN_UNITS = 16


def scaled(model: Any) -> Pipeline:
    """Put the scaler in front, so that it is part of the graph."""
    return Pipeline([("scale", StandardScaler()), ("classify", model)])


def fit_logistic(rows: Rows, params: Params, *, seed: int) -> Fitted:
    """Fit the baseline: a scaler and a logistic regression, in one graph."""
    del params
    return fit_classifier(
        scaled(LogisticRegression(max_iter=1_000, tol=1e-8, random_state=seed)), rows
    )


def fit_perceptron(rows: Rows, params: Params, *, seed: int) -> Fitted:
    """Fit one small hidden layer."""
    model = MLPClassifier(
        (params["hidden_units"],),
        alpha=1e-3,
        batch_size=256,
        max_iter=params["epochs"],
        random_state=seed,
    )
    return fit_classifier(scaled(model), rows)


def fit_line(rows: Rows, params: Params, *, seed: int) -> Fitted:
    """Fit a straight line to the outcomes, by least squares with a small penalty."""
    del seed
    values = rows.values.astype(np.float64)
    with threadpool_limits(limits=1):
        scaler = StandardScaler().fit(values)
        model = Ridge(alpha=float(params["alpha"])).fit(
            scaler.transform(values), rows.labels.astype(np.float64)
        )
    weights = np.asarray(model.coef_ / scaler.scale_, dtype=np.float64)
    intercept = float(model.intercept_ - scaler.mean_ @ weights)

    def native(given: Inputs) -> Floats:
        line = given.astype(np.float64) @ weights + intercept
        return np.clip(line, LINE_EDGE, 1.0 - LINE_EDGE)

    return Fitted(exported=export_line(weights, intercept, edge=LINE_EDGE), native=native)


def fit_classifier(model: Any, rows: Rows) -> Fitted:
    """Fit and export a classifier of scikit-learn that takes float64 rows."""
    values = rows.values.astype(np.float64)
    with threadpool_limits(limits=1), warnings.catch_warnings():
        # A fixed number of epochs is a choice and not a failure.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(values, rows.labels.astype(np.int64))
    return Fitted(
        exported=export_sklearn(model, width=values.shape[1]),
        native=functools.partial(_up, model),
    )


def _up(model: Any, values: Inputs) -> NDArray[np.float64]:
    with threadpool_limits(limits=1):
        return np.asarray(model.predict_proba(values.astype(np.float64)), dtype=np.float64)[:, 1]


LOGISTIC = Candidate(architecture_id="logistic", framework="scikit-learn", fit=fit_logistic)
# The simplest first; `core.evaluation.simplicity` orders them by these names.
CANDIDATES = (
    LOGISTIC,
    Candidate(
        architecture_id="linear_regression",
        framework="scikit-learn",
        fit=fit_line,
        params={"alpha": 1},
    ),
    Candidate(
        architecture_id="random_forest",
        framework="scikit-learn",
        fit=fit_forest,
        params={"n_estimators": 50, "max_depth": 5, "min_samples_leaf": 100},
        space=forest_space,
    ),
    Candidate(
        architecture_id="gbt_lightgbm",
        framework="lightgbm",
        fit=fit_lightgbm,
        params={
            "n_estimators": 100,
            "max_depth": 3,
            "learning_rate_x1000": 30,
            "min_child_samples": 100,
        },
        space=lightgbm_space,
    ),
    Candidate(
        architecture_id="mlp",
        framework="scikit-learn",
        fit=fit_perceptron,
        params={"hidden_units": HIDDEN_UNITS, "epochs": 15},
    ),
    Candidate(
        architecture_id="tcn",
        framework="torch",
        fit=fit_tcn,
        params={"channels": 16, "epochs": 6},
        needs_window=True,
    ),
)
BY_ID: Mapping[str, Candidate] = {one.architecture_id: one for one in CANDIDATES}
# What is tried unless somebody says otherwise; the window needs another data set, and torch.
DEFAULT_IDS = tuple(one.architecture_id for one in CANDIDATES if not one.needs_window)
