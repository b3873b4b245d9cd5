"""Build a direction artifact of bars in one step: one split, the baseline, no search.

It is the short way, for a demonstration and for tests; `walk_forward` is the way that gives
evidence. Both fit, export and pack by the same code.
"""

from pathlib import Path

import msgspec
import numpy as np

from detent.adapters.graph_audit import audit_graph
from detent.adapters.onnx_session import OnnxSession
from detent.contracts.binding import Head
from detent.contracts.calibration import Calibration, CalibrationMethod
from detent.contracts.manifest import OUTPUT_CLASSES, Manifest
from detent.core.evaluation.scores import FORMER_LOG_LOSS_NAME, Labels, accuracy
from detent.core.features.feature_set import FeatureSet
from detent.core.signals.calibration import Calibrator
from detent.core.signals.calibration_choice import BINARY_FITS, choose_calibration
from detent.offline.bars import BarTable
from detent.offline.evaluating import evaluate
from detent.offline.labels import direction_label_definition
from detent.offline.packing import (
    DataFacts,
    Identity,
    PackedModel,
    golden_places,
    pack_artifact,
)
from detent.offline.samples import Parts, Progress, Samples, direction_samples, split_by_time
from detent.offline.train_report import ClassCount
from detent.offline.walk_forward.candidate import Rows
from detent.offline.walk_forward.candidates import LOGISTIC
from detent.offline.walk_forward.fold_fit import direction_session, up

STAGES = ("features", "train", "calibrate", "evaluate", "write", "verify")
# The baseline draws nothing; the seed is fixed and reported for whatever follows it.
SEED = 0


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
        InvalidField: A name, version or time is malformed, or the version says less than what
            changed since the predecessor.
        ArtifactInvalid: The model cannot be calibrated, a field of the recipe is not what
            it should be, or the artifact's directory exists.
    """
    identity = Identity(
        model_name=recipe.model_name,
        model_version=recipe.model_version,
        created_at=recipe.created_at,
        horizon_bars=recipe.horizon_bars,
        horizon_id=recipe.horizon_id,
    )
    samples = direction_samples(
        table, recipe.feature_set, horizon_bars=recipe.horizon_bars, progress=progress
    )
    parts = split_by_time(samples)
    model = _fit(parts, recipe, symbol_count=len(table.bars), progress=progress)
    facts = DataFacts(
        head=Head.DIRECTION,
        feature_set=recipe.feature_set,
        label_definition=direction_label_definition(
            horizon_bars=recipe.horizon_bars, bar_interval_ms=table.interval_ms
        ),
        data_hash=table.data_hash,
        symbols=tuple(sorted(table.bars)),
        bar_count=table.bar_count,
        gap_count=len(table.gaps),
        start_ts_ms=min(bars[0].ts_ms for bars in table.bars.values()),
        train_end_ts_ms=int(parts.train.label_ts_ms.max()),
        cutoff_ts_ms=int(parts.calibration.label_ts_ms.max()),
        class_counts=direction_counts(
            {name: getattr(parts, name).labels for name in Parts.__struct_fields__}
        ),
    )
    return pack_artifact(
        identity, facts, model, out_dir=out_dir, progress=progress, predecessor=predecessor
    )


def direction_counts(labels: dict[str, Labels]) -> tuple[ClassCount, ...]:
    """Count the rows of each part by class."""
    down, up_class = OUTPUT_CLASSES[Head.DIRECTION]
    return tuple(
        ClassCount(part=part, output_class=output_class, count=int(count))
        for part, found in labels.items()
        for output_class, count in ((down, len(found) - found.sum()), (up_class, found.sum()))
    )


def _fit(parts: Parts, recipe: Recipe, *, symbol_count: int, progress: Progress) -> PackedModel:
    progress("train", 0, 1)
    train = parts.train
    fitted = LOGISTIC.fit(
        Rows(values=train.values, labels=train.labels), LOGISTIC.params, seed=SEED
    )
    progress("train", 1, 1)
    # What serving would refuse is never written.
    audit_graph(fitted.exported.graph)
    # From here on only the exported graph speaks: what is measured is what will be served.
    session = direction_session(fitted.exported.graph, width=train.values.shape[1])
    progress("calibrate", 0, 1)
    calibration = _calibration(session, parts.calibration, recipe, symbol_count=symbol_count)
    calibrator = Calibrator.of(calibration)
    progress("calibrate", 1, 1)
    progress("evaluate", 0, 1)
    p_raw = up(session, parts.test.values)
    evaluation = evaluate(
        p_raw,
        np.array([calibrator.probability(float(p)) for p in p_raw]),
        parts.test.labels,
        base_share=float(np.mean(train.labels)),
        log_loss_name=FORMER_LOG_LOSS_NAME,
    )
    progress("evaluate", 1, 1)
    return PackedModel(
        graph=fitted.exported.graph,
        architecture_id=LOGISTIC.architecture_id,
        framework=LOGISTIC.framework,
        opset=fitted.exported.opset,
        seed=SEED,
        train_accuracy=accuracy(fitted.native(train.values), train.labels),
        calibration=calibration,
        accuracy_bps=evaluation.accuracy_bps,
        metrics=evaluation.metrics,
        golden_inputs=parts.test.values[golden_places(len(parts.test))],
        reliability_raw=evaluation.reliability_raw,
        reliability=evaluation.reliability,
    )


def _calibration(
    session: OnnxSession, samples: Samples, recipe: Recipe, *, symbol_count: int
) -> Calibration:
    p_raw, method = up(session, samples.values), recipe.calibration_method
    if method is not None:
        return BINARY_FITS[method](p_raw, samples.labels)
    # The label of a row looks so many bars ahead, and there is a row per symbol and bar.
    purge_rows = recipe.horizon_bars * symbol_count
    return choose_calibration(p_raw, samples.labels, purge_rows=purge_rows).spec
