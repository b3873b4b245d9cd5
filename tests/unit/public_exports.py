"""Trains tiny models and has the public converters write them, with nothing done afterwards."""

from __future__ import annotations

import functools
import io
import warnings
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

Floats = NDArray[np.float32]
WIDTH = 6
WINDOW = (64, 12)
TRAIN_ROWS = 500
TEST_ROWS = 200


class Export(msgspec.Struct, frozen=True, kw_only=True):
    """Holds a graph, rows for it, and what the library itself answers to them.

    Attributes:
        graph: Content of `model.onnx`.
        rows: Shape (`TEST_ROWS`, width), float32.
        native: Shape (`TEST_ROWS`, classes), as the library gives it.
        input_shape: Shape of a row, where it is a window.
    """

    graph: bytes
    rows: Floats
    native: NDArray[Any]
    input_shape: tuple[int, ...] = ()


def samples(classes: int) -> tuple[Floats, NDArray[np.int64]]:
    """Give rows with something to learn in them: a sum, a product and noise."""
    chance = np.random.default_rng(11)
    rows = chance.normal(0.0, 1.5, (TRAIN_ROWS + TEST_ROWS, WIDTH)).astype(np.float32)
    score = rows[:, 0] + 0.8 * rows[:, 1] * rows[:, 2] + chance.normal(0.0, 0.5, len(rows))
    edges = [0.0] if classes == 2 else [-0.8, 0.8]
    return rows, np.digitize(score, edges).astype(np.int64)


def scikit_learn_model(name: str, classes: int) -> Any:
    """Fit a model of scikit-learn on the first rows."""
    from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = {
        "logistic": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
        "forest": lambda: RandomForestClassifier(12, max_depth=5, random_state=0),
        "boosting": lambda: GradientBoostingClassifier(n_estimators=12, random_state=0),
        "perceptron": lambda: make_pipeline(
            StandardScaler(), MLPClassifier((16,), alpha=1.0, max_iter=80, random_state=0)
        ),
    }[name]()
    rows, labels = samples(classes)
    with warnings.catch_warnings():
        # It need not have converged to be exported.
        warnings.simplefilter("ignore")
        return model.fit(rows[:TRAIN_ROWS], labels[:TRAIN_ROWS])


@functools.cache
def scikit_learn(name: str, classes: int = 2) -> Export:
    """Export a model of scikit-learn with skl2onnx."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    model = scikit_learn_model(name, classes)
    with warnings.catch_warnings():
        # The converter's own, of the libraries that it uses.
        warnings.simplefilter("ignore")
        graph = convert_sklearn(
            model,
            name="exported",
            initial_types=[("input", FloatTensorType([None, WIDTH]))],
            options={"zipmap": False},
        )
    rows = samples(classes)[0][TRAIN_ROWS:]
    return Export(graph=graph.SerializeToString(), rows=rows, native=model.predict_proba(rows))


@functools.cache
def lightgbm(classes: int = 2) -> Export:
    """Export a model of LightGBM with onnxmltools."""
    booster = pytest.importorskip("lightgbm", reason="LightGBM is not installed")
    pytest.importorskip("onnxmltools", reason="onnxmltools is not installed")
    from onnxmltools.convert import convert_lightgbm
    from onnxmltools.convert.common.data_types import FloatTensorType

    rows, labels = samples(classes)
    model = booster.LGBMClassifier(
        n_estimators=20, num_leaves=15, n_jobs=1, verbose=-1, random_state=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(rows[:TRAIN_ROWS], labels[:TRAIN_ROWS])
        graph = convert_lightgbm(
            model,
            name="exported",
            initial_types=[("input", FloatTensorType([None, WIDTH]))],
            zipmap=False,
            target_opset=15,
        )
        native = np.asarray(model.predict_proba(rows[TRAIN_ROWS:]))
    return Export(graph=graph.SerializeToString(), rows=rows[TRAIN_ROWS:], native=native)


@functools.cache
def torch_tcn() -> Export:
    """Export a temporal convolution of torch, over windows, with its TorchScript exporter."""
    torch = pytest.importorskip(
        "torch", reason="torch is not installed: it is in no locked environment"
    )
    layers, functional = torch.nn, torch.nn.functional

    class Tcn(layers.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.first = layers.Conv1d(WINDOW[1], 16, 3)
            self.second = layers.Conv1d(16, 16, 3, dilation=2)
            self.drop = layers.Dropout(0.1)
            self.out = layers.Linear(16, 3)

        def forward(self, rows: Any) -> Any:
            found = functional.pad(rows.transpose(1, 2), (2, 0))
            found = self.drop(torch.relu(self.first(found)))
            found = torch.relu(self.second(functional.pad(found, (4, 0))))
            return torch.softmax(self.out(found[:, :, -1]), dim=1)

    torch.manual_seed(0)
    chance = np.random.default_rng(12)
    windows = chance.normal(0.0, 1.0, (TEST_ROWS, *WINDOW)).astype(np.float32)
    labels = torch.tensor(np.digitize(windows[:, -1, 0] + windows[:, -2, 1], [-0.7, 0.7]))
    given, model, loss = torch.tensor(windows), Tcn(), layers.NLLLoss()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(30):
        optimiser.zero_grad()
        loss(torch.log(model(given) + 1e-9), labels).backward()
        optimiser.step()
    model.eval()
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (given[:1],),
            file,
            input_names=["input"],
            output_names=["probabilities"],
            dynamic_axes={"input": {0: "n"}, "probabilities": {0: "n"}},
            opset_version=17,
            dynamo=False,
        )
    with torch.no_grad():
        native = model(given).numpy()
    rows = windows.reshape(TEST_ROWS, -1)
    return Export(graph=file.getvalue(), rows=rows, native=native, input_shape=WINDOW)
