"""Write the published hash vectors: `python -m tests.data.generate`.

The vectors are for other languages: each gives the schema tag, the fields as JSON, the
canonical text and its SHA-256. A test compares the file with what this writes.
"""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

from msgspec import structs
from tests.builders import HOUR_MS, START_MS, model_binding, plan_of, record_of, row_of
from tests.unit.core.features.book_scenarios import WALL_BID

from detent.contracts.binding import (
    PROXY_BINDING,
    FallbackMode,
    Head,
    ModelBinding,
    RegimeFallback,
    TrainingWindow,
)
from detent.contracts.calibration import (
    BetaSpec,
    BracketPlatt,
    BracketsSpec,
    Calibration,
    CalibrationMethod,
    CalibrationSpec,
    DirichletRow,
    DirichletSpec,
    HeldOutChoice,
    IsotonicSpec,
    MethodScore,
    TemperatureSpec,
    VennAbersSpec,
)
from detent.contracts.caller_feature import CallerFeature
from detent.contracts.canonical import canonical_bytes, sha256_hex
from detent.contracts.decision import DecisionRecord
from detent.contracts.json_codec import to_json
from detent.contracts.manifest import (
    LISTED_FILES,
    OUTPUT_CLASSES,
    SCHEMA_VERSION,
    SPACING_CLASSES,
    GraphOutput,
    Manifest,
    ManifestFile,
    Metric,
    TrainingMetadata,
    manifest_bytes,
)
from detent.contracts.plan import Plan, PolicyConfig
from detent.contracts.proxy import PROXY_DEFAULT, ProxyConfig
from detent.contracts.snapshots import FeatureSnapshot, L2FeatureSnapshot
from detent.core.features.book import build_l2_snapshot
from detent.core.features.engine import QTY_REF_BASELINE, BookConfig, EngineConfig
from detent.core.features.feature_set import FeatureSet, direction_bars_v1, parse_feature_set
from detent.core.features.feature_spec import (
    BOOK_TRANSFORMS,
    FeatureTransform,
    Normalisation,
    derived,
    feature,
)
from detent.core.features.model_input import features_hash, snapshot_hash

VECTORS_FILE = Path(__file__).parent / "hash_vectors.json"

SNAPSHOT = FeatureSnapshot(
    ts=START_MS,
    symbol="BTCUSDT",
    mid_price=Decimal("70811.00"),
    spread_bps=0,
    imbalance_l1_bps=435,
    thin_l1=Decimal("0.110"),
    natr_bps=112,
    atr=None,
    sum_abs_returns_bps=0,
    net_return_bps=0,
    range_score=0,
    warmup_bars=14,
)

BOOK_SET = FeatureSet(
    name="book_v1",
    features=tuple(feature(transform) for transform in sorted(BOOK_TRANSFORMS)),
    engine=EngineConfig(book=BookConfig()),
)

SAID = (
    CallerFeature(name="position_size", value=Decimal("-2.50")),
    CallerFeature(name="grid_levels_active", value=Decimal(7)),
)

NORMALISED_WINDOW = FeatureSet(
    name="normalised_window",
    features=(
        feature(
            FeatureTransform.NATR_PCT,
            normalisation=Normalisation(offset=Decimal("-0.10"), scale=Decimal("2.50")),
        ),
        derived(FeatureTransform.ROLLING_MEAN, "natr_pct"),
    ),
    engine=EngineConfig(),
    window_rows=64,
)


FALLBACK = RegimeFallback(mode=FallbackMode.PREVIOUS, max_age_ms=4 * HOUR_MS)

