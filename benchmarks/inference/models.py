"""Train two small models on drawn rows and write each as an artifact.

Fifteen features, as seed 003 has them: a logistic regression, where the transport is everything,
and a forest of a hundred trees, where the graph is.
"""

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from benchmarks.inference.graph import INPUT_NAME, OUTPUT_NAME, SEED, WIDTH, drawn_rows
from detent.adapters.artifact_store import list_files, write_artifact
from detent.adapters.onnx_session import GraphContract, open_session
from detent.contracts.binding import Head, TrainingWindow
from detent.contracts.calibration import (
    CalibrationMethod,
    CalibrationSpec,
    calibration_bytes,
)
from detent.contracts.canonical import sha256_hex
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
from detent.contracts.signals import DirectionSignal
from detent.core.features.shipped_sets import GRINDER_FEATURE_ORDER_V1
from detent.core.signals.calibration import Calibrator

KINDS = ("logistic", "forest")
TRAINING_ROWS = 4_000
TREES = 100
TREE_DEPTH_MAX = 6
GOLDEN_ROWS = 32
START_TS_MS = 1_600_000_000_000
END_TS_MS = 1_700_000_000_000


def build_bench_artifact(folder: Path, kind: str) -> Path:
    """Train one of `KINDS`, export it, and write it as an artifact."""
    model = exported_model(kind)
    calibration = CalibrationSpec(
        method=CalibrationMethod.PLATT, a=Decimal("-1.05"), b=Decimal("0.02")
    )
    feature_set = GRINDER_FEATURE_ORDER_V1
    contents = {
        MODEL_FILE: model,
        CALIBRATION_FILE: calibration_bytes(calibration),
        FEATURE_SET_FILE: feature_set.canonical_json,
        GOLDEN_FILE: golden_bytes(_golden(model, Calibrator.of(calibration))),
        TRAIN_REPORT_FILE: b"{}",
    }
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        model_name=f"bench_{kind}",
        model_version="v1.0.0",
        head=Head.DIRECTION,
        architecture_id=kind,
        created_at="2026-01-01T00:00:00Z",
        framework="scikit-learn",
        export_format="onnx",
        bar_interval_ms=feature_set.engine.bar_interval_ms,
        horizon_id="h4",
        horizon_bars=4,
        label_definition="drawn for a benchmark",
        feature_version=feature_set.feature_version,
        input_name=INPUT_NAME,
        input_features=feature_set.input_names,
        output_name=OUTPUT_NAME,
        output_classes=OUTPUT_CLASSES[Head.DIRECTION],
        calibration_method=calibration.method,
        calibration_version=calibration.calibration_version,
        training_window=TrainingWindow(start_ts_ms=START_TS_MS, end_ts_ms=END_TS_MS),
        data_cutoff_ts_ms=END_TS_MS,
        model_hash=sha256_hex(model)[:16],
        training_metadata=TrainingMetadata(
            train_samples=TRAINING_ROWS,
            calibration_samples=1,
            test_samples=1,
            test_accuracy_bps=0,
            data_hash="0" * 16,
            metrics=(),
        ),
        files=list_files(contents),
    )
    return write_artifact(folder, manifest, contents)


def exported_model(kind: str) -> bytes:
    """Train one of `KINDS` and give its graph."""
    return _export(_fitted(kind))


def _fitted(kind: str) -> Any:
    rows = drawn_rows(TRAINING_ROWS).astype(np.float64)
    weights = np.linspace(1.0, -1.0, WIDTH)
    noise = np.random.default_rng(SEED + 1).normal(0.0, 1.0, TRAINING_ROWS)
    labels = (rows @ weights + noise > 0).astype(np.int64)
    if kind == "logistic":
        return LogisticRegression(max_iter=1_000, random_state=SEED).fit(rows, labels)
    forest = RandomForestClassifier(
        n_estimators=TREES, max_depth=TREE_DEPTH_MAX, random_state=SEED, n_jobs=1
    )
    return forest.fit(rows, labels)


def _export(model: Any) -> bytes:
    exported = to_onnx(
        model,
        initial_types=[(INPUT_NAME, FloatTensorType([None, WIDTH]))],
        options={id(model): {"zipmap": False}},
        target_opset={"": 17, "ai.onnx.ml": 3},
        name="bench",
    )
    kept = [output for output in exported.graph.output if output.name == OUTPUT_NAME]
    del exported.graph.output[:]
    exported.graph.output.extend(kept)
    return bytes(exported.SerializeToString(deterministic=True))


def _golden(model: bytes, calibrator: Calibrator) -> GoldenSet:
    classes = len(OUTPUT_CLASSES[Head.DIRECTION])
    graph = GraphContract(
        input_name=INPUT_NAME, width=WIDTH, output_name=OUTPUT_NAME, classes=classes
    )
    session = open_session(model, graph, execution_provider="cpu")
    inputs = [row.tobytes() for row in drawn_rows(GOLDEN_ROWS, seed=SEED + 2)]
    rows = []
    for values, p_raw in zip(inputs, session.probabilities(inputs)[:, -1].tolist(), strict=True):
        answer = calibrator.direction(p_raw)
        assert isinstance(answer, DirectionSignal)
        rows.append(GoldenRow(values=values, direction=answer))
    return GoldenSet(rows=tuple(rows))
