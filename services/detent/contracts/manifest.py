"""Hold what an artifact says of itself: the manifest, its files, and its golden rows.

Whoever holds a manifest derives the one model binding that it allows, so the feature,
inference and policy services each know the accepted `binding_hash` without asking.

Source: seed 003, section 12.4; seed 000, sections 4 and 5; decision D14.
"""

import math
import re
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import msgspec

from detent.contracts.binding import (
    HORIZON_BARS_MAX,
    Head,
    ModelBinding,
    RegimeFallback,
    SignalSource,
    TrainingWindow,
    check_fallback,
)
from detent.contracts.calibration import CalibrationMethod
from detent.contracts.canonical import canonical_bytes, parse_json, sha256_hex
from detent.contracts.checks import (
    check_count,
    check_exactly_one,
    check_hash16,
    check_hash64,
    check_int,
    check_name,
    check_text,
    check_ts_ms,
    check_unique,
)
from detent.contracts.errors import InvalidField
from detent.contracts.json_codec import from_json, to_json
from detent.contracts.market import INTERVAL_MS_MAX
from detent.contracts.signals import (
    BRACKETS_MAX,
    BracketsSignal,
    DirectionSignal,
    FillSignal,
    HeadSignal,
    MlSignalSnapshot,
    Regime,
    RegimeSignal,
    ToxicitySignal,
    by_head,
)
from detent.contracts.units import BPS_ONE, INT64_MAX

T = TypeVar("T", "Manifest", "GoldenSet")

MANIFEST_FILE = "manifest.json"
MODEL_FILE = "model.onnx"
CALIBRATION_FILE = "calibration.json"
FEATURE_SET_FILE = "feature_set.json"
GOLDEN_FILE = "golden.json"
TRAIN_REPORT_FILE = "train_report.json"
# The files that a manifest lists, in its order: by name.
LISTED_FILES = (CALIBRATION_FILE, FEATURE_SET_FILE, GOLDEN_FILE, MODEL_FILE, TRAIN_REPORT_FILE)

SCHEMA_VERSION = 1
FEATURES_MAX = 65_536
METRICS_MAX = 64
GOLDEN_ROWS_MAX = 1_000
FILE_BYTES_MAX = 256 * 2**20
REGIME_CLASSES = tuple(regime.value for regime in Regime)
# The columns of each head's output, in order; brackets are the artifact's own.
OUTPUT_CLASSES = {
    Head.DIRECTION: ("down", "up"),
    Head.REGIME: REGIME_CLASSES,
    Head.TOXICITY: REGIME_CLASSES,
    Head.FILL: ("not_filled", "filled"),
}
SPACING_CLASSES = ("spacing_multiplier",)
# What a head may answer beside its classes: each entry is one whole choice of columns.
FURTHER_CLASSES: dict[Head, tuple[tuple[tuple[str, ...], ...], ...]] = {
    # Without a spacing it is 1.0 (R148).
    Head.REGIME: ((), (SPACING_CLASSES,)),
    # P(LOW, MID, HIGH) of the regime expected next.
    Head.TOXICITY: ((REGIME_CLASSES,),),
}

_MODEL_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_NUMBER = r"(0|[1-9][0-9]{0,5})"
_MODEL_VERSION = re.compile(rf"v{_NUMBER}\.{_NUMBER}\.{_NUMBER}")
_MODEL_ID = re.compile(rf"({_MODEL_NAME.pattern})_({_MODEL_VERSION.pattern})")
_CREATED_AT = re.compile(
    r"20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z"
)
# Where it comes from, as far as anybody said (R329).
PROVENANCE = ("git_sha", "dataset_id", "notes")
_GIT_SHA = re.compile(r"[0-9a-f]{40}")
MODEL_NAME_CHARS_MAX = 64
MODEL_ID_FORM = "<model_name>_v<major>.<minor>.<patch>, the name in a-z 0-9 _"


