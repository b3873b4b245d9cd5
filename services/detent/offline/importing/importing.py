"""Make an artifact of ours from an earlier one and the facts that it does not state.

What both say must agree; what neither says is an error that names it. Nothing is guessed.

Source: decision D14; REQUIREMENTS R60, R64, R66, R251, R329.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from detent.adapters.artifact_store import list_files, read_artifact, write_artifact
from detent.adapters.graph_audit import audit_graph
from detent.adapters.onnx_session import GraphContract, open_session
from detent.adapters.serving import open_serving
from detent.contracts.binding import Head, TrainingWindow
from detent.contracts.calibration import CalibrationSpec, calibration_bytes
from detent.contracts.canonical import JsonValue, canonical_bytes, parse_json, sha256_hex
from detent.contracts.errors import ArtifactInvalid, InvalidField
from detent.contracts.json_codec import from_json
from detent.contracts.manifest import (
    CALIBRATION_FILE,
    FEATURE_SET_FILE,
    GOLDEN_FILE,
    GOLDEN_ROWS_MAX,
    MODEL_FILE,
    SCHEMA_VERSION,
    TRAIN_REPORT_FILE,
    GoldenRow,
    GoldenSet,
    Manifest,
    TrainingMetadata,
    golden_bytes,
)
from detent.contracts.reasons import Reason
from detent.core.features.feature_set import FeatureSet
from detent.core.signals.calibration import Calibrator
from detent.offline.feature_sets import find_feature_set
from detent.offline.importing.legacy_folder import LegacyArtifact, read_legacy_artifact

REPORT_SCHEMA = "detent.import_report.v1"
FACTS_BYTES_MAX = 16 * 2**20
PLAIN_FACTS = (
    "model_name",
    "model_version",
    "created_at",
    "framework",
    "architecture_id",
    "bar_interval_ms",
    "horizon_id",
    "horizon_bars",
    "label_definition",
    "data_cutoff_ts_ms",
)
WHOLE_FACTS = frozenset({"bar_interval_ms", "horizon_bars", "data_cutoff_ts_ms"})
TRAINING_FACTS = (
    "train_samples",
    "calibration_samples",
    "test_samples",
    "test_accuracy_bps",
    "data_hash",
    "metrics",
)
LIST_FACTS = ("input_features", "output_classes")
OTHER_FACTS = ("head", "feature_set", "calibration", "training_window", "golden_inputs")
FACTS = (*PLAIN_FACTS, *TRAINING_FACTS, *LIST_FACTS, *OTHER_FACTS)


def import_artifact(folder: Path, *, facts: Path, out_dir: Path) -> Path:
    """Import an artifact of an earlier form.

    Args:
        folder: The earlier artifact's directory.
        facts: A JSON file with what the earlier form does not say; the names are `FACTS`.
        out_dir: Folder of artifacts.

    Returns:
        The directory of ours, verified as it would be when served.

    Raises:
        ArtifactInvalid: The earlier artifact is not what it says, the graph is not one that
            can be served, or the directory of ours exists.
        InvalidField: A fact is missing, unknown, malformed, or contradicts the manifest.
    """
    legacy = read_legacy_artifact(folder)
    known = gather_facts(legacy.manifest.said, _read_facts(facts), form=legacy.manifest.form)
    feature_set = _feature_set(known, facts.parent)
    calibration = _struct(CalibrationSpec, "calibration", known)
    model = legacy.contents[legacy.manifest.model_file]
    contract = _contract(model, feature_set, _names("output_classes", known["output_classes"]))
    contents = {
        MODEL_FILE: model,
        CALIBRATION_FILE: calibration_bytes(calibration),
        FEATURE_SET_FILE: feature_set.canonical_json,
        GOLDEN_FILE: golden_bytes(_golden(model, contract, calibration, known["golden_inputs"])),
        TRAIN_REPORT_FILE: canonical_bytes(REPORT_SCHEMA, _report(legacy)),
    }
    manifest = _manifest(known, contract, feature_set, calibration, contents)
    path = write_artifact(out_dir, manifest, contents)
    open_serving(read_artifact(path, model_version_hash=manifest.model_version_hash))
    return path


def gather_facts(
    said: Mapping[str, JsonValue], given: Mapping[str, JsonValue], *, form: str
) -> dict[str, JsonValue]:
    """Join what the manifest says with what was given.

    Raises:
        InvalidField: A given fact is unknown or contradicts the manifest, or one is missing.
    """
    for name in sorted(given):
        if name not in FACTS:
            raise InvalidField(name, "(unknown field)", ", ".join(FACTS))
        if name in said and said[name] != given[name]:
            raise InvalidField(name, given[name], f"what the manifest says: {said[name]}")
    known = {**given, **said}
    missing = [name for name in FACTS if known.get(name) is None]
    if missing:
        others = f"; missing too: {', '.join(missing[1:])}" if missing[1:] else ""
        expected = f"in the file of facts, as a manifest of form {form} does not say it{others}"
        raise InvalidField(missing[0], "(missing)", expected)
    for name in PLAIN_FACTS:
        kind = int if name in WHOLE_FACTS else str
        if type(known[name]) is not kind:
            raise InvalidField(name, known[name], f"a JSON {kind.__name__}")
    return known


def _read_facts(path: Path) -> dict[str, JsonValue]:
    try:
        with path.open("rb") as file:
            text = file.read(FACTS_BYTES_MAX + 1)
    except OSError as error:
        raise InvalidField("facts", error.strerror, f"the file {path.name}") from error
    if len(text) > FACTS_BYTES_MAX:
        raise InvalidField("facts", f"more than {FACTS_BYTES_MAX} bytes", "at most that")
    return parse_json("facts", text)


def _feature_set(known: Mapping[str, JsonValue], base: Path) -> FeatureSet:
    name, interval_ms = known["feature_set"], known["bar_interval_ms"]
    if not isinstance(name, str):
        raise InvalidField("feature_set", name, "the name of a feature set, or a file")
    assert isinstance(interval_ms, int)
    beside = base / name
    where = str(beside) if beside.is_file() else name
    found = find_feature_set(where, bar_interval_ms=interval_ms)
    order = _names("input_features", known["input_features"])
    if order != found.input_names:
        # A model fed in another order answers, and answers wrongly; nothing else would notice.
        raise InvalidField("input_features", order, f"the order of {name}: {found.input_names}")
    return found


def _contract(model: bytes, feature_set: FeatureSet, classes: Sequence[str]) -> GraphContract:
    try:
        graph = onnx.load_model_from_string(model).graph
    except DecodeError as error:
        raise _unfit(str(error), "an ONNX graph") from error
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [tensor.name for tensor in graph.input if tensor.name not in stored]
    outputs = [tensor.name for tensor in graph.output]
    if len(inputs) != 1 or len(outputs) != 1:
        found = f"inputs {inputs} and outputs {outputs}"
        raise _unfit(found, "one input, and one output of probabilities: export it without more")
    return GraphContract(
        input_name=inputs[0],
        width=len(feature_set.input_names),
        output_name=outputs[0],
        classes=len(classes),
    )


def _golden(
    model: bytes, contract: GraphContract, calibration: CalibrationSpec, given: JsonValue
) -> GoldenSet:
    """Run the rows that were given, and hold what they give from now on."""
    if not isinstance(given, list) or not 1 <= len(given) <= GOLDEN_ROWS_MAX:
        raise InvalidField("golden_inputs", type(given).__name__, f"1 to {GOLDEN_ROWS_MAX} rows")
    inputs = [_row(index, row, contract.width) for index, row in enumerate(given)]
    audit_graph(model)
    session = open_session(model, contract, execution_provider="cpu")
    calibrator = Calibrator.of(calibration)
    rows = []
    for values, raw in zip(inputs, session.probabilities(inputs)[:, -1].tolist(), strict=True):
        direction = calibrator.direction(raw)
        if isinstance(direction, Reason):
            raise _unfit(f"{raw} for a golden row", "a probability")
        rows.append(GoldenRow(values=values, direction=direction))
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
    contract: GraphContract,
    feature_set: FeatureSet,
    calibration: CalibrationSpec,
    contents: Mapping[str, bytes],
) -> Manifest:
    head = known["head"]
    if head not in list(Head):
        raise InvalidField("head", head, f"one of {', '.join(Head)}")
    training = from_json(TrainingMetadata, {name: known[name] for name in TRAINING_FACTS})
    return Manifest(
        schema_version=SCHEMA_VERSION,
        **{name: known[name] for name in PLAIN_FACTS},
        head=Head(head),
        export_format="onnx",
        feature_version=feature_set.feature_version,
        input_name=contract.input_name,
        input_features=feature_set.input_names,
        output_name=contract.output_name,
        output_classes=_names("output_classes", known["output_classes"]),
        calibration_method=calibration.method,
        calibration_version=calibration.calibration_version,
        training_window=_struct(TrainingWindow, "training_window", known),
        model_hash=sha256_hex(contents[MODEL_FILE])[:16],
        training_metadata=training,
        files=list_files(contents),
    )


def _report(legacy: LegacyArtifact) -> dict[str, JsonValue]:
    """Say where the artifact comes from, to the last byte."""
    return {
        "form": legacy.manifest.form,
        "manifest_sha256": legacy.manifest_sha256,
        "files": dict(legacy.manifest.sha256),
        "provenance": dict(legacy.manifest.provenance),
    }


def _struct(kind: Any, field: str, known: Mapping[str, JsonValue]) -> Any:
    found = known[field]
    if not isinstance(found, dict):
        raise InvalidField(field, found, f"an object: {', '.join(kind.__struct_fields__)}")
    try:
        return from_json(kind, found)
    except InvalidField as error:
        raise error.under(field) from error


def _names(field: str, found: JsonValue) -> tuple[str, ...]:
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise InvalidField(field, found, "a list of names")
    return tuple(str(item) for item in found)


def _unfit(found: str, expected: str) -> ArtifactInvalid:
    return ArtifactInvalid(
        f"model: found {found}, expected {expected}",
        gate_reason=Reason.MODEL_NOT_LOADED,
        file=MODEL_FILE,
        found=found,
        expected=expected,
    )
