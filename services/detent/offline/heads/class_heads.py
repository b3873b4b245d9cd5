"""Train the heads of three classes: regime, with a spacing, and toxicity, with the next regime.

The cuts between LOW, MID and HIGH are learnt from the training rows of each fold, as the model
is, so that a class knows nothing of what comes after.

Source: seed 003, sections 12.7 and 12.13; rows R147, R148, R253, R254, R261.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

from detent.adapters.graph_audit import audit_graph
from detent.adapters.onnx_session import GraphContract, OnnxSession, open_session
from detent.contracts.binding import Head
from detent.contracts.calibration import Calibration
from detent.contracts.errors import DataInvalid
from detent.contracts.manifest import REGIME_CLASSES, SPACING_CLASSES, GraphOutput, Metric
from detent.contracts.units import BPS_ONE, PPM_ONE
from detent.core.evaluation.class_scores import class_log_loss
from detent.core.evaluation.scores import LOG_LOSS_NAME
from detent.core.signals.calibration_choice import choose_class_calibration
from detent.core.signals.class_maps import class_map
from detent.offline.datasets.folder import Dataset
from detent.offline.datasets.rows import NEXT_SCORE, SCORE, Rows
from detent.offline.heads.joining import joined
from detent.offline.packing import DataFacts, Identity, PackedModel, golden_places, pack_artifact
from detent.offline.samples import Progress
from detent.offline.score_labels import CLASS_COUNT, classes_of, tercile_cuts
from detent.offline.train_report import ClassCount
from detent.offline.walk_forward.export import (
    INPUT_NAME,
    OUTPUT_NAME,
    Inputs,
    export_lightgbm,
    export_sklearn,
)
from detent.offline.walk_forward.folds import (
    PART_ROWS_MIN,
    PARTS,
    Fold,
    FoldPlan,
    bounds_of,
    rows_in_flight,
    walk_forward,
)
from detent.offline.walk_forward.trees import LIGHTGBM_FIXED, floor_booster, floor_forest

Classes = NDArray[np.int64]
Floats = NDArray[np.float64]
REGIME_OUTPUT, NEXT_OUTPUT = "regime_probs", "next_regime_probs"
SPACING = GraphOutput(name="spacing_multiplier", classes=SPACING_CLASSES)
NEXT_REGIME = GraphOutput(name=NEXT_OUTPUT, classes=REGIME_CLASSES)
FOREST = {"n_estimators": 40, "max_depth": 5, "min_samples_leaf": 20, "n_jobs": 1}
FOREST_ROWS_MAX = 10_000
# R254: a hundred trees of depth five, learning a tenth at a time.
TOXICITY_BOOSTING = {
    "objective": "multiclass",
    "num_class": CLASS_COUNT,
    "num_iterations": 100,
    "max_depth": 5,
    "num_leaves": 31,
    "learning_rate": 0.1,
}


class ClassFold(msgspec.Struct, frozen=True, kw_only=True):
    """Reports one fold: what was learnt, and how it did beside the classes' shares.

    Attributes:
        number: Which fold.
        low_cut_bps: Upper end of LOW, learnt from the training rows.
        high_cut_bps: Upper end of MID.
        log_loss_ppm: Calibrated, on test rows.
        base_log_loss_ppm: That of the shares of the classes in the training rows.
        next_hit_bps: Share of test rows whose most probable next class came true; 0 for a
            head without one.
        stays_hit_bps: The same of saying that the class stays what it is.
    """

    number: int
    low_cut_bps: int
    high_cut_bps: int
    log_loss_ppm: int
    base_log_loss_ppm: int
    next_hit_bps: int
    stays_hit_bps: int


class TrainedHead(msgspec.Struct, frozen=True, kw_only=True):
    """Says where the artifact is, and how every fold did."""

    artifact: Path
    folds: tuple[ClassFold, ...]


class _Fit(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    graph: bytes
    session: OnnxSession
    calibration: Calibration
    report: ClassFold
    accuracy: float


def train_class_head(
    dataset: Dataset,
    identity: Identity,
    plan: FoldPlan,
    *,
    seed: int,
    out_dir: Path,
    progress: Progress,
    spacings: Mapping[tuple[int, str], int] | None = None,
) -> TrainedHead:
    """Train and pack a head of three classes; the artifact is the model of the last fold.

    Args:
        dataset: Of the head regime or toxicity.
        identity: What a person says of the artifact.
        plan: How rows are cut.
        seed: Seed of every fit.
        out_dir: Folder of artifacts.
        progress: Told of (stage, done, in all).
        spacings: For the regime: by (ts_ms, symbol) the best spacing, times 1000; None for a
            head without one, whose spacing is 1.

    Raises:
        DataInvalid: The data set is of another head, or a part has too few rows, with a
            spacing or at all.
        ArtifactInvalid: The model cannot be calibrated or would be refused.
    """
    head = dataset.manifest.head
    if head not in (Head.REGIME, Head.TOXICITY):
        raise DataInvalid(f"head: found {head}, expected regime or toxicity", found=head)
    rows = dataset.rows
    multipliers = _multipliers(rows, spacings)
    folds = walk_forward(rows.ts_ms, rows.label_ts_ms, plan)
    fits = []
    for fold in folds:
        progress("folds", fold.number, len(folds))
        fits.append(_fit(head, rows, fold, seed=seed, multipliers=multipliers))
    progress("folds", len(folds), len(folds))
    last, fold = fits[-1], folds[-1]
    further = _further(head, has_spacing=multipliers is not None)
    model = PackedModel(
        graph=last.graph,
        architecture_id="random_forest" if head is Head.REGIME else "gbt_lightgbm",
        framework="scikit-learn" if head is Head.REGIME else "lightgbm",
        opset=17,
        seed=seed,
        train_accuracy=last.accuracy,
        calibration=last.calibration,
        accuracy_bps=round(_accuracy(last, rows, fold) * BPS_ONE),
        metrics=(
            Metric(name=f"{LOG_LOSS_NAME}_base_ppm", value=last.report.base_log_loss_ppm),
            Metric(name=f"{LOG_LOSS_NAME}_ppm", value=last.report.log_loss_ppm),
        ),
        golden_inputs=rows.values[fold.test[golden_places(len(fold.test))]],
        output_name=REGIME_OUTPUT,
        further_outputs=further,
    )
    artifact = pack_artifact(
        identity, _facts(dataset, fold), model, out_dir=out_dir, progress=progress
    )
    return TrainedHead(artifact=artifact, folds=tuple(fit.report for fit in fits))


def _multipliers(rows: Rows, spacings: Mapping[tuple[int, str], int] | None) -> Floats | None:
    if spacings is None:
        return None
    keys = zip(rows.ts_ms.tolist(), rows.symbols, strict=True)
    found = np.array([spacings.get((ts_ms, symbol), 0) for ts_ms, symbol in keys]) / 1_000
    if not np.any(found):
        raise DataInvalid("spacing: found no row of the data set with one that may be used")
    return np.asarray(found, dtype=np.float64)


def _check_enough(known: int, fold: Fold) -> None:
    if known < PART_ROWS_MIN:
        found = f"{known} rows for train of fold {fold.number}"
        expected = f"at least {PART_ROWS_MIN} with a spacing that may be used"
        raise DataInvalid(f"spacing: found {found}, expected {expected}", found=found)


def _fit(head: Head, rows: Rows, fold: Fold, *, seed: int, multipliers: Floats | None) -> _Fit:
    scores = np.asarray(rows.targets[SCORE], dtype=np.float64)
    cuts = tercile_cuts(scores[fold.train])
    classes = classes_of(scores, cuts)
    values = rows.values[fold.train]
    parts = [(_classifier(head, values, classes[fold.train], seed), OUTPUT_NAME, REGIME_OUTPUT)]
    following: Classes | None = None
    if head is Head.TOXICITY:
        # The same cuts: a class means the same now and next.
        following = classes_of(np.asarray(rows.targets[NEXT_SCORE], dtype=np.float64), cuts)
        after = _classifier(head, values, following[fold.train], seed)
        parts.append((after, OUTPUT_NAME, NEXT_OUTPUT))
    elif multipliers is not None:
        known = multipliers[fold.train] > 0.0
        _check_enough(int(np.count_nonzero(known)), fold)
        parts.append(
            (
                _spacing(values[known], multipliers[fold.train][known], seed),
                "variable",
                SPACING.name,
            )
        )
    graph = joined(parts, name=f"detent_{head}")
    audit_graph(graph)
    session = _session(graph, head, values.shape[1], has_spacing=multipliers is not None)
    calibration = choose_class_calibration(
        shares_of(session, rows.values[fold.calibration]),
        classes[fold.calibration],
        purge_rows=rows_in_flight(rows.ts_ms, rows.label_ts_ms, fold.calibration),
    ).spec
    said = class_map(calibration, class_count=CLASS_COUNT)
    tested = shares_of(session, rows.values[fold.test])
    told = np.array([said.shares(row) for row in tested.tolist()])
    base = np.bincount(classes[fold.train], minlength=CLASS_COUNT) / len(fold.train)
    expected = classes[fold.test]
    report = ClassFold(
        number=fold.number,
        low_cut_bps=round(cuts[0]),
        high_cut_bps=round(cuts[1]),
        log_loss_ppm=round(class_log_loss(told, expected) * PPM_ONE),
        base_log_loss_ppm=round(
            class_log_loss(np.tile(base, (len(expected), 1)), expected) * PPM_ONE
        ),
        next_hit_bps=0
        if following is None
        else _hits(_outputs(session, rows.values[fold.test])[1], following[fold.test]),
        stays_hit_bps=0
        if following is None
        else round(float(np.mean(expected == following[fold.test])) * BPS_ONE),
    )
    own = np.mean(shares_of(session, values).argmax(axis=1) == classes[fold.train])
    return _Fit(
        graph=graph,
        session=session,
        calibration=calibration,
        report=report,
        accuracy=float(own),
    )


def _classifier(head: Head, values: Inputs, classes: Classes, seed: int) -> bytes:
    if len(np.unique(classes)) < CLASS_COUNT:
        found = f"{len(np.unique(classes))} classes in training rows"
        raise DataInvalid(f"found {found}, expected {CLASS_COUNT}", found=found)
    if head is Head.REGIME:
        model = RandomForestClassifier(
            **FOREST, max_samples=min(len(classes), FOREST_ROWS_MAX), random_state=seed
        )
        model.fit(values, classes)
        floor_forest(model)
        return export_sklearn(model, width=values.shape[1]).graph
    import lightgbm  # noqa: PLC0415  It is loaded by whoever fits one.

    data = lightgbm.Dataset(values.astype(np.float64), label=classes)
    booster = lightgbm.train(LIGHTGBM_FIXED | TOXICITY_BOOSTING | {"seed": seed}, data)
    return export_lightgbm(floor_booster(booster), width=values.shape[1]).graph


def _spacing(values: Inputs, multipliers: Floats, seed: int) -> bytes:
    """Fit the spacing: a forest gives means of what it has seen, and so stays in range."""
    model = RandomForestRegressor(
        **FOREST, max_samples=min(len(multipliers), FOREST_ROWS_MAX), random_state=seed
    )
    model.fit(values, multipliers)
    floor_forest(model)
    return export_sklearn(model, width=values.shape[1], output="variable").graph


def _further(head: Head, *, has_spacing: bool) -> tuple[GraphOutput, ...]:
    if head is Head.TOXICITY:
        return (NEXT_REGIME,)
    return (SPACING,) if has_spacing else ()


def _session(graph: bytes, head: Head, width: int, *, has_spacing: bool) -> OnnxSession:
    further = tuple(
        (output.name, len(output.classes)) for output in _further(head, has_spacing=has_spacing)
    )
    contract = GraphContract(
        input_name=INPUT_NAME,
        width=width,
        output_name=REGIME_OUTPUT,
        classes=CLASS_COUNT,
        further_outputs=further,
    )
    return open_session(graph, contract, execution_provider="cpu")


def _outputs(session: OnnxSession, values: Inputs) -> tuple[Any, ...]:
    return session.outputs(np.ascontiguousarray(values))


def shares_of(session: OnnxSession, values: Inputs) -> Floats:
    """Give what a graph says of the three classes, rows that sum to one exactly enough."""
    found = _outputs(session, values)[0].astype(np.float64)
    return np.asarray(found / found.sum(axis=1, keepdims=True), dtype=np.float64)


def _accuracy(fit: _Fit, rows: Rows, fold: Fold) -> float:
    scores = np.asarray(rows.targets[SCORE], dtype=np.float64)
    classes = classes_of(scores, tercile_cuts(scores[fold.train]))
    said = shares_of(fit.session, rows.values[fold.test]).argmax(axis=1)
    return float(np.mean(said == classes[fold.test]))


def _hits(shares: Any, classes: Classes) -> int:
    return round(float(np.mean(np.asarray(shares).argmax(axis=1) == classes)) * BPS_ONE)


def _facts(dataset: Dataset, fold: Fold) -> DataFacts:
    manifest, rows = dataset.manifest, dataset.rows
    scores = np.asarray(rows.targets[SCORE], dtype=np.float64)
    cuts = tercile_cuts(scores[fold.train])
    counts = tuple(
        ClassCount(part=part, output_class=name, count=int(np.sum(found == number)))
        for part in PARTS
        for found in [classes_of(scores[getattr(fold, part)], cuts)]
        for number, name in enumerate(REGIME_CLASSES)
    )
    cut_text = " and ".join(f"{cut:.3f}" for cut in cuts)
    return DataFacts(
        head=manifest.head,
        feature_set=dataset.feature_set,
        label_definition=f"{manifest.label_definition}; cut at {cut_text} bps",
        data_hash=manifest.data_hash,
        symbols=manifest.symbols,
        bar_count=manifest.bar_count,
        gap_count=manifest.gap_count,
        start_ts_ms=bounds_of(rows.ts_ms, fold.train)[0],
        train_end_ts_ms=bounds_of(rows.label_ts_ms, fold.train)[1],
        cutoff_ts_ms=bounds_of(rows.label_ts_ms, fold.calibration)[1],
        class_counts=counts,
    )