def is_model_id(text: str) -> bool:
    """Say whether a text is `<model_name>_v<major>.<minor>.<patch>`."""
    found = _MODEL_ID.fullmatch(text)
    return found is not None and len(found.group(1)) <= MODEL_NAME_CHARS_MAX


class ManifestFile(msgspec.Struct, frozen=True, kw_only=True):
    """Pins the content of one file of the artifact."""

    path: str
    sha256: str
    size_bytes: int

    def __post_init__(self) -> None:
        """Refuse a path that is not the plain name of a file that an artifact has."""
        if self.path not in LISTED_FILES:
            raise InvalidField("path", self.path, f"one of {', '.join(LISTED_FILES)}")
        check_hash64("sha256", self.sha256)
        check_int("size_bytes", self.size_bytes, 1, FILE_BYTES_MAX)


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """States one measured number; the unit is the suffix of its name."""

    name: str
    value: int

    def __post_init__(self) -> None:
        """Refuse a number without a unit."""
        check_name("name", self.name)
        if not self.name.endswith(("_bps", "_ppm", "_x1000", "_bars", "_count")):
            raise InvalidField("name", self.name, "a unit suffix: _bps _ppm _x1000 _bars _count")
        check_int("value", self.value, -INT64_MAX, INT64_MAX)


class TrainingMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """States what the artifact was made from and how it did on rows held out.

    Attributes:
        train_samples: Rows that the model was fitted on.
        calibration_samples: Later rows that the calibrator was fitted on.
        test_samples: Still later rows that neither has seen.
        test_accuracy_bps: Share of test rows on the right side of one half.
        data_hash: First 16 hex of the SHA-256 of the bars used.
        metrics: Further numbers on the test rows, by name.
    """

    train_samples: int
    calibration_samples: int
    test_samples: int
    test_accuracy_bps: int
    data_hash: str
    metrics: tuple[Metric, ...]

    def __post_init__(self) -> None:
        """Refuse an artifact that was never tested."""
        for name in ("train_samples", "calibration_samples", "test_samples"):
            check_int(name, getattr(self, name), 1, INT64_MAX)
        check_int("test_accuracy_bps", self.test_accuracy_bps, 0, BPS_ONE)
        check_hash16("data_hash", self.data_hash)
        check_count("metrics", self.metrics, 0, METRICS_MAX)
        _check_sorted("metrics", [metric.name for metric in self.metrics])