CALIBRATIONS: dict[str, Calibration] = {
    "platt": CalibrationSpec(
        method=CalibrationMethod.PLATT, a=Decimal("-0.5"), b=Decimal("0.0625")
    ),
    "temperature": TemperatureSpec(temperature=Decimal("1.50")),
    "brackets": BracketsSpec(
        brackets=(
            BracketPlatt(bracket_key="less_70", a=Decimal("-0.9"), b=Decimal("0.05")),
            BracketPlatt(bracket_key="greater_70", a=Decimal(-1), b=Decimal(0)),
        ),
        temperature=Decimal("1.2"),
    ),
    "identity that won": CalibrationSpec(
        method=CalibrationMethod.IDENTITY,
        a=None,
        b=None,
        choice=HeldOutChoice(
            fold_count=5,
            row_count=500,
            tried=(
                MethodScore(
                    method=CalibrationMethod.IDENTITY, log_loss_ppm=690_000, brier_ppm=248_500
                ),
                MethodScore(
                    method=CalibrationMethod.PLATT, log_loss_ppm=690_001, brier_ppm=248_400
                ),
            ),
        ),
    ),
    "beta": BetaSpec(a=Decimal("0.7"), b=Decimal(0), c=Decimal("-0.30")),
    "isotonic": IsotonicSpec(
        x=(Decimal("0.25"), Decimal("0.5")), y=(Decimal("0.30"), Decimal("0.45"))
    ),
    "venn_abers": VennAbersSpec(
        x=(Decimal("0.5"),), at=(Decimal("0.5"),), between=(Decimal("0.4"), Decimal("0.6"))
    ),
    "dirichlet": DirichletSpec(
        rows=(
            DirichletRow(weights=(Decimal(1), Decimal("0.1")), offset=Decimal(0)),
            DirichletRow(weights=(Decimal("-0.1"), Decimal("0.9")), offset=Decimal("0.25")),
        )
    ),
}


def manifest() -> Manifest:
    """Give the manifest of no real artifact, every field filled in."""
    feature_set = direction_bars_v1(HOUR_MS)
    return Manifest(
        schema_version=SCHEMA_VERSION,
        model_name="direction_test",
        model_version="v1.0.0",
        head=Head.DIRECTION,
        architecture_id="logistic",
        created_at="2024-01-15T10:30:00Z",
        framework="scikit-learn",
        export_format="onnx",
        bar_interval_ms=HOUR_MS,
        horizon_id="h4",
        horizon_bars=4,
        label_definition="up = (close[t+4] / close[t] - 1 > 0)",
        feature_version=feature_set.feature_version,
        input_name="input",
        input_features=feature_set.feature_names,
        output_name="probabilities",
        output_classes=OUTPUT_CLASSES[Head.DIRECTION],
        calibration_method=CalibrationMethod.PLATT,
        calibration_version="c" * 64,
        training_window=TrainingWindow(
            start_ts_ms=START_MS - 1_000 * HOUR_MS, end_ts_ms=START_MS - 100 * HOUR_MS
        ),
        data_cutoff_ts_ms=START_MS - HOUR_MS,
        model_hash="a" * 16,
        training_metadata=TrainingMetadata(
            train_samples=900,
            calibration_samples=90,
            test_samples=9,
            test_accuracy_bps=5_555,
            data_hash="0123456789abcdef",
            metrics=(Metric(name="brier_ppm", value=249_000),),
        ),
        files=tuple(
            ManifestFile(path=path, sha256="a" * 64, size_bytes=7) for path in sorted(LISTED_FILES)
        ),
    )


def regime_manifest() -> Manifest:
    """Give the manifest of a regime artifact, with every field that may be left out."""
    return structs.replace(
        manifest(),
        model_name="regime_test",
        head=Head.REGIME,
        output_classes=OUTPUT_CLASSES[Head.REGIME],
        calibration_method=CalibrationMethod.TEMPERATURE,
        input_shape=(1, len(manifest().input_features)),
        further_outputs=(GraphOutput(name="spacing_multiplier", classes=SPACING_CLASSES),),
        fallback=FALLBACK,
        git_sha="0123456789" * 4,
        dataset_id="bars-2024",
        notes="the first of its kind",
    )


