"""Make an artifact of ours from an earlier one and the facts that it does not state.

What both say must agree; what neither says is an error that names it. Nothing is guessed.

Source: decision D14; REQUIREMENTS R60, R64, R66, R148, R251, R329.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from msgspec import structs
from onnx import TensorProto

from detent.adapters.artifact_store import list_files, read_artifact, write_artifact
from detent.adapters.graph_audit import audit_graph
from detent.adapters.graph_gate import check_graph
from detent.adapters.onnx_session import GraphContract, open_session
from detent.adapters.serving import open_serving
from detent.contracts.binding import Head, TrainingWindow
from detent.contracts.calibration import Calibration, calibration_bytes
from detent.contracts.canonical import JsonValue, canonical_bytes, sha256_hex
from detent.contracts.errors import ArtifactInvalid, InvalidField
from detent.contracts.json_codec import from_json
from detent.contracts.manifest import (
    CALIBRATION_FILE,
    FEATURE_SET_FILE,
    GOLDEN_FILE,
    GOLDEN_ROWS_MAX,
    MODEL_FILE,
    PROVENANCE,
    SCHEMA_VERSION,
    TRAIN_REPORT_FILE,
    GoldenRow,
    GoldenSet,
    GraphOutput,
    Manifest,
    TrainingMetadata,
    golden_bytes,
)
from detent.contracts.reasons import Reason
from detent.contracts.signals import by_head
from detent.core.features.feature_set import FeatureSet
from detent.core.signals.heads import head_map
from detent.offline.importing.facts import (
    PLAIN_FACTS,
    TRAINING_FACTS,
    calibration_of,
    fallback_of,
    feature_set_of,
    further_outputs_of,
    gather_facts,
    names_of,
    read_facts,
    struct_of,
)
from detent.offline.importing.legacy_folder import LegacyArtifact, read_legacy_artifact

REPORT_SCHEMA = "detent.import_report.v1"
# Rows, time steps, features: the input of a graph that takes a window.
WINDOW_RANK = 3
# Stands for the golden rows until the manifest says how they are to be made.
NOT_YET = b"{}"


class _Ports(msgspec.Struct, frozen=True, kw_only=True):
    """Names the graph's input and its output of classes, and the input's shape."""

    input_name: str
    input_shape: tuple[int, ...]
    output_name: str


def import_artifact(folder: Path, *, facts: Path, out_dir: Path) -> Path:
    """Import an artifact of an earlier form, of any head.

    Args:
        folder: The earlier artifact's directory.
        facts: A JSON file with what the earlier form does not say: `FACTS`, and
            `OPTIONAL_FACTS` where they apply.
        out_dir: Folder of artifacts.

    Returns:
        The directory of ours, verified as it would be when served.

    Raises:
        ArtifactInvalid: The earlier artifact is not what it says, the graph is not one that
            can be served, the calibration is not one of its head, or the directory of ours
            exists.
        InvalidField: A fact is missing, unknown, malformed, or contradicts the manifest.
    """
    legacy = read_legacy_artifact(folder)
    known = gather_facts(legacy.manifest.said, read_facts(facts), form=legacy.manifest.form)
    feature_set = feature_set_of(known, facts.parent)
    calibration = calibration_of(known, facts.parent)
    contents = {
        MODEL_FILE: legacy.contents[legacy.manifest.model_file],
        CALIBRATION_FILE: calibration_bytes(calibration),
        FEATURE_SET_FILE: feature_set.canonical_json,
        GOLDEN_FILE: NOT_YET,
        TRAIN_REPORT_FILE: canonical_bytes(REPORT_SCHEMA, _report(legacy)),
    }
    draft = _manifest(known, feature_set, calibration, contents)
    golden = _golden(contents[MODEL_FILE], draft, calibration, known["golden_inputs"])
    contents[GOLDEN_FILE] = golden_bytes(golden)
    manifest = structs.replace(draft, files=list_files(contents))
    path = write_artifact(out_dir, manifest, contents)
    open_serving(read_artifact(path, model_version_hash=manifest.model_version_hash))
    return path


def _ports(model: bytes, further: tuple[GraphOutput, ...]) -> _Ports:
    """Read off the graph what it says itself.

    Every output of floats must be accounted for: a spacing that nobody names would be
    answered as 1.0. A label of whole numbers, as converters add it, is never asked for.
    """
    audit_graph(model)
    graph = onnx.load_model_from_string(model).graph
    stored = {tensor.name for tensor in graph.initializer}
    (given,) = (tensor for tensor in graph.input if tensor.name not in stored)
    floats = [
        tensor.name
        for tensor in graph.output
        if tensor.type.tensor_type.elem_type == TensorProto.FLOAT
    ]
    named = [output.name for output in further]
    rest = [name for name in floats if name not in named]
    if len(rest) != 1 or not set(named) <= set(floats):
        found = f"outputs of floats {floats}, further_outputs {named}"
        raise _unfit(found, "one output of classes, and each other one in further_outputs")
    dimensions = given.type.tensor_type.shape.dim
    is_window = len(dimensions) == WINDOW_RANK
    return _Ports(
        input_name=given.name,
        input_shape=tuple(size.dim_value for size in dimensions[1:]) if is_window else (),
        output_name=rest[0],
    )


def _golden(
    model: bytes, manifest: Manifest, calibration: Calibration, given: JsonValue
) -> GoldenSet:
    """Run the rows that were given, and hold what they give from now on."""
    if not isinstance(given, list) or not 1 <= len(given) <= GOLDEN_ROWS_MAX:
        raise InvalidField("golden_inputs", type(given).__name__, f"1 to {GOLDEN_ROWS_MAX} rows")
    head = head_map(manifest, calibration)
    graph = GraphContract.of(manifest)
    inputs = [_row(index, row, graph.width) for index, row in enumerate(given)]
    # The process that has nothing sees the model before this one runs it.
    check_graph(model, input_name=graph.input_name, row_shape=graph.row_shape, rows=inputs)
    session = open_session(model, graph, execution_provider="cpu")
    outputs = session.outputs(np.frombuffer(b"".join(inputs), "<f4").reshape(len(inputs), -1))
    columns = [output.tolist() for output in outputs]
    rows = []
    for index, raw in enumerate(zip(*columns, strict=True)):
        answer = head.answer(raw)
        if isinstance(answer, Reason):
            expected = f"an answer of the head {manifest.head}"
            raise _unfit(f"{answer} for golden_inputs[{index}]: {list(raw)}", expected)
        rows.append(GoldenRow(values=inputs[index], **by_head(answer)))
    return GoldenSet(rows=tuple(rows))


def _row(index: int, row: JsonValue, width: int) -> bytes:
    field = f"golden_inputs[{index}]"
    if not isinstance(row, list) or len(row) != width:
        raise InvalidField(field, row, f"{width} numbers, as text or whole")
    try:
        values = np.array([float(str(item)) for item in row], dtype="<f4")
    except ValueError as error:
        raise InvalidField(field, row, f"{width} numbers, as text or whole") from error
    if not np.isfinite(values).all():
        raise InvalidField(field, row, "numbers that float32 can hold")
    return values.tobytes()


def _manifest(
    known: Mapping[str, Any],
    feature_set: FeatureSet,
    calibration: Calibration,
    contents: Mapping[str, bytes],
) -> Manifest:
    head = known["head"]
    if head not in list(Head):
        raise InvalidField("head", head, f"one of {', '.join(Head)}")
    stated: dict[str, Any] = {name: known.get(name) for name in PLAIN_FACTS + PROVENANCE}
    training = from_json(TrainingMetadata, {name: known[name] for name in TRAINING_FACTS})
    further = further_outputs_of(known)
    ports = _ports(contents[MODEL_FILE], further)
    return Manifest(
        schema_version=SCHEMA_VERSION,
        **stated,
        head=Head(head),
        export_format="onnx",
        feature_version=feature_set.feature_version,
        input_name=ports.input_name,
        input_shape=ports.input_shape,
        input_features=feature_set.input_names,
        output_name=ports.output_name,
        output_classes=names_of("output_classes", known["output_classes"]),
        further_outputs=further,
        fallback=fallback_of(known),
        calibration_method=calibration.method,
        calibration_version=calibration.calibration_version,
        training_window=struct_of(TrainingWindow, "training_window", known["training_window"]),
        model_hash=sha256_hex(contents[MODEL_FILE])[:16],
        training_metadata=training,
        files=list_files(contents),
    )


def _report(legacy: LegacyArtifact) -> dict[str, JsonValue]:
    """Say where the artifact comes from, to the last byte, and what has no other place."""
    return {
        "form": legacy.manifest.form,
        "manifest_sha256": legacy.manifest_sha256,
        "files": dict(legacy.manifest.sha256),
        "provenance": dict(legacy.manifest.provenance),
    }


def _unfit(found: str, expected: str) -> ArtifactInvalid:
    return ArtifactInvalid(
        f"model: found {found}, expected {expected}",
        gate_reason=Reason.MODEL_NOT_LOADED,
        file=MODEL_FILE,
        found=found,
        expected=expected,
    )
