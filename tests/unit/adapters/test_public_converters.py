"""Holds that what the public converters write is served as it is, and answers as the library does.

Nothing is done to a graph on its way: audit, examination, certificate and session see the bytes
that the converter gave.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tests.unit.exported_artifacts import exported_artifact
from tests.unit.public_exports import Export, lightgbm, scikit_learn, torch_tcn

from detent.adapters.serving import open_serving
from detent.contracts.reasons import Reason

# Before anything is rounded to an integer.
TOLERANCE = 1e-6
EXPORTS = [
    pytest.param(functools.partial(scikit_learn, "logistic"), id="scikit-learn logistic"),
    pytest.param(functools.partial(scikit_learn, "logistic", 3), id="scikit-learn softmax"),
    pytest.param(functools.partial(scikit_learn, "forest"), id="scikit-learn forest"),
    pytest.param(functools.partial(scikit_learn, "boosting"), id="scikit-learn boosting"),
    pytest.param(functools.partial(scikit_learn, "perceptron"), id="scikit-learn perceptron"),
    pytest.param(lightgbm, id="LightGBM"),
    pytest.param(functools.partial(lightgbm, 3), id="LightGBM of three classes"),
    pytest.param(torch_tcn, id="torch convolution"),
]


def gap_of(export: Export, parent: Path, graph: bytes | None = None) -> float:
    """Serve a graph and give the greatest distance from what the library answers."""
    artifact = exported_artifact(
        parent, graph or export.graph, export.rows, input_shape=export.input_shape
    )
    serving = open_serving(artifact)
    served = serving.session.outputs(export.rows)[0].astype(np.float64)
    answers = serving.answers([row.tobytes() for row in export.rows])

    assert not [answer for answer in answers if isinstance(answer, Reason)]
    return float(np.abs(served - export.native).max())


@pytest.mark.parametrize("exported", EXPORTS)
def test_export_is_served_as_it_is_and_answers_as_the_library(
    exported: Callable[[], Export], tmp_path: Path
) -> None:
    export = exported()

    assert len(export.rows) == 200
    assert np.ptp(export.native[:, -1]) > 0.2, "the model says the same of everything"
    assert gap_of(export, tmp_path) <= TOLERANCE


def test_weight_that_is_off_by_a_thousandth_is_noticed(tmp_path: Path) -> None:
    """The control: the comparison is fine enough to see a small damage."""
    export = scikit_learn("perceptron")
    model = onnx.load_from_string(export.graph)
    tensor = next(one for one in model.graph.initializer if one.name == "coefficient")
    weights = numpy_helper.to_array(tensor).copy()
    weights[0, 0] += 1e-3
    tensor.CopyFrom(numpy_helper.from_array(weights, tensor.name))

    assert gap_of(export, tmp_path, model.SerializeToString()) > TOLERANCE
