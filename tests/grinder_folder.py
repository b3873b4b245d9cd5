"""Makes a folder as GRINDER's pipeline leaves it: a regime forest over its fifteen features.

Source: seed 003, sections 12.4.2, M8-02a and M8-03b-1; FORMULAS 1.7; row R148.
"""

import functools
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import RandomForestClassifier

from detent.contracts.calibration import TemperatureSpec
from detent.contracts.canonical import sha256_hex
from detent.core.features.shipped_sets import GRINDER_FEATURE_ORDER_V1

# Seed 003, M8-02b; written out, because the test is about their order.
FEATURE_ORDER = [
    *("price_mid", "price_bid", "price_ask", "spread_bps", "volume_24h", "volume_1h"),
    *("volatility_1h_bps", "volatility_24h_bps", "position_size", "position_notional"),
    *("position_pnl_bps", "grid_levels_active", "grid_utilization_pct", "trend_strength"),
    "momentum_1h",
]
CLASSES = ["LOW", "MID", "HIGH"]
SEED = 42
ROWS = 900
FIT_ROWS = 600
GOLDEN_ROWS = 12
CREATED_AT = "2026-02-15T00:00:00Z"
GIT_SHA = "0123456789abcdef" * 2 + "01234567"
TEMPERATURE = Decimal("1.35")
Floats = NDArray[np.float32]


class Forest(msgspec.Struct, frozen=True):
    """Holds a fitted forest, its graph, and rows that it has not seen with their regimes."""

    model: Any
    graph: bytes
    unseen: Floats
    regimes: NDArray[np.int64]


@functools.cache
def forest() -> Forest:
    """Fit the regimes that volatility and trend make, with noise."""
    random = np.random.default_rng(SEED)
    rows = random.normal(0.0, 1.0, (ROWS, len(FEATURE_ORDER))).astype(np.float32)
    rows[:, :3] += 100.0
    volatility, trend = (rows[:, FEATURE_ORDER.index(n)] for n in FEATURE_ORDER[6:14:7])
    score = volatility + 0.5 * trend + random.normal(0.0, 0.5, ROWS)
    regimes = np.digitize(score, [-0.6, 0.6]).astype(np.int64)
    model = RandomForestClassifier(n_estimators=20, max_depth=5, random_state=SEED, n_jobs=1)
    model.fit(rows[:FIT_ROWS], regimes[:FIT_ROWS])
    return Forest(model, _graph_of(model), rows[FIT_ROWS:], regimes[FIT_ROWS:])


def _graph_of(model: Any) -> bytes:
    """Export it under the names of M8-03b-1, with the label that the converter adds."""
    exported = to_onnx(
        model,
        initial_types=[("input", FloatTensorType([None, len(FEATURE_ORDER)]))],
        options={id(model): {"zipmap": False}},
        target_opset={"": 17, "ai.onnx.ml": 3},
        name="regime",
    )
    for node in exported.graph.node:
        named = ["regime_probs" if name == "probabilities" else name for name in node.output]
        node.output[:] = named
    for output in exported.graph.output:
        output.name = "regime_probs" if output.name == "probabilities" else output.name
    return bytes(exported.SerializeToString(deterministic=True))


def grinder_folder(parent: Path, form: str, **changes: Any) -> Path:
    """Write model and manifest in one of the three forms."""
    path = parent / "golden_regime"
    path.mkdir()
    graph = forest().graph
    (path / "model.onnx").write_bytes(graph)
    fields = _manifest_of(form, graph) | changes
    (path / "manifest.json").write_text(json.dumps(fields, indent=2))
    return path


def _manifest_of(form: str, graph: bytes) -> dict[str, Any]:
    digest = sha256_hex(graph)
    if form == "1":
        return {
            "schema_version": 1,
            "model_name": "regime_classifier",
            "model_version": "v1.0.0",
            "created_at": CREATED_AT,
            "framework": "scikit-learn",
            "export_format": "onnx",
            "files": {"model.onnx": {"sha256": digest, "size_bytes": len(graph)}},
            "model_hash": digest[:16],
            "input_features": FEATURE_ORDER,
            "output_classes": CLASSES,
            "training_metadata": {
                "train_samples": FIT_ROWS,
                "val_samples": ROWS - FIT_ROWS,
                "test_accuracy_bps": 7_000,
                "data_hash": "d4e5f67890123456",
            },
        }
    fields: dict[str, Any] = {
        "schema_version": form,
        "model_file": "model.onnx",
        "sha256": {"model.onnx": digest},
        "created_at": CREATED_AT,
        "notes": "Initial production model",
    }
    if form == "v1.1":
        fields["created_at_utc"] = CREATED_AT
        fields["git_sha"] = GIT_SHA
        fields["dataset_id"] = "production_data"
        fields["feature_order"] = FEATURE_ORDER
    return fields


def grinder_facts(form: str) -> dict[str, Any]:
    """Give what a manifest of a form leaves unsaid."""
    facts: dict[str, Any] = {
        "architecture_id": "random_forest",
        "head": "regime",
        "bar_interval_ms": GRINDER_FEATURE_ORDER_V1.engine.bar_interval_ms,
        "horizon_id": "m5",
        "horizon_bars": 5,
        "label_definition": "regime = tercile of volatility over 5 bars",
        "feature_set": "grinder_feature_order_v1",
        "calibration": {"method": "temperature", "temperature": str(TEMPERATURE)},
        "training_window": {"start_ts_ms": 1_700_000_000_000, "end_ts_ms": 1_710_000_000_000},
        "data_cutoff_ts_ms": 1_720_000_000_000,
        "calibration_samples": 150,
        "test_samples": 150,
        "metrics": [],
        "golden_inputs": [
            [str(value) for value in row] for row in forest().unseen[:GOLDEN_ROWS].tolist()
        ],
    }
    if form != "1":
        facts |= {
            "model_name": "regime_classifier",
            "model_version": "v1.0.0",
            "framework": "scikit-learn",
            "output_classes": CLASSES,
            "train_samples": FIT_ROWS,
            "test_accuracy_bps": 7_000,
            "data_hash": "d4e5f67890123456",
        }
    if form == "v1":
        facts["input_features"] = FEATURE_ORDER
    return facts


def expected_shares(rows: Floats, spec: TemperatureSpec) -> NDArray[np.float64]:
    """Give the regime's probabilities as the forest and the formula say, without our code."""
    logs = np.log(np.maximum(forest().model.predict_proba(rows), 1e-12)) / float(spec.temperature)
    weights = np.exp(logs - logs.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return shares
