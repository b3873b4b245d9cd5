"""Train the head that says whether an order fills, on the outcomes of a strategist's own orders.

The farther an order lies from the mid, the less often it fills: the trees are held to that, and
the graph that is served is asked again before it is packed.

Source: seed 003, section 12.7, use case 3; row R255.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from detent.adapters.graph_audit import audit_graph
from detent.adapters.onnx_session import GraphContract, open_session
from detent.contracts.binding import Head
from detent.contracts.calibration import Calibration
from detent.contracts.canonical import sha256_hex
from detent.contracts.checks import check_int
from detent.contracts.decimals import check_decimal
from detent.contracts.errors import ArtifactInvalid, InvalidField
from detent.contracts.manifest import OUTPUT_CLASSES, Metric
from detent.contracts.units import BPS_ONE, INT64_MAX, PPM_ONE
from detent.core.evaluation.scores import LOG_LOSS_NAME, Floats, accuracy, brier_score, log_loss
from detent.core.features.engine import EngineConfig
from detent.core.features.feature_set import FeatureSet
from detent.core.features.feature_spec import caller_feature
from detent.core.signals.binary_maps import binary_map
from detent.core.signals.calibration_choice import choose_calibration
from detent.offline.cells import (
    check_filled,
    decimal_cell,
    input_cell,
    integer_cell,
    invalid_at,
    raw_cells,
)
from detent.offline.packing import DataFacts, Identity, PackedModel, golden_places, pack_artifact
from detent.offline.samples import Progress
from detent.offline.train_report import ClassCount
from detent.offline.walk_forward.export import INPUT_NAME, OUTPUT_NAME, Inputs, export_lightgbm
from detent.offline.walk_forward.fold_fit import up
from detent.offline.walk_forward.folds import (
    PARTS,
    Fold,
    FoldPlan,
    bounds_of,
    check_both_classes,
    rows_in_flight,
    walk_forward,
)
from detent.offline.walk_forward.trees import LIGHTGBM_FIXED, floor_booster

DISTANCE = "distance_bps"
FEATURES = (DISTANCE, "spread_bps", "ofi_zscore", "depth_imbalance", "natr_14_5m")
COLUMNS = ("ts_ms", "settled_ts_ms", "symbol", *FEATURES, "filled")
GRAPH_NAME = "detent_fill"
# R255: fifty trees of depth four; never more likely the farther away.
BOOSTING = {"num_iterations": 50, "max_depth": 4, "num_leaves": 15, "min_data_in_leaf": 50}
MONOTONE = [-1, *(0 for _ in FEATURES[1:])]
# Distances at which the served graph is asked whether it keeps to that.
SWEEP_BPS = np.linspace(0.0, 200.0, 101, dtype=np.float32)
SWEPT_ROWS = 50


class Orders(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Holds what became of orders, in the order of time.

    Attributes:
        ts_ms: Shape (n,): when the order was placed.
        settled_ts_ms: Shape (n,): when it was known whether it filled within the horizon.
        symbols: Shape (n,).
        values: Shape (n, 5), float32: `FEATURES`.
        filled: Shape (n,).
        data_hash: SHA-256 of the file, 64 hex.
    """

    ts_ms: NDArray[np.int64]
    settled_ts_ms: NDArray[np.int64]
    symbols: NDArray[np.object_]
    values: Inputs
    filled: NDArray[np.bool_]
    data_hash: str


class FillFold(msgspec.Struct, frozen=True, kw_only=True):
    """Reports one fold on its test rows.

    Attributes:
        number: Which fold.
        brier_ppm: Calibrated.
        base_brier_ppm: That of the share of filled orders in the training rows.
    """

    number: int
    brier_ppm: int
    base_brier_ppm: int


