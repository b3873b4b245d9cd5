"""Build an artifact: fit, calibrate on later rows, measure on still later ones, pin it all.

Nothing here reads a clock or draws a number: the same bars and the same arguments give the
same bytes.
"""

from importlib.metadata import version as library_version
from pathlib import Path

import msgspec
import numpy as np

from detent.adapters.artifact_store import list_files, read_artifact, write_artifact
from detent.adapters.graph_audit import audit_graph
from detent.adapters.onnx_session import GraphContract, OnnxSession, open_session
from detent.adapters.serving import open_serving
from detent.contracts.binding import Head, TrainingWindow
from detent.contracts.calibration import Calibration, CalibrationMethod, calibration_bytes
from detent.contracts.canonical import sha256_hex
from detent.contracts.errors import ArtifactInvalid
from detent.contracts.manifest import (
    CALIBRATION_FILE,
    FEATURE_SET_FILE,
    GOLDEN_FILE,
    MODEL_FILE,
    OUTPUT_CLASSES,
    SCHEMA_VERSION,
    TRAIN_REPORT_FILE,
    GoldenRow,
    GoldenSet,
    Manifest,
    TrainingMetadata,
    golden_bytes,
)
from detent.contracts.reasons import Reason
from detent.contracts.units import BPS_ONE
from detent.core.artifacts.version_step import check_successor
from detent.core.evaluation.scores import Floats
from detent.core.features.feature_set import FeatureSet
from detent.core.signals.calibration import Calibrator
from detent.core.signals.calibration_choice import BINARY_FITS, choose_calibration
from detent.offline.bars import BarTable
from detent.offline.evaluating import Evaluation, evaluate
from detent.offline.labels import direction_label_definition
from detent.offline.samples import Parts, Progress, Samples, direction_samples, split_by_time
from detent.offline.train_report import ClassCount, TrainReport, train_report_bytes
from detent.offline.training import (
    ARCHITECTURE_ID,
    FRAMEWORK,
    INPUT_NAME,
    ONNX_OPSET,
    OUTPUT_NAME,
    SEED,
    TrainedModel,
    train_logistic,
)

GOLDEN_ROWS = 32
STAGES = ("features", "train", "calibrate", "evaluate", "write", "verify")


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """States what a person decides about an artifact.

    Attributes:
        model_name: Name of the model's line, `a-z 0-9 _`.
        model_version: `v<major>.<minor>.<patch>`.
        horizon_bars: How far ahead the label looks.
        horizon_id: Name of the horizon; the policy config names the same.
        created_at: UTC, `2024-01-15T10:30:00Z`.
        feature_set: What the model is given.
        calibration_method: The calibrator; None to choose it on rows held out.
    """

    model_name: str
    model_version: str
    horizon_bars: int
    horizon_id: str
    created_at: str
    feature_set: FeatureSet
    calibration_method: CalibrationMethod | None = CalibrationMethod.PLATT


