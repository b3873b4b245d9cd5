"""Makes artifacts of what the public converters write, as they write it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from msgspec import structs
from numpy.typing import NDArray
from tests.unit.artifacts import artifact
from tests.unit.head_artifacts import calibration_of, manifest_of_head

from detent.adapters.artifact_store import Artifact, list_files, read_artifact, write_artifact
from detent.adapters.onnx_session import GraphContract, open_session
from detent.contracts.binding import Head
from detent.contracts.calibration import calibration_bytes
from detent.contracts.canonical import sha256_hex
from detent.contracts.manifest import (
    CALIBRATION_FILE,
    GOLDEN_FILE,
    MODEL_FILE,
    OUTPUT_CLASSES,
    GoldenRow,
    GoldenSet,
    golden_bytes,
)
from detent.contracts.reasons import Reason
from detent.contracts.signals import by_head
from detent.core.features.feature_set import FeatureSet
from detent.core.features.feature_spec import FeatureTransform, feature
from detent.core.signals.heads import head_map

Floats = NDArray[np.float32]
GOLDEN_ROWS = 8


def feature_set_of(columns: int, *, window_rows: int = 1) -> FeatureSet:
    """Give a feature set of as many columns as a graph has; which ones is nothing to it."""
    shared = artifact().pinned.feature_set
    more = tuple(feature(FeatureTransform.RETURN_PCT, bars) for bars in range(30, 60))
    features = (*shared.features, *more)[:columns]
    return structs.replace(shared, name="exported", features=features, window_rows=window_rows)


def exported_artifact(
    parent: Path,
    model: bytes,
    rows: Floats,
    *,
    input_shape: tuple[int, ...] = (),
    baseline: Floats | None = None,
) -> Artifact:
    """Write a graph with its golden rows and read it back, verified.

    Args:
        parent: Folder of artifacts.
        model: The graph, with `input` and `probabilities` of two or three columns.
        rows: Shape (n, width), float32; the first ones become golden rows.
        input_shape: Shape of a row, where it is a window.
        baseline: The row that attributions are measured from, if there is one.
    """
    width = rows.shape[1]
    window_rows, columns = input_shape or (1, width)
    features = feature_set_of(columns, window_rows=window_rows)
    head = Head.DIRECTION if _columns_of(model) == len(OUTPUT_CLASSES[Head.DIRECTION]) else None
    draft = manifest_of_head(
        head or Head.REGIME,
        further=(),
        model_name="exported",
        feature_version=features.feature_version,
        input_features=features.input_names,
        input_shape=input_shape,
    )
    spec = calibration_of(draft.head)
    session = open_session(model, GraphContract.of(draft), execution_provider="cpu")
    golden = []
    for values, outputs in zip(rows, session.outputs(rows[:GOLDEN_ROWS])[0], strict=False):
        answer = head_map(draft, spec).answer([outputs.tolist()])
        assert not isinstance(answer, Reason), answer
        golden.append(GoldenRow(values=values.tobytes(), **by_head(answer)))
    contents = {
        "feature_set.json": features.canonical_json,
        "train_report.json": artifact().train_report,
        MODEL_FILE: model,
        CALIBRATION_FILE: calibration_bytes(spec),
        GOLDEN_FILE: golden_bytes(
            GoldenSet(
                rows=tuple(golden),
                baseline=None if baseline is None else baseline.astype("<f4").tobytes(),
            )
        ),
    }
    manifest = structs.replace(draft, model_hash=sha256_hex(model)[:16], files=list_files(contents))
    return read_artifact(write_artifact(parent, manifest, contents))


def _columns_of(model: bytes) -> int:
    import onnx

    graph = onnx.load_from_string(model).graph
    output = next(output for output in graph.output if output.name == "probabilities")
    return int(output.type.tensor_type.shape.dim[1].dim_value)