def vectors() -> list[dict[str, Any]]:
    """Give every published vector."""
    return [
        _vector("snapshot_hash", FeatureSnapshot.SCHEMA, SNAPSHOT),
        _features(),
        _feature_version("feature_version", direction_bars_v1(HOUR_MS)),
        _feature_version("feature_version, version 2", NORMALISED_WINDOW),
        _manifest("model_version_hash", manifest()),
        _vector("proxy_version", ProxyConfig.SCHEMA, PROXY_DEFAULT),
        _vector("binding_hash, proxy", ModelBinding.SCHEMA, PROXY_BINDING),
        _vector("binding_hash, model", ModelBinding.SCHEMA, model_binding()),
        _vector("policy_config_hash", PolicyConfig.SCHEMA, plan_of("plan").policy_config),
        _vector("plan", Plan.SCHEMA, plan_of("plan")),
        _vector("record_hash", DecisionRecord.SCHEMA, record_of()),
        _vector(
            "snapshot_hash, book",
            L2FeatureSnapshot.SCHEMA,
            build_l2_snapshot(WALL_BID, qty_ref=QTY_REF_BASELINE),
        ),
        _feature_version("feature_version, with a book", BOOK_SET),
        _vector(
            "record_hash, with caller features",
            DecisionRecord.SCHEMA,
            record_of(row=row_of(caller_features=SAID)),
        ),
        _vector(
            "plan, with a greatest age",
            Plan.SCHEMA,
            plan_of("plan", max_feature_age_ms=0),
        ),
        _manifest("model_version_hash, regime", regime_manifest()),
        _vector(
            "binding_hash, regime with a fallback",
            ModelBinding.SCHEMA,
            model_binding(head=Head.REGIME, regime_fallback=FALLBACK),
        ),
        *(
            _vector(f"calibration_version, {name}", spec.SCHEMA, spec)
            for name, spec in CALIBRATIONS.items()
        ),
    ]


def _vector(name: str, schema: str, value: Any) -> dict[str, Any]:
    canonical = canonical_bytes(schema, to_json(value))
    return {
        "name": name,
        "schema": schema,
        "fields": to_json(value),
        "canonical": canonical.decode("ascii"),
        "sha256": sha256_hex(canonical),
    }


def _feature_version(name: str, feature_set: FeatureSet) -> dict[str, Any]:
    canonical = feature_set.canonical_json
    assert parse_feature_set(canonical) == feature_set
    return {
        "name": name,
        "schema": json.loads(canonical)["schema"],
        "fields": {k: v for k, v in json.loads(canonical).items() if k != "schema"},
        "canonical": canonical.decode("ascii"),
        "sha256": feature_set.feature_version,
    }


def _manifest(name: str, value: Manifest) -> dict[str, Any]:
    canonical = manifest_bytes(value)
    fields = json.loads(canonical)
    return {
        "name": name,
        "schema": fields.pop("schema"),
        "fields": fields,
        "canonical": canonical.decode("ascii"),
        "sha256": value.model_version_hash,
    }


def _features() -> dict[str, Any]:
    values = bytes.fromhex("0000803f000000c0")
    fields = {
        "feature_version": "b" * 64,
        "symbol": "BTCUSDT",
        "ts_ms": START_MS,
        "snapshot_hashes": [snapshot_hash(SNAPSHOT)],
        "input_sha256": sha256_hex(values),
    }
    canonical = canonical_bytes("detent.features.v1", fields)
    found = features_hash(
        "b" * 64,
        symbol="BTCUSDT",
        ts_ms=START_MS,
        snapshot_hashes=(snapshot_hash(SNAPSHOT),),
        values=values,
    )
    return {
        "name": "features_hash, input 1.0 and -2.0",
        "schema": "detent.features.v1",
        "fields": fields,
        "canonical": canonical.decode("ascii"),
        "sha256": found,
    }


def text() -> str:
    """Give the file's text."""
    return json.dumps(vectors(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    VECTORS_FILE.write_text(text(), encoding="utf-8")
