"""Makes a tiny artifact of any head: a linear graph, written by hand, over the shared features."""

from __future__ import annotations

import functools
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from msgspec import structs
from onnx import TensorProto, helper, numpy_helper
from tests.unit.artifacts import artifact, model_inputs

from detent.adapters.artifact_store import Artifact, list_files, read_artifact, write_artifact
from detent.adapters.onnx_session import GraphContract, open_session
from detent.contracts.binding import Head, RegimeFallback
from detent.contracts.calibration import (
    BracketPlatt,
    BracketsSpec,
    Calibration,
    CalibrationMethod,
    CalibrationSpec,
    TemperatureSpec,
    calibration_bytes,
)
from detent.contracts.calls.feature import ModelInput
from detent.contracts.canonical import sha256_hex
from detent.contracts.manifest import (
    CALIBRATION_FILE,
    GOLDEN_FILE,
    LISTED_FILES,
    MODEL_FILE,
    OUTPUT_CLASSES,
    REGIME_CLASSES,
    SPACING_CLASSES,
    GoldenRow,
    GoldenSet,
    GraphOutput,
    Manifest,
    golden_bytes,
)
from detent.contracts.reasons import Reason
from detent.contracts.signals import by_head
from detent.core.features.model_input import features_hash
from detent.core.signals.heads import head_map

KEYS = ("less_70", "between_70_71", "between_72_73", "greater_73")
GOLDEN_ROWS = 8
SPACING = GraphOutput(name="spacing_multiplier", classes=SPACING_CLASSES)
NEXT_REGIME = GraphOutput(name="next_regime_probs", classes=REGIME_CLASSES)
FURTHER = {Head.REGIME: (SPACING,), Head.TOXICITY: (NEXT_REGIME,)}


def classes_of(head: Head) -> tuple[str, ...]:
    """Give the columns of a head's first output."""
    return OUTPUT_CLASSES.get(head, KEYS)


def calibration_of(head: Head) -> Calibration:
    """Give a calibration that changes every answer, and none beyond recognition."""
    match head:
        case Head.REGIME | Head.TOXICITY:
            return TemperatureSpec(temperature=Decimal("1.5"))
        case Head.BRACKETS:
            return BracketsSpec(
                brackets=tuple(
                    BracketPlatt(bracket_key=key, a=Decimal("-0.9"), b=Decimal("0.05"))
                    for key in KEYS
                ),
                temperature=Decimal("1.2"),
            )
        case _:
            return CalibrationSpec(
                method=CalibrationMethod.PLATT, a=Decimal("-0.8"), b=Decimal("0.1")
            )


def graph_of(
    head: Head,
    further: tuple[GraphOutput, ...],
    *,
    width: int,
    input_shape: tuple[int, ...] = (),
    extra_label: bool = False,
) -> bytes:
    """Write the graph: each output a linear map of the row, squashed to what it must be."""
    chance = np.random.default_rng(len(head))
    nodes, outputs, weights = [], [], []
    flat = "input"
    if input_shape:
        weights.append(numpy_helper.from_array(np.array([-1, width], np.int64), "flat_shape"))
        nodes.append(helper.make_node("Reshape", ["input", "flat_shape"], ["flat"]))
        flat = "flat"
    nodes.append(helper.make_node("Mul", [flat, flat], ["squares"]))
    for name, value in (("start", 0), ("axis", 1)):
        weights.append(numpy_helper.from_array(np.array([value], np.int64), name))
    weights.append(numpy_helper.from_array(np.array([0.0], np.float32), "nothing"))

    def linear(name: str, columns: int) -> str:
        matrix = chance.normal(0.0, 0.05, (width, columns)).astype(np.float32)
        weights.append(numpy_helper.from_array(matrix, f"w_{name}"))
        nodes.append(helper.make_node("MatMul", [flat, f"w_{name}"], [f"m_{name}"]))
        # Nothing for an ordinary input; not a number in the column whose input overflows.
        ends = numpy_helper.from_array(np.array([columns], np.int64), f"end_{name}")
        weights.append(ends)
        cut = ["squares", "start", f"end_{name}", "axis"]
        nodes.append(helper.make_node("Slice", cut, [f"s_{name}"]))
        nodes.append(helper.make_node("Mul", [f"s_{name}", "nothing"], [f"n_{name}"]))
        nodes.append(helper.make_node("Add", [f"m_{name}", f"n_{name}"], [f"z_{name}"]))
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", columns]))
        return f"z_{name}"

    squash = "Sigmoid" if head is Head.BRACKETS else "Softmax"
    first = linear("probabilities", len(classes_of(head)))
    nodes.append(helper.make_node(squash, [first], ["probabilities"]))
    for output in further:
        z = linear(output.name, len(output.classes))
        if output.classes == SPACING_CLASSES:
            # Between 1 and 2: 1 + sigmoid(z).
            weights.append(numpy_helper.from_array(np.array([1.0], np.float32), "one"))
            nodes.append(helper.make_node("Sigmoid", [z], ["squashed"]))
            nodes.append(helper.make_node("Add", ["squashed", "one"], [output.name]))
        else:
            nodes.append(helper.make_node("Softmax", [z], [output.name]))
    if extra_label:
        nodes.append(helper.make_node("ArgMax", [first], ["label"], axis=1, keepdims=0))
        outputs.insert(0, helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]))
    shape = ["n", *(input_shape or (width,))]
    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "tiny", [given], outputs, initializer=weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def manifest_of_head(
    head: Head, *, further: tuple[GraphOutput, ...] | None = None, **changes: Any
) -> Manifest:
    """Give a manifest of a head; its files are those of another artifact."""
    spec = calibration_of(head)
    return structs.replace(
        artifact().manifest,
        **{
            "model_name": f"tiny_{head}",
            "model_version": "v1.0.0",
            "head": head,
            "output_name": "probabilities",
            "output_classes": classes_of(head),
            "further_outputs": FURTHER.get(head, ()) if further is None else further,
            "calibration_method": spec.method,
            "calibration_version": spec.calibration_version,
        }
        | changes,
    )


