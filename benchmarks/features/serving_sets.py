"""Declare the feature sets that are served, and write the artifacts that bind them.

The feature service reads manifest and feature set of an artifact and no model, so one trained
artifact is enough: the others are that one with another feature set pinned in it.
"""

from pathlib import Path

from msgspec import structs

from benchmarks.decide.market import build_bench_artifact
from detent.adapters.artifact_store import (
    list_files,
    read_artifact,
    read_pinned_manifest,
    write_artifact,
)
from detent.contracts.manifest import (
    CALIBRATION_FILE,
    FEATURE_SET_FILE,
    GOLDEN_FILE,
    MODEL_FILE,
    TRAIN_REPORT_FILE,
    GoldenSet,
    golden_bytes,
)
from detent.core.features.engine import BarSource, BookConfig, EngineConfig
from detent.core.features.feature_set import DIRECTION_BARS_V1, FeatureSet
from detent.core.features.feature_spec import FeatureTransform, derived, feature

HOUR_MS = 3_600_000
MINUTE_MS = 60_000
WINDOW_ROWS = 64
WIDE_FEATURES = 250
FLOAT_BYTES = 4
# Few bars are held, so that a short run fills them and shows whether memory is flat.
BARS_HELD = 32
INDICATOR_BARS = 14


def wide_set() -> FeatureSet:
    """Give 250 features of bars: windows of every length up to forty, and series of others."""
    columns = tuple(
        feature(transform)
        for transform in (
            FeatureTransform.CLOSE,
            FeatureTransform.HIGH,
            FeatureTransform.LOW,
            FeatureTransform.VOLUME,
            FeatureTransform.NATR_PCT,
            FeatureTransform.SUM_ABS_RETURNS_PCT,
            FeatureTransform.NET_RETURN_PCT,
            FeatureTransform.RANGE_SCORE_CAPPED,
        )
    )
    windows = tuple(
        feature(transform, bars)
        for bars in range(2, 42)
        for transform in (
            FeatureTransform.RETURN_PCT,
            FeatureTransform.DEVIATION_PCT,
            FeatureTransform.CLOSE_ZSCORE,
            FeatureTransform.REALISED_VOL_PCT_PER_BAR,
            FeatureTransform.VOLUME_ZSCORE,
        )
    )
    series = tuple(
        derived(transform, source)
        for source in ("close", "volume", "return_pct_2", "close_zscore_20", "natr_pct")
        for transform in (
            FeatureTransform.ROLLING_MEAN,
            FeatureTransform.ROLLING_STD,
            FeatureTransform.ROLLING_TREND,
            FeatureTransform.LAG,
        )
    )
    products = tuple(
        derived(FeatureTransform.PRODUCT, f"return_pct_{bars}", "natr_pct") for bars in range(2, 42)
    )
    features = (*columns, *windows, *series, *products)[:WIDE_FEATURES]
    engine = EngineConfig(bar_interval_ms=HOUR_MS)
    return FeatureSet(name="bench_wide", features=features, engine=engine)


def window_set() -> FeatureSet:
    """Give 64 rows of the shipped features."""
    return structs.replace(DIRECTION_BARS_V1, name="bench_window", window_rows=WINDOW_ROWS)


def book_set() -> FeatureSet:
    """Give features of quotes and books, whose bars are built from the quotes."""
    transforms = (
        FeatureTransform.SPREAD_PCT,
        FeatureTransform.IMBALANCE_L1,
        FeatureTransform.DEPTH_IMBALANCE,
        FeatureTransform.IMPACT_BUY_PCT,
        FeatureTransform.WALL_BID_SCORE,
    )
    engine = EngineConfig(
        bar_interval_ms=MINUTE_MS,
        bar_source=BarSource.FROM_QUOTES,
        book=BookConfig(),
        max_bars=BARS_HELD,
        atr_period=INDICATOR_BARS,
        range_horizon=INDICATOR_BARS,
    )
    features = tuple(feature(transform) for transform in transforms)
    return FeatureSet(name="bench_books", features=features, engine=engine)


SETS = {
    "shipped": DIRECTION_BARS_V1,
    "wide": wide_set(),
    "window": window_set(),
    "books": book_set(),
}


def write_artifacts(folder: Path) -> dict[str, tuple[Path, str]]:
    """Write an artifact per set; give its folder of artifacts and its binding hash, by name."""
    trained = build_bench_artifact(folder / "trained")
    written = {}
    for name, feature_set in SETS.items():
        target = _rebound(trained, feature_set, name=name, parent=folder / name)
        written[name] = target.parent, read_pinned_manifest(target).binding_hash
    return written


def _rebound(trained: Path, feature_set: FeatureSet, *, name: str, parent: Path) -> Path:
    artifact = read_artifact(trained)
    values = bytes(FLOAT_BYTES * len(feature_set.input_names))
    row = structs.replace(artifact.golden.rows[0], values=values)
    contents = {
        MODEL_FILE: artifact.model,
        CALIBRATION_FILE: (trained / CALIBRATION_FILE).read_bytes(),
        FEATURE_SET_FILE: feature_set.canonical_json,
        GOLDEN_FILE: golden_bytes(GoldenSet(rows=(row,))),
        TRAIN_REPORT_FILE: artifact.train_report,
    }
    manifest = structs.replace(
        artifact.manifest,
        model_name=f"bench_{name}",
        bar_interval_ms=feature_set.engine.bar_interval_ms,
        feature_version=feature_set.feature_version,
        input_features=feature_set.input_names,
        files=list_files(contents),
    )
    return write_artifact(parent, manifest, contents)
