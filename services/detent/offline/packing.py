"""Pack a fitted model of any head into an artifact, and let it prove itself before anyone sees it.

Nothing here reads a clock or draws a number: the same model and facts give the same bytes.
"""

from importlib.metadata import version as library_version
from pathlib import Path

import msgspec
import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from detent.adapters.artifact_store import list_files, read_artifact, write_artifact
from detent.adapters.onnx_session import GraphContract, open_session
from detent.adapters.serving import open_serving
from detent.contracts.binding import Head, TrainingWindow
from detent.contracts.calibration import Calibration, calibration_bytes
from detent.contracts.canonical import sha256_hex
from detent.contracts.errors import ArtifactInvalid
from detent.contracts.manifest import (
    CALIBRATION_FILE,
    FEATURE_SET_FILE,
    GOLDEN_FILE,
    LISTED_FILES,
    MODEL_FILE,
    OUTPUT_CLASSES,
    PROVENANCE,
    SCHEMA_VERSION,
    TRAIN_REPORT_FILE,
    GoldenRow,
    GoldenSet,
    GraphOutput,
    Manifest,
    Metric,
    TrainingMetadata,
    check_created_at,
    check_provenance,
    check_release,
    golden_bytes,
)
from detent.contracts.reasons import Reason
from detent.contracts.signals import by_head
from detent.contracts.units import BPS_ONE
from detent.core.artifacts.version_step import check_successor
from detent.core.features.feature_set import FeatureSet
from detent.core.signals.heads import head_map
from detent.offline.samples import Progress
from detent.offline.train_report import ClassCount, ReportBin, TrainReport, train_report_bytes

GOLDEN_ROWS = 32
INPUT_NAME = "input"


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """States what a person says of an artifact; see `Manifest`.

    It is refused here as it would be there, because a model is fitted in between.
    """

    model_name: str
    model_version: str
    created_at: str
    horizon_bars: int
    horizon_id: str
    git_sha: str | None = None
    dataset_id: str | None = None
    notes: str | None = None

    def __post_init__(self) -> None:
        """Refuse what no manifest could say."""
        check_release(self.model_name, self.model_version)
        check_created_at(self.created_at)
        check_provenance({name: getattr(self, name) for name in PROVENANCE})

    @property
    def model_id(self) -> str:
        """Give the artifact's name."""
        return f"{self.model_name}_{self.model_version}"


class DataFacts(msgspec.Struct, frozen=True, kw_only=True):
    """States what a model was made from.

    Attributes:
        head: The question that it answers.
        feature_set: What it is given.
        label_definition: What the label says.
        data_hash: SHA-256 of the bars or orders, 64 hex.
        symbols: Instruments.
        bar_count: Bars of all symbols.
        gap_count: Places where bars are missing.
        start_ts_ms: Close of the first bar that training saw.
        train_end_ts_ms: When the last label of the training rows was known.
        cutoff_ts_ms: The same of the calibration rows.
        class_counts: Rows by part and class: train, calibration, test, in this order.
    """

    head: Head
    feature_set: FeatureSet
    label_definition: str
    data_hash: str
    symbols: tuple[str, ...]
    bar_count: int
    gap_count: int
    start_ts_ms: int
    train_end_ts_ms: int
    cutoff_ts_ms: int
    class_counts: tuple[ClassCount, ...]

    def rows_of(self, part: str) -> int:
        """Count the rows of a part."""
        return sum(entry.count for entry in self.class_counts if entry.part == part)