def write_head_artifact(
    parent: Path,
    head: Head,
    *,
    further: tuple[GraphOutput, ...] | None = None,
    fallback: RegimeFallback | None = None,
    input_shape: tuple[int, ...] = (),
    extra_label: bool = False,
    calibration: Calibration | None = None,
) -> Path:
    """Write an artifact whose golden rows are what its own graph answers."""
    spec = calibration if calibration is not None else calibration_of(head)
    draft = manifest_of_head(
        head,
        further=further,
        fallback=fallback,
        input_shape=input_shape,
        calibration_method=spec.method,
        calibration_version=spec.calibration_version,
    )
    model = graph_of(
        head,
        draft.further_outputs,
        width=len(draft.input_features),
        input_shape=input_shape,
        extra_label=extra_label,
    )
    session = open_session(model, GraphContract.of(draft), execution_provider="cpu")
    inputs = [row.values for row in model_inputs()[:GOLDEN_ROWS]]
    outputs = [
        found.tolist()
        for found in session.outputs(
            np.frombuffer(b"".join(inputs), "<f4").reshape(len(inputs), -1)
        )
    ]
    rows = []
    for values, row in zip(inputs, zip(*outputs, strict=True), strict=True):
        answer = head_map(draft, spec).answer(row)
        assert not isinstance(answer, Reason), answer
        rows.append(GoldenRow(values=values, **by_head(answer)))
    contents = {
        "feature_set.json": artifact().pinned.feature_set.canonical_json,
        "train_report.json": artifact().train_report,
        MODEL_FILE: model,
        CALIBRATION_FILE: calibration_bytes(spec),
        GOLDEN_FILE: golden_bytes(GoldenSet(rows=tuple(rows))),
    }
    assert set(contents) == set(LISTED_FILES)
    manifest = structs.replace(draft, model_hash=sha256_hex(model)[:16], files=list_files(contents))
    return write_artifact(parent, manifest, contents)


@functools.cache
def head_artifact(head: Head, fallback: RegimeFallback | None = None) -> Artifact:
    """Give the artifact of a head, verified."""
    return read_artifact(write_head_artifact(Path(tempfile.mkdtemp()), head, fallback=fallback))


def poisoned(row: ModelInput, *, symbol: str, columns: slice = slice(None)) -> ModelInput:
    """Give a sound input on which every graph here answers no number in some columns."""
    values = np.frombuffer(row.values, "<f4").copy()
    values[columns] = 1e20
    return hashed(structs.replace(row, values=values.tobytes()), symbol=symbol)


def hashed(row: ModelInput, *, symbol: str) -> ModelInput:
    """Give an input with the hash that belongs to it."""
    found = features_hash(
        artifact().manifest.feature_version,
        symbol=symbol,
        ts_ms=row.ts_ms,
        snapshot_hashes=row.snapshot_hashes,
        values=row.values,
    )
    return structs.replace(row, features_hash=found)