class GraphOutput(msgspec.Struct, frozen=True, kw_only=True):
    """Names one more output of the graph and its columns, in order."""

    name: str
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse an output without a name or without columns."""
        check_name("name", self.name)
        check_count("classes", self.classes, 1, BRACKETS_MAX)
        check_unique("classes", self.classes)


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Describes one immutable artifact and pins each of its files.

    Attributes:
        schema_version: Version of this form: 1.
        model_name: Name of the model's line, `a-z 0-9 _`.
        model_version: `v<major>.<minor>.<patch>`.
        head: The artifact's question.
        architecture_id: For example `logistic`.
        created_at: UTC, `2024-01-15T10:30:00Z`; an input of the build, never a clock.
        framework: What trained it, for example `scikit-learn`.
        export_format: `onnx`.
        bar_interval_ms: Length of the bars that it was trained on.
        horizon_id: Name of the horizon.
        horizon_bars: How far ahead the label looks.
        label_definition: What the model was asked.
        feature_version: SHA-256 of the feature set.
        input_name: Name of the graph's input.
        input_features: Names of the model's inputs, in order.
        output_name: Name of the graph's output.
        output_classes: Names of its columns, in order.
        calibration_method: The calibrator's method.
        calibration_version: SHA-256 of the calibration.
        training_window: First and last bar that training saw.
        data_cutoff_ts_ms: Last instant that training and calibration may have seen.
        model_hash: First 16 hex of the SHA-256 of `model.onnx`.
        training_metadata: What it was made from.
        files: Every other file of the artifact, by name.
        input_shape: Shape of one row of the graph's input, (rows, features) for a window
            such as 64 x 12; empty for a flat row.
        further_outputs: Outputs beside the classes: see `FURTHER_CLASSES`.
        fallback: What the regime head answers when the model cannot; None is neutral.
        git_sha: Commit of the code that built it, 40 hex; None when unknown (R329).
        dataset_id: What it was trained on, by name; None when unnamed (R329).
        notes: What a person wants to remember; None for nothing (R329).
    """

    SCHEMA: ClassVar[str] = "detent.manifest.v1"
    # These came later: an artifact without them hashes as it did before they came.
    JSON_GROWN: ClassVar[tuple[str, ...]] = (
        "input_shape",
        "further_outputs",
        "fallback",
        "git_sha",
        "dataset_id",
        "notes",
    )

    schema_version: int
    model_name: str
    model_version: str
    head: Head
    architecture_id: str
    created_at: str
    framework: str
    export_format: str
    bar_interval_ms: int
    horizon_id: str
    horizon_bars: int
    label_definition: str
    feature_version: str
    input_name: str
    input_features: tuple[str, ...]
    output_name: str
    output_classes: tuple[str, ...]
    calibration_method: CalibrationMethod
    calibration_version: str
    training_window: TrainingWindow
    data_cutoff_ts_ms: int
    model_hash: str
    training_metadata: TrainingMetadata
    files: tuple[ManifestFile, ...]
    input_shape: tuple[int, ...] = ()
    further_outputs: tuple[GraphOutput, ...] = ()
    fallback: RegimeFallback | None = None
    git_sha: str | None = None
    dataset_id: str | None = None
    notes: str | None = None

    def __post_init__(self) -> None:
        """Refuse a manifest that leaves anything open or contradicts itself."""
        check_int("schema_version", self.schema_version, SCHEMA_VERSION, SCHEMA_VERSION)
        check_release(self.model_name, self.model_version)
        check_name("architecture_id", self.architecture_id)
        check_created_at(self.created_at)
        check_name("framework", self.framework)
        if self.export_format != "onnx":
            raise InvalidField("export_format", self.export_format, "onnx")
        check_int("bar_interval_ms", self.bar_interval_ms, 1, INTERVAL_MS_MAX)
        check_name("horizon_id", self.horizon_id)
        check_int("horizon_bars", self.horizon_bars, 1, HORIZON_BARS_MAX)
        check_text("label_definition", self.label_definition)
        check_hash64("feature_version", self.feature_version)
        self._check_graph()
        self._check_outputs()
        check_provenance({name: getattr(self, name) for name in PROVENANCE})
        check_fallback("fallback", self.fallback, self.head)
        check_hash64("calibration_version", self.calibration_version)
        check_ts_ms("data_cutoff_ts_ms", self.data_cutoff_ts_ms)
        if self.data_cutoff_ts_ms < self.training_window.end_ts_ms:
            expected = f"at or after the end of training {self.training_window.end_ts_ms}"
            raise InvalidField("data_cutoff_ts_ms", self.data_cutoff_ts_ms, expected)
        check_hash16("model_hash", self.model_hash)
        found = tuple(file.path for file in self.files)
        if found != LISTED_FILES:
            raise InvalidField("files", found, f"exactly {', '.join(LISTED_FILES)}")
        if self.file(MODEL_FILE).sha256[:16] != self.model_hash:
            raise InvalidField("model_hash", self.model_hash, self.file(MODEL_FILE).sha256[:16])

    def _check_graph(self) -> None:
        check_name("input_name", self.input_name)
        check_count("input_features", self.input_features, 1, FEATURES_MAX)
        check_unique("input_features", self.input_features)
        for name in self.input_features:
            check_name("input_features", name)
        if not self.input_shape:
            return
        count = len(self.input_features)
        shape = self.input_shape
        if len(shape) != 2 or min(shape) < 1 or math.prod(shape) != count:  # noqa: PLR2004  Rank.
            raise InvalidField("input_shape", shape, f"(rows, features) of {count} values")

    def _check_outputs(self) -> None:
        check_name("output_name", self.output_name)
        check_count("output_classes", self.output_classes, 2, BRACKETS_MAX)
        check_unique("output_classes", self.output_classes)
        for name in self.output_classes:
            check_name("output_classes", name)
        expected = OUTPUT_CLASSES.get(self.head)
        if expected is None and self.head is not Head.BRACKETS:
            raise InvalidField("head", self.head, f"one of {', '.join(Head)}")
        if expected is not None and self.output_classes != expected:
            raise InvalidField("output_classes", self.output_classes, str(expected))
        further = tuple(output.classes for output in self.further_outputs)
        choices = FURTHER_CLASSES.get(self.head, ((),))
        if further not in choices:
            allowed = " or ".join(str(choice) for choice in choices)
            raise InvalidField("further_outputs", further, f"outputs with the columns {allowed}")
        names = [self.output_name, *(output.name for output in self.further_outputs)]
        check_unique("further_outputs", names)

    def file(self, path: str) -> ManifestFile:
        """Give the entry of a file that every artifact has."""
        return next(file for file in self.files if file.path == path)

    @property
    def model_id(self) -> str:
        """Give the artifact's name, which is its folder's too."""
        return f"{self.model_name}_{self.model_version}"

    @property
    def model_version_hash(self) -> str:
        """Hash the manifest, in canonical form, to 64 hex; it covers every file."""
        return sha256_hex(manifest_bytes(self))