class PackedModel(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Holds a fitted model and how it did.

    Attributes:
        graph: Content of `model.onnx`.
        architecture_id: Its kind.
        framework: What fitted it.
        opset: Version of the operators.
        seed: Seed of the fit.
        train_accuracy: On the rows that it was fitted on.
        calibration: The calibrator.
        accuracy_bps: On test rows, after calibration.
        metrics: Scores on test rows, by name.
        golden_inputs: Shape (n, width), float32: test rows that it must answer for ever.
        output_name: Name of the first output.
        output_classes: Its columns, where they are the artifact's own; None for the head's.
        further_outputs: Outputs beside it.
        input_shape: Shape of a row where it is a window.
        reliability_raw: Curve before calibration.
        reliability: Curve after it.
    """

    graph: bytes
    architecture_id: str
    framework: str
    opset: int
    seed: int
    train_accuracy: float
    calibration: Calibration
    accuracy_bps: int
    metrics: tuple[Metric, ...]
    golden_inputs: NDArray[np.float32]
    output_name: str = "probabilities"
    output_classes: tuple[str, ...] | None = None
    further_outputs: tuple[GraphOutput, ...] = ()
    input_shape: tuple[int, ...] = ()
    reliability_raw: tuple[ReportBin, ...] = ()
    reliability: tuple[ReportBin, ...] = ()


def pack_artifact(
    identity: Identity,
    facts: DataFacts,
    model: PackedModel,
    *,
    out_dir: Path,
    progress: Progress,
    predecessor: Manifest | None = None,
) -> Path:
    """Write an artifact, read it back, and let it prove itself as it will have to when served.

    Args:
        identity: What a person says of it.
        facts: What it was made from.
        model: What was fitted.
        out_dir: Folder of artifacts.
        progress: Told of the stages `write` and `verify`.
        predecessor: What the version is measured against, if anything.

    Returns:
        The artifact's directory.

    Raises:
        InvalidField: A field is malformed, or the version says less than what changed.
        ArtifactInvalid: The model gives no answer on a golden row, or the directory exists.
    """
    progress("write", 0, 1)
    contents = {
        MODEL_FILE: model.graph,
        CALIBRATION_FILE: calibration_bytes(model.calibration),
        FEATURE_SET_FILE: facts.feature_set.canonical_json,
        TRAIN_REPORT_FILE: train_report_bytes(_report(identity, facts, model)),
    }
    # The golden rows are asked through the manifest's own map, so they come last.
    draft = _manifest(identity, facts, model, contents | {GOLDEN_FILE: b"{}"})
    contents[GOLDEN_FILE] = golden_bytes(_golden(draft, model))
    assert set(contents) == set(LISTED_FILES)
    manifest = structs.replace(draft, files=list_files(contents))
    if predecessor is not None:
        check_successor(predecessor, manifest)
    path = write_artifact(out_dir, manifest, contents)
    progress("write", 1, 1)
    progress("verify", 0, 1)
    open_serving(read_artifact(path, model_version_hash=manifest.model_version_hash))
    progress("verify", 1, 1)
    return path


def golden_places(count: int) -> NDArray[np.int64]:
    """Choose rows at even distances."""
    return np.linspace(0, count - 1, GOLDEN_ROWS).round().astype(np.int64)


def _golden(manifest: Manifest, model: PackedModel) -> GoldenSet:
    session = open_session(model.graph, GraphContract.of(manifest), execution_provider="cpu")
    head = head_map(manifest, model.calibration)
    rows = []
    for values in model.golden_inputs:
        outputs = [found[0].tolist() for found in session.outputs(values[np.newaxis])]
        answer = head.answer(outputs)
        if isinstance(answer, Reason):
            found = f"golden row: found {outputs}, expected an answer"
            raise ArtifactInvalid(found, gate_reason=answer)
        rows.append(GoldenRow(values=values.astype("<f4").tobytes(), **by_head(answer)))
    return GoldenSet(rows=tuple(rows))


def _report(identity: Identity, facts: DataFacts, model: PackedModel) -> TrainReport:
    return TrainReport(
        model_id=identity.model_id,
        created_at=identity.created_at,
        dataset_id=identity.dataset_id or facts.data_hash,
        symbols=facts.symbols,
        bar_count=facts.bar_count,
        gap_count=facts.gap_count,
        n_samples=sum(entry.count for entry in facts.class_counts),
        n_features=len(facts.feature_set.input_names),
        seed=model.seed,
        train_accuracy_bps=round(model.train_accuracy * BPS_ONE),
        class_distribution=facts.class_counts,
        metrics=model.metrics,
        reliability_raw=model.reliability_raw,
        reliability=model.reliability,
        model_sha256=sha256_hex(model.graph),
        onnx_opset_version=model.opset,
        sklearn_version=library_version("scikit-learn"),
        skl2onnx_version=library_version("skl2onnx"),
    )


def _manifest(
    identity: Identity, facts: DataFacts, model: PackedModel, contents: dict[str, bytes]
) -> Manifest:
    return Manifest(
        schema_version=SCHEMA_VERSION,
        model_name=identity.model_name,
        model_version=identity.model_version,
        head=facts.head,
        architecture_id=model.architecture_id,
        created_at=identity.created_at,
        framework=model.framework,
        export_format="onnx",
        bar_interval_ms=facts.feature_set.engine.bar_interval_ms,
        horizon_id=identity.horizon_id,
        horizon_bars=identity.horizon_bars,
        label_definition=facts.label_definition,
        feature_version=facts.feature_set.feature_version,
        input_name=INPUT_NAME,
        input_features=facts.feature_set.input_names,
        output_name=model.output_name,
        output_classes=model.output_classes or OUTPUT_CLASSES[facts.head],
        calibration_method=model.calibration.method,
        calibration_version=model.calibration.calibration_version,
        training_window=TrainingWindow(
            start_ts_ms=facts.start_ts_ms, end_ts_ms=facts.train_end_ts_ms
        ),
        data_cutoff_ts_ms=facts.cutoff_ts_ms,
        model_hash=sha256_hex(model.graph)[:16],
        training_metadata=TrainingMetadata(
            train_samples=facts.rows_of("train"),
            calibration_samples=facts.rows_of("calibration"),
            test_samples=facts.rows_of("test"),
            test_accuracy_bps=model.accuracy_bps,
            data_hash=facts.data_hash[:16],
            metrics=model.metrics,
        ),
        files=list_files(contents),
        input_shape=model.input_shape,
        further_outputs=model.further_outputs,
        git_sha=identity.git_sha,
        dataset_id=identity.dataset_id,
        notes=identity.notes,
    )
