"""Makes an artifact on the seed's fifteen names, most of which only a strategist can give."""

from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path

import numpy as np
from msgspec import structs
from tests.builders import HOUR_MS

from detent.adapters.artifact_store import list_files, read_artifact, write_artifact
from detent.adapters.onnx_session import GraphContract, open_session
from detent.adapters.serving import open_serving
from detent.contracts.calibration import calibration_bytes
from detent.contracts.caller_feature import CallerFeature
from detent.contracts.calls.feature import MarketEvent
from detent.contracts.canonical import sha256_hex
from detent.contracts.manifest import (
    CALIBRATION_FILE,
    FEATURE_SET_FILE,
    GOLDEN_FILE,
    MODEL_FILE,
    TRAIN_REPORT_FILE,
    GoldenRow,
    GoldenSet,
    golden_bytes,
)
from detent.contracts.market import Bar, Quote
from detent.contracts.signals import DirectionSignal
from detent.core.features.engine import BarSource
from detent.core.features.shipped_sets import grinder_feature_order_v1
from detent.core.signals.calibration import Calibrator, fit_calibration
from detent.offline.walk_forward.candidate import Rows
from detent.offline.walk_forward.candidates import LOGISTIC
from detent.offline.walk_forward.export import INPUT_NAME, OUTPUT_NAME

FIFTEEN = grinder_feature_order_v1(HOUR_MS, bar_source=BarSource.READY_MADE)
ROWS = 600


def fifteen_name_artifact(bars_artifact: Path, out_dir: Path) -> Path:
    """Put another model, calibrator and feature set into a copy of a sound artifact.

    The model was shown rows in which the trend that the caller sees moves the price, so that
    what it answers depends on what it is told.
    """
    random = np.random.default_rng(5)
    values = random.normal(0.0, 1.0, (ROWS, len(FIFTEEN.feature_names)))
    values[:, :3] += 100.0
    trend = values[:, FIFTEEN.feature_names.index("trend_strength")]
    rows = Rows(values=values.astype("<f4"), labels=trend + random.normal(0.0, 1.0, ROWS) > 0)
    inputs = [row.tobytes() for row in rows.values]
    model = LOGISTIC.fit(rows, LOGISTIC.params, seed=0).exported
    graph = GraphContract(
        input_name=INPUT_NAME, width=len(FIFTEEN.input_names), output_name=OUTPUT_NAME, classes=2
    )
    p_raw = open_session(model.graph, graph, execution_provider="cpu").probabilities(inputs)[:, -1]
    calibration = fit_calibration(p_raw.astype(np.float64), rows.labels)
    calibrator = Calibrator.of(calibration)
    golden = []
    for given, p in zip(inputs[:32], p_raw.tolist(), strict=False):
        direction = calibrator.direction(p)
        assert isinstance(direction, DirectionSignal)
        golden.append(GoldenRow(values=given, direction=direction))
    base = read_artifact(bars_artifact)
    contents = {
        MODEL_FILE: model.graph,
        CALIBRATION_FILE: calibration_bytes(calibration),
        FEATURE_SET_FILE: FIFTEEN.canonical_json,
        GOLDEN_FILE: golden_bytes(GoldenSet(rows=tuple(golden))),
        TRAIN_REPORT_FILE: base.train_report,
    }
    manifest = structs.replace(
        base.manifest,
        model_name="fifteen_names",
        feature_version=FIFTEEN.feature_version,
        input_features=FIFTEEN.input_names,
        calibration_method=calibration.method,
        calibration_version=calibration.calibration_version,
        model_hash=sha256_hex(model.graph)[:16],
        files=list_files(contents),
    )
    path = write_artifact(out_dir, manifest, contents)
    open_serving(read_artifact(path))
    return path


def quoted(bars: Iterable[Bar]) -> list[MarketEvent]:
    """Give bars with the quote that each of them closed on."""
    events = []
    for bar in bars:
        quote = Quote(
            symbol=bar.symbol,
            ts_ms=bar.ts_ms - 1,
            bid_price=bar.close - Decimal("0.01"),
            ask_price=bar.close + Decimal("0.01"),
            bid_qty=Decimal(1),
            ask_qty=Decimal(2),
        )
        events += [MarketEvent(quote=quote), MarketEvent(bar=bar)]
    return events


def fifteen_said(**changes: str) -> tuple[CallerFeature, ...]:
    """Give all that the caller must say, 0 unless told otherwise."""
    words = dict.fromkeys(FIFTEEN.caller_names, "0") | changes
    return tuple(CallerFeature(name=name, value=Decimal(value)) for name, value in words.items())