class GoldenRow(msgspec.Struct, frozen=True, kw_only=True):
    """Holds one model input and the integers that it must give.

    Attributes:
        values: Little-endian float32 in the order of the feature set.
        direction: The expected answer of the direction head; likewise the four others.
    """

    JSON_GROWN: ClassVar[tuple[str, ...]] = MlSignalSnapshot.JSON_FLAT

    values: bytes
    direction: DirectionSignal | None = None
    regime: RegimeSignal | None = None
    toxicity: ToxicitySignal | None = None
    fill: FillSignal | None = None
    brackets: BracketsSignal | None = None

    def __post_init__(self) -> None:
        """Refuse a row that expects nothing, or answers of several heads."""
        check_exactly_one("answer", **{name: getattr(self, name) for name in self.JSON_GROWN})

    @property
    def head(self) -> Head:
        """Name the head whose answer is expected."""
        return Head(next(iter(by_head(self.answer))))

    @property
    def answer(self) -> HeadSignal:
        """Give the expected answer."""
        found: HeadSignal = next(
            answer for name in self.JSON_GROWN if (answer := getattr(self, name)) is not None
        )
        return found


class GoldenSet(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the rows that a session must reproduce before it serves.

    Attributes:
        rows: Inputs with the answers of one head.
        baseline: The input that attributions are measured from, of the rows' width; None
            when the artifact has none.
    """

    SCHEMA: ClassVar[str] = "detent.golden.v1"
    JSON_GROWN: ClassVar[tuple[str, ...]] = ("baseline",)

    rows: tuple[GoldenRow, ...]
    baseline: bytes | None = None

    def __post_init__(self) -> None:
        """Refuse a set that proves nothing, rows of different widths or of several heads."""
        check_count("rows", self.rows, 1, GOLDEN_ROWS_MAX)
        width = len(self.rows[0].values)
        inputs = {f"rows[{index}].values": row.values for index, row in enumerate(self.rows)}
        if self.baseline is not None:
            inputs["baseline"] = self.baseline
        for field, values in inputs.items():
            size = len(values)
            if size == 0 or size % 4 != 0 or size != width:
                raise InvalidField(field, f"{size} bytes", f"{width} bytes")
        for index, row in enumerate(self.rows):
            if row.head is not self.rows[0].head:
                raise InvalidField(f"rows[{index}]", row.head, str(self.rows[0].head))


def check_release(model_name: str, model_version: str) -> None:
    """Refuse the name of a model's line, or a version, that no artifact could be called by.

    Raises:
        InvalidField: Names the first of the two that is malformed.
    """
    if not is_model_id(f"{model_name}_v0.0.0"):
        raise InvalidField("model_name", model_name, "the name in " + MODEL_ID_FORM)
    if not _MODEL_VERSION.fullmatch(model_version):
        raise InvalidField("model_version", model_version, "v<major>.<minor>.<patch>")


def check_created_at(created_at: str) -> None:
    """Refuse what is no instant of a calendar in UTC.

    Raises:
        InvalidField: It has another form, or a month, day or hour that there is not.
    """
    if not _CREATED_AT.fullmatch(created_at):
        raise InvalidField("created_at", created_at, "UTC, YYYY-MM-DDTHH:MM:SSZ")


def check_provenance(fields: Mapping[str, Any]) -> None:
    """Refuse a commit, data set or note that is none; what is absent is unknown.

    Raises:
        InvalidField: Names the first of `PROVENANCE` that is malformed.
    """
    git_sha, dataset_id, notes = (fields.get(name) for name in PROVENANCE)
    if git_sha is not None and not (isinstance(git_sha, str) and _GIT_SHA.fullmatch(git_sha)):
        raise InvalidField("git_sha", git_sha, "40 lowercase hex characters")
    if dataset_id is not None:
        check_name("dataset_id", dataset_id)
    if notes is not None:
        check_text("notes", notes)


def manifest_bytes(manifest: Manifest) -> bytes:
    """Give the content of `manifest.json`; any other byte string is not this manifest."""
    return canonical_bytes(Manifest.SCHEMA, to_json(manifest))


def golden_bytes(golden: GoldenSet) -> bytes:
    """Give the content of `golden.json`."""
    return canonical_bytes(GoldenSet.SCHEMA, to_json(golden))


def parse_manifest(text: bytes) -> Manifest:
    """Read `manifest.json`.

    Raises:
        InvalidField: A field is missing, unknown or out of range, or the text is not in
            canonical form and so has another hash than its content.
    """
    manifest = _parse("manifest", Manifest, text)
    if text != manifest_bytes(manifest):
        expected = f"canonical JSON, with SHA-256 {manifest.model_version_hash}"
        raise InvalidField("manifest", sha256_hex(text), expected)
    return manifest


def parse_golden(text: bytes) -> GoldenSet:
    """Read `golden.json`.

    Raises:
        InvalidField: A field is missing, unknown or out of range.
    """
    return _parse("golden", GoldenSet, text)


def binding_of(manifest: Manifest) -> ModelBinding:
    """Derive the one model binding that a manifest allows."""
    return ModelBinding(
        signal_source=SignalSource.MODEL,
        head=manifest.head,
        model_id=manifest.model_id,
        model_version_hash=manifest.model_version_hash,
        feature_version=manifest.feature_version,
        label_definition=manifest.label_definition,
        horizon_id=manifest.horizon_id,
        horizon_bars=manifest.horizon_bars,
        calibration_version=manifest.calibration_version,
        training_window=manifest.training_window,
        data_cutoff_ts_ms=manifest.data_cutoff_ts_ms,
        architecture_id=manifest.architecture_id,
        regime_fallback=manifest.fallback,
    )


def _parse(what: str, kind: type[T], text: bytes) -> T:
    fields = parse_json(what, text)
    if fields.get("schema") != kind.SCHEMA:
        raise InvalidField("schema", fields.get("schema"), kind.SCHEMA)
    return from_json(kind, fields)


def _check_sorted(field: str, names: list[str]) -> None:
    check_unique(field, names)
    if names != sorted(names):
        raise InvalidField(field, names, "in the order of their names")
