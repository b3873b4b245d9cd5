"""Fit, export, calibrate and ask a candidate in one fold: the unit of work of a run."""

import msgspec
import numpy as np

from detent.adapters.graph_audit import audit_graph
from detent.adapters.onnx_session import GraphContract, OnnxSession, open_session
from detent.contracts.binding import Head
from detent.contracts.calibration import Calibration
from detent.contracts.errors import ArtifactInvalid
from detent.contracts.manifest import OUTPUT_CLASSES
from detent.core.evaluation.scores import Floats, Labels, accuracy
from detent.core.signals.binary_maps import binary_map
from detent.core.signals.calibration_choice import choose_calibration
from detent.offline.walk_forward.candidate import Rows
from detent.offline.walk_forward.candidates import BY_ID
from detent.offline.walk_forward.export import INPUT_NAME, OUTPUT_NAME, Inputs
from detent.offline.walk_forward.folds import Fold, FoldPlan, Ints, check_fold

# How far what is served may be from what was fitted.
PARITY_MAX = 1e-6


class FoldTask(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """States one fit.

    Attributes:
        architecture_id: Which candidate.
        params: What it is fitted with.
        seed: Seed of the fit.
        fold: Which rows.
        plan: How far apart its parts must be.
        ts_ms: Shape (n,): when every row was read.
        label_ts_ms: Shape (n,): when its label was known.
        values: Shape (n, width): the inputs of all rows.
        labels: Shape (n,).
        window: Shape of a row where it is a window; empty for a flat row.
        purge_rows: Rows between the blocks of the calibration's own choice.
    """

    architecture_id: str
    params: dict[str, int]
    seed: int
    fold: Fold
    plan: FoldPlan
    ts_ms: Ints
    label_ts_ms: Ints
    values: Inputs
    labels: Labels
    window: tuple[int, ...]
    purge_rows: int


class FoldFit(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Holds what one fit gave.

    Attributes:
        architecture_id: Which candidate.
        fold_number: Which fold.
        graph: Content of `model.onnx`.
        input_shape: Shape of a row where it is a window.
        opset: Version of its operators.
        train_accuracy: On the rows that it was fitted on.
        parity: Largest distance between what the library and what the graph say.
        calibration: What was chosen and fitted on the fold's own calibration rows.
        refusal: Why there is none; the candidate is out then.
        p_raw: Shape (test rows,): what the graph says.
        p: Shape (test rows,): calibrated.
    """

    architecture_id: str
    fold_number: int
    graph: bytes
    input_shape: tuple[int, ...]
    opset: int
    train_accuracy: float
    parity: float
    calibration: Calibration | None
    refusal: str | None
    p_raw: Floats
    p: Floats


def fit_fold(task: FoldTask) -> FoldFit:
    """Fit one candidate in one fold.

    Raises:
        DataInvalid: The parts of the fold see one another.
        ArtifactInvalid: The graph would be refused, or says something else than the model.
    """
    fold = task.fold
    # (1) Asked again here, so that no fold that leaks is ever fitted on, whoever made it.
    check_fold(fold, task.ts_ms, task.label_ts_ms, task.plan)
    candidate = BY_ID[task.architecture_id]
    train = Rows(values=task.values[fold.train], labels=task.labels[fold.train], window=task.window)
    fitted = candidate.fit(train, task.params, seed=task.seed)
    # (2) From here on only the exported graph speaks: what is measured is what is served.
    audit_graph(fitted.exported.graph)
    session = direction_session(
        fitted.exported.graph,
        width=task.values.shape[1],
        input_shape=fitted.exported.input_shape,
    )
    judged = task.values[fold.test]
    p_raw = up(session, judged)
    parity = float(np.max(np.abs(p_raw - fitted.native(judged))))
    if parity > PARITY_MAX:
        raise ArtifactInvalid(
            f"{task.architecture_id}: found a distance of {parity} between model and graph, "
            f"expected at most {PARITY_MAX}",
            found=parity,
            expected=f"at most {PARITY_MAX}",
        )
    calibration, refusal = _calibrated(task, up(session, task.values[fold.calibration]))
    p = p_raw if calibration is None else binary_map(calibration).many(p_raw)
    return FoldFit(
        architecture_id=task.architecture_id,
        fold_number=fold.number,
        graph=fitted.exported.graph,
        input_shape=fitted.exported.input_shape,
        opset=fitted.exported.opset,
        train_accuracy=accuracy(np.clip(fitted.native(train.values), 0.0, 1.0), train.labels),
        parity=parity,
        calibration=calibration,
        refusal=refusal,
        p_raw=p_raw,
        p=p,
    )


def direction_session(
    graph: bytes, *, width: int, input_shape: tuple[int, ...] = ()
) -> OnnxSession:
    """Open a graph of the direction head as it is served."""
    contract = GraphContract(
        input_name=INPUT_NAME,
        width=width,
        output_name=OUTPUT_NAME,
        classes=len(OUTPUT_CLASSES[Head.DIRECTION]),
        input_shape=input_shape,
    )
    return open_session(graph, contract, execution_provider="cpu")


def up(session: OnnxSession, values: Inputs) -> Floats:
    """Give what a graph says of the last class, shape (n,)."""
    return session.outputs(np.ascontiguousarray(values))[0][:, -1].astype(np.float64)


def _calibrated(task: FoldTask, p_raw: Floats) -> tuple[Calibration | None, str | None]:
    """Choose a calibration on the fold's own rows; a model that has none is out."""
    labels = task.labels[task.fold.calibration]
    try:
        choice = choose_calibration(p_raw, labels, purge_rows=task.purge_rows)
    except ArtifactInvalid as error:
        return None, error.message
    return choice.spec, None