class _Fit(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    graph: bytes
    calibration: Calibration
    report: FillFold
    train_accuracy: float
    p: Floats


def fill_orders_v1(bar_interval_ms: int) -> FeatureSet:
    """Give the five features of an order: all of them the caller's, who alone knows its price."""
    return FeatureSet(
        name="fill_orders_v1",
        features=tuple(caller_feature(name) for name in FEATURES),
        engine=EngineConfig(bar_interval_ms=bar_interval_ms),
    )


def read_orders(path: Path) -> Orders:
    """Read a `.parquet` or `.csv` file with `COLUMNS`; `filled` is 0 or 1.

    Raises:
        DataInvalid: A row is not what it should be; the error names it.
    """
    rows = sorted(_rows(path), key=lambda row: (row[0], row[2]))
    return Orders(
        ts_ms=np.array([row[0] for row in rows], dtype=np.int64),
        settled_ts_ms=np.array([row[1] for row in rows], dtype=np.int64),
        symbols=np.array([row[2] for row in rows], dtype=object),
        values=np.array([row[3] for row in rows], dtype="<f4").reshape(len(rows), len(FEATURES)),
        filled=np.array([row[4] for row in rows], dtype=np.bool_),
        data_hash=sha256_hex(path.read_bytes()),
    )


def _rows(path: Path) -> Iterator[tuple[int, int, str, list[float], bool]]:
    for row, cells in raw_cells(path, COLUMNS):
        check_filled(path.name, row, cells, COLUMNS)
        try:
            placed, settled, filled = (
                integer_cell(name, cells[name]) for name in ("ts_ms", "settled_ts_ms", "filled")
            )
            check_int("filled", filled, 0, 1)
            check_int("settled_ts_ms", settled, placed + 1, INT64_MAX)
            check_decimal(DISTANCE, decimal_cell(DISTANCE, cells[DISTANCE]), above_zero=False)
            values = [input_cell(name, cells[name]) for name in FEATURES]
        except InvalidField as error:
            raise invalid_at(path.name, row, error) from error
        yield placed, settled, str(cells["symbol"]), values, filled == 1


def train_fill(
    orders: Orders,
    identity: Identity,
    plan: FoldPlan,
    *,
    bar_interval_ms: int,
    seed: int,
    out_dir: Path,
    progress: Progress,
) -> tuple[Path, tuple[FillFold, ...]]:
    """Train and pack the fill head; the artifact is the model of the last fold.

    Args:
        orders: What became of orders.
        identity: What a person says of the artifact.
        plan: How rows are cut.
        bar_interval_ms: Length of the bars of the plans that will ask.
        seed: Seed of every fit.
        out_dir: Folder of artifacts.
        progress: Told of (stage, done, in all).

    Returns:
        The artifact's directory, and how every fold did.

    Raises:
        DataInvalid: A part has too few orders, or of one kind.
        ArtifactInvalid: The graph is not monotone, or the model cannot be calibrated.
    """
    folds = walk_forward(orders.ts_ms, orders.settled_ts_ms, plan)
    check_both_classes(orders.filled, folds)
    found = []
    for fold in folds:
        progress("folds", fold.number, len(folds))
        found.append(_fit(orders, fold, seed=seed))
    progress("folds", len(folds), len(folds))
    last, fold = found[-1], folds[-1]
    facts = DataFacts(
        head=Head.FILL,
        feature_set=fill_orders_v1(bar_interval_ms),
        label_definition="filled = the order filled within its horizon, as its strategist saw it",
        data_hash=orders.data_hash,
        symbols=tuple(sorted(set(orders.symbols))),
        bar_count=0,
        gap_count=0,
        start_ts_ms=bounds_of(orders.ts_ms, fold.train)[0],
        train_end_ts_ms=bounds_of(orders.settled_ts_ms, fold.train)[1],
        cutoff_ts_ms=bounds_of(orders.settled_ts_ms, fold.calibration)[1],
        class_counts=_counts(orders, fold),
    )
    labels = orders.filled[fold.test]
    model = PackedModel(
        graph=last.graph,
        architecture_id="gbt_lightgbm",
        framework="lightgbm",
        opset=15,
        seed=seed,
        train_accuracy=last.train_accuracy,
        calibration=last.calibration,
        accuracy_bps=round(accuracy(last.p, labels) * BPS_ONE),
        metrics=(
            Metric(name="brier_base_ppm", value=last.report.base_brier_ppm),
            Metric(name="brier_ppm", value=last.report.brier_ppm),
            Metric(name=f"{LOG_LOSS_NAME}_ppm", value=round(log_loss(last.p, labels) * PPM_ONE)),
        ),
        golden_inputs=orders.values[fold.test[golden_places(len(fold.test))]],
    )
    path = pack_artifact(identity, facts, model, out_dir=out_dir, progress=progress)
    return path, tuple(one.report for one in found)


def _fit(orders: Orders, fold: Fold, *, seed: int) -> _Fit:
    import lightgbm  # noqa: PLC0415  It is loaded by whoever fits one.

    values, labels = orders.values, orders.filled
    data = lightgbm.Dataset(
        values[fold.train].astype(np.float64), label=labels[fold.train].astype(np.float64)
    )
    params: dict[str, Any] = LIGHTGBM_FIXED | BOOSTING
    params |= {"monotone_constraints": MONOTONE, "seed": seed}
    booster = floor_booster(lightgbm.train(params, data))
    graph = export_lightgbm(booster, width=len(FEATURES), name=GRAPH_NAME).graph
    audit_graph(graph)
    contract = GraphContract(
        input_name=INPUT_NAME,
        width=len(FEATURES),
        output_name=OUTPUT_NAME,
        classes=len(OUTPUT_CLASSES[Head.FILL]),
    )
    session = open_session(graph, contract, execution_provider="cpu")
    check_monotone(up(session, _swept(values[fold.test])).reshape(-1, len(SWEEP_BPS)))
    # No map goes against the model's order, so what is served keeps it whichever is chosen.
    calibration = choose_calibration(
        up(session, values[fold.calibration]),
        labels[fold.calibration],
        purge_rows=rows_in_flight(orders.ts_ms, orders.settled_ts_ms, fold.calibration),
    ).spec
    p = binary_map(calibration).many(up(session, values[fold.test]))
    base = np.full(len(fold.test), float(np.mean(labels[fold.train])))
    report = FillFold(
        number=fold.number,
        brier_ppm=round(brier_score(p, labels[fold.test]) * PPM_ONE),
        base_brier_ppm=round(brier_score(base, labels[fold.test]) * PPM_ONE),
    )
    return _Fit(
        graph=graph,
        calibration=calibration,
        report=report,
        train_accuracy=accuracy(up(session, values[fold.train]), labels[fold.train]),
        p=p,
    )


def _swept(values: Inputs) -> Inputs:
    """Put some orders at every distance of the sweep."""
    places = np.linspace(0, len(values) - 1, SWEPT_ROWS).astype(np.int64)
    swept = np.repeat(values[places], len(SWEEP_BPS), axis=0)
    swept[:, 0] = np.tile(SWEEP_BPS, SWEPT_ROWS)
    return swept


def check_monotone(p: Floats) -> None:
    """Refuse a graph that says of a farther order that it fills more often.

    Args:
        p: Shape (orders, distances), distances ascending.

    Raises:
        ArtifactInvalid: It rises somewhere.
    """
    rises = np.diff(p, axis=1).max()
    # One unit in the last place of a float32 below one is no rise of the model.
    if rises > np.finfo(np.float32).eps:
        expected = "no rise with the distance"
        message = f"fill: found a rise of {rises}, expected {expected}"
        raise ArtifactInvalid(message, found=rises, expected=expected)


def _counts(orders: Orders, fold: Fold) -> tuple[ClassCount, ...]:
    away, filled = OUTPUT_CLASSES[Head.FILL]
    return tuple(
        ClassCount(part=part, output_class=name, count=int(count))
        for part in PARTS
        for labels in [orders.filled[getattr(fold, part)]]
        for name, count in ((away, len(labels) - labels.sum()), (filled, labels.sum()))
    )
