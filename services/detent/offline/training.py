"""Fit the baseline and export it: a scaler and a logistic regression, in one graph.

Source: seed 003, milestone M8-03b-1; rows R147 to R149.
"""

import msgspec
import numpy as np
from onnx import ModelProto
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from detent.core.evaluation.scores import accuracy
from detent.offline.samples import Samples

ARCHITECTURE_ID = "logistic"
FRAMEWORK = "scikit-learn"
GRAPH_NAME = "detent_direction"
INPUT_NAME = "input"
OUTPUT_NAME = "probabilities"
ONNX_OPSET = 17
ONNX_ML_OPSET = 3
# The solver draws nothing; the seed is fixed and reported for whatever follows it.
SEED = 0


class TrainedModel(msgspec.Struct, frozen=True, kw_only=True):
    """Holds an exported graph and how it did on the rows that it was fitted on.

    Attributes:
        graph: Content of `model.onnx`.
        train_accuracy: Share of its own rows on the right side of one half.
    """

    graph: bytes
    train_accuracy: float


def train_logistic(samples: Samples) -> TrainedModel:
    """Fit and export the baseline; the same rows give the same bytes.

    One thread, because the order in which threads add up shows in the last bit.
    """
    model = Pipeline(
        [
            ("scale", StandardScaler()),
            ("classify", LogisticRegression(max_iter=1_000, tol=1e-8, random_state=SEED)),
        ]
    )
    values = samples.values.astype(np.float64)
    with threadpool_limits(limits=1):
        model.fit(values, samples.labels.astype(np.int64))
        p = np.asarray(model.predict_proba(values), dtype=np.float64)[:, 1]
    return TrainedModel(
        graph=_export(model, width=values.shape[1]).SerializeToString(deterministic=True),
        train_accuracy=accuracy(p, samples.labels),
    )


def _export(model: Pipeline, *, width: int) -> ModelProto:
    """Give the graph with one input and one output: a float32 row, its probabilities."""
    exported: ModelProto = to_onnx(
        model,
        initial_types=[(INPUT_NAME, FloatTensorType([None, width]))],
        options={id(model): {"zipmap": False}},
        target_opset={"": ONNX_OPSET, "ai.onnx.ml": ONNX_ML_OPSET},
        name=GRAPH_NAME,
    )
    kept = [output for output in exported.graph.output if output.name == OUTPUT_NAME]
    del exported.graph.output[:]
    exported.graph.output.extend(kept)
    return exported