class _Fitted(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what the fits gave, on its way into the manifest."""

    parts: Parts
    model: TrainedModel
    calibration: Calibration
    evaluation: Evaluation
    golden: GoldenSet


def build_direction_artifact(
    table: BarTable,
    recipe: Recipe,
    *,
    out_dir: Path,
    progress: Progress,
    predecessor: Manifest | None = None,
) -> Path:
    """Build, write and verify a direction artifact.

    Args:
        table: Bars of one or many symbols.
        recipe: What a person decided.
        out_dir: Folder of artifacts.
        progress: Told of (stage, done, in all); the stages are `STAGES`.
        predecessor: What the version is measured against, if anything.

    Returns:
        The artifact's directory.

    Raises:
        DataInvalid: The bars do not give enough rows.
        InvalidField: The version says less than what changed since the predecessor.
        ArtifactInvalid: The model cannot be calibrated, a field of the recipe is not what
            it should be, or the artifact's directory exists.
    """
    samples = direction_samples(
        table, recipe.feature_set, horizon_bars=recipe.horizon_bars, progress=progress
    )
    fitted = _fit(samples, recipe, symbol_count=len(table.bars), progress=progress)
    progress("write", 0, 1)
    model_id = f"{recipe.model_name}_{recipe.model_version}"
    report = _report(table, recipe, fitted, model_id=model_id)
    contents = {
        MODEL_FILE: fitted.model.graph,
        CALIBRATION_FILE: calibration_bytes(fitted.calibration),
        FEATURE_SET_FILE: recipe.feature_set.canonical_json,
        GOLDEN_FILE: golden_bytes(fitted.golden),
        TRAIN_REPORT_FILE: train_report_bytes(report),
    }
    manifest = _manifest(table, recipe, fitted, contents)
    if predecessor is not None:
        check_successor(predecessor, manifest)
    path = write_artifact(out_dir, manifest, contents)
    progress("write", 1, 1)
    # What was written is read back and must prove itself, as it will have to when served.
    progress("verify", 0, 1)
    open_serving(read_artifact(path, model_version_hash=manifest.model_version_hash))
    progress("verify", 1, 1)
    return path


def _fit(samples: Samples, recipe: Recipe, *, symbol_count: int, progress: Progress) -> _Fitted:
    parts = split_by_time(samples)
    progress("train", 0, 1)
    model = train_logistic(parts.train)
    progress("train", 1, 1)
    # What serving would refuse is never written.
    audit_graph(model.graph)
    # From here on only the exported graph speaks: what is measured is what will be served.
    graph = GraphContract(
        input_name=INPUT_NAME,
        width=len(recipe.feature_set.input_names),
        output_name=OUTPUT_NAME,
        classes=len(OUTPUT_CLASSES[Head.DIRECTION]),
    )
    session = open_session(model.graph, graph, execution_provider="cpu")
    progress("calibrate", 0, 1)
    calibration = _calibration(session, parts.calibration, recipe, symbol_count=symbol_count)
    calibrator = Calibrator.of(calibration)
    progress("calibrate", 1, 1)
    progress("evaluate", 0, 1)
    p_raw = _p_raw(session, parts.test)
    evaluation = evaluate(
        p_raw,
        np.array([calibrator.probability(float(p)) for p in p_raw]),
        parts.test.labels,
        base_share=float(np.mean(parts.train.labels)),
    )
    progress("evaluate", 1, 1)
    return _Fitted(
        parts=parts,
        model=model,
        calibration=calibration,
        evaluation=evaluation,
        golden=_golden(session, calibrator, parts.test),
    )


def _calibration(
    session: OnnxSession, samples: Samples, recipe: Recipe, *, symbol_count: int
) -> Calibration:
    p_raw, method = _p_raw(session, samples), recipe.calibration_method
    if method is not None:
        return BINARY_FITS[method](p_raw, samples.labels)
    # The label of a row looks so many bars ahead, and there is a row per symbol and bar.
    purge_rows = recipe.horizon_bars * symbol_count
    return choose_calibration(p_raw, samples.labels, purge_rows=purge_rows).spec


def _p_raw(session: OnnxSession, samples: Samples) -> Floats:
    return session.probabilities(samples.inputs())[:, -1].astype(np.float64)


def _golden(session: OnnxSession, calibrator: Calibrator, samples: Samples) -> GoldenSet:
    """Take test rows at even distances, and what they give."""
    chosen = np.linspace(0, len(samples) - 1, GOLDEN_ROWS).round().astype(np.int64)
    inputs = [samples.values[index].tobytes() for index in chosen]
    rows = []
    for values, p_raw in zip(inputs, session.probabilities(inputs)[:, -1].tolist(), strict=True):
        direction = calibrator.direction(p_raw)
        if isinstance(direction, Reason):
            raise ArtifactInvalid(
                f"golden row: found {p_raw}, expected a probability", gate_reason=direction
            )
        rows.append(GoldenRow(values=values, direction=direction))
    return GoldenSet(rows=tuple(rows))


def _report(table: BarTable, recipe: Recipe, fitted: _Fitted, *, model_id: str) -> TrainReport:
    parts = {name: getattr(fitted.parts, name) for name in Parts.__struct_fields__}
    down, up = OUTPUT_CLASSES[Head.DIRECTION]
    return TrainReport(
        model_id=model_id,
        created_at=recipe.created_at,
        dataset_id=table.data_hash,
        symbols=tuple(sorted(table.bars)),
        bar_count=table.bar_count,
        gap_count=len(table.gaps),
        n_samples=sum(len(part) for part in parts.values()),
        n_features=len(recipe.feature_set.input_names),
        seed=SEED,
        train_accuracy_bps=round(fitted.model.train_accuracy * BPS_ONE),
        class_distribution=tuple(
            ClassCount(part=name, output_class=output_class, count=int(count))
            for name, part in parts.items()
            for output_class, count in (
                (down, len(part) - part.labels.sum()),
                (up, part.labels.sum()),
            )
        ),
        metrics=fitted.evaluation.metrics,
        reliability_raw=fitted.evaluation.reliability_raw,
        reliability=fitted.evaluation.reliability,
        model_sha256=sha256_hex(fitted.model.graph),
        onnx_opset_version=ONNX_OPSET,
        sklearn_version=library_version("scikit-learn"),
        skl2onnx_version=library_version("skl2onnx"),
    )


def _manifest(
    table: BarTable, recipe: Recipe, fitted: _Fitted, contents: dict[str, bytes]
) -> Manifest:
    parts = fitted.parts
    return Manifest(
        schema_version=SCHEMA_VERSION,
        model_name=recipe.model_name,
        model_version=recipe.model_version,
        head=Head.DIRECTION,
        architecture_id=ARCHITECTURE_ID,
        created_at=recipe.created_at,
        framework=FRAMEWORK,
        export_format="onnx",
        bar_interval_ms=table.interval_ms,
        horizon_id=recipe.horizon_id,
        horizon_bars=recipe.horizon_bars,
        label_definition=direction_label_definition(
            horizon_bars=recipe.horizon_bars, bar_interval_ms=table.interval_ms
        ),
        feature_version=recipe.feature_set.feature_version,
        input_name=INPUT_NAME,
        input_features=recipe.feature_set.input_names,
        output_name=OUTPUT_NAME,
        output_classes=OUTPUT_CLASSES[Head.DIRECTION],
        calibration_method=fitted.calibration.method,
        calibration_version=fitted.calibration.calibration_version,
        training_window=TrainingWindow(
            start_ts_ms=min(bars[0].ts_ms for bars in table.bars.values()),
            end_ts_ms=int(parts.train.label_ts_ms.max()),
        ),
        data_cutoff_ts_ms=int(parts.calibration.label_ts_ms.max()),
        model_hash=sha256_hex(contents[MODEL_FILE])[:16],
        training_metadata=TrainingMetadata(
            train_samples=len(parts.train),
            calibration_samples=len(parts.calibration),
            test_samples=len(parts.test),
            test_accuracy_bps=fitted.evaluation.accuracy_bps,
            data_hash=table.data_hash[:16],
            metrics=fitted.evaluation.metrics,
        ),
        files=list_files(contents),
    )
