"""Train exclusive outcomes: one against the rest each, then coupled to one distribution.

Each outcome has a logistic regression of its own. Its Platt map is fitted on the older calibration
rows, and the temperature of the coupled group on the newer ones, which none of them has seen.

Source: decisions D15 and D16; QUANT A1; rows R264 and R271.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from detent.adapters.graph_audit import audit_graph
from detent.adapters.onnx_session import GraphContract, OnnxSession, open_session
from detent.contracts.binding import Head
from detent.contracts.calibration import BracketsSpec
from detent.contracts.canonical import sha256_hex
from detent.contracts.checks import check_int, check_name
from detent.contracts.errors import ArtifactInvalid, DataInvalid, InvalidField
from detent.contracts.manifest import Metric
from detent.contracts.reasons import Reason
from detent.contracts.units import BPS_ONE, INT64_MAX, PPM_ONE
from detent.core.evaluation.class_scores import class_log_loss, top_label_accuracy
from detent.core.evaluation.scores import LOG_LOSS_NAME
from detent.core.features.engine import EngineConfig
from detent.core.features.feature_set import FeatureSet
from detent.core.features.feature_spec import caller_feature
from detent.core.signals.calibration_brackets import BracketsCalibrator, fit_brackets
from detent.offline.cells import (
    check_filled,
    columns_of,
    input_cell,
    integer_cell,
    invalid,
    invalid_at,
    raw_cells,
)
from detent.offline.packing import DataFacts, Identity, PackedModel, golden_places, pack_artifact
from detent.offline.samples import Progress
from detent.offline.train_report import ClassCount
from detent.offline.walk_forward.export import INPUT_NAME, OUTPUT_NAME, Inputs, export_logits
from detent.offline.walk_forward.folds import (
    PARTS,
    Fold,
    FoldPlan,
    Ints,
    bounds_of,
    inner_split,
    walk_forward,
)

KEYS = ("ts_ms", "settled_ts_ms", "symbol", "outcome")
Floats = NDArray[np.float64]
OUTCOMES_MIN = 2
# How far the graph, in float32, may be from the regressions.
PARITY_MAX = 1e-5


class Events(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Holds events and which of their exclusive outcomes came true, in the order of time.

    Attributes:
        ts_ms: Shape (n,): when the model would have been asked.
        settled_ts_ms: Shape (n,): when the outcome was known.
        symbols: Shape (n,): what the event belongs to.
        features: Names of the inputs.
        values: Shape (n, features), float32.
        outcomes: Shape (n,), int64, places in `brackets`.
        brackets: The outcomes, by name.
        data_hash: SHA-256 of the file, 64 hex.
    """

    ts_ms: Ints
    settled_ts_ms: Ints
    symbols: NDArray[np.object_]
    features: tuple[str, ...]
    values: Inputs
    outcomes: Ints
    brackets: tuple[str, ...]
    data_hash: str


class BracketsFold(msgspec.Struct, frozen=True, kw_only=True):
    """Reports one fold on its test rows.

    Attributes:
        number: Which fold.
        coupled_log_loss_ppm: Of the distribution that is served.
        apart_log_loss_ppm: Of the calibrated probabilities divided by their sum: uncoupled.
        base_log_loss_ppm: Of the shares of the outcomes in the training rows.
        temperature_x1000: What the group is tempered by.
        refused: Test rows whose outcomes contradict one another; in no score.
    """

    number: int
    coupled_log_loss_ppm: int
    apart_log_loss_ppm: int
    base_log_loss_ppm: int
    temperature_x1000: int
    refused: int


def read_events(path: Path) -> Events:
    """Read a `.parquet` or `.csv` file: `KEYS`, and every other column is an input.

    Raises:
        DataInvalid: A row is not what it should be, or there are no inputs or outcomes to tell.
    """
    features = tuple(name for name in columns_of(path) if name not in KEYS)
    if not features:
        raise invalid(path.name, "no column beside the keys", f"{', '.join(KEYS)} and inputs")
    rows = sorted(_rows(path, features), key=lambda row: (row[0], row[2]))
    brackets = tuple(sorted({row[3] for row in rows}))
    if len(brackets) < OUTCOMES_MIN:
        raise invalid(path.name, f"{len(brackets)} outcomes", f"at least {OUTCOMES_MIN}")
    places = {key: place for place, key in enumerate(brackets)}
    return Events(
        ts_ms=np.array([row[0] for row in rows], dtype=np.int64),
        settled_ts_ms=np.array([row[1] for row in rows], dtype=np.int64),
        symbols=np.array([row[2] for row in rows], dtype=object),
        features=features,
        values=np.array([row[4] for row in rows], dtype="<f4").reshape(len(rows), len(features)),
        outcomes=np.array([places[row[3]] for row in rows], dtype=np.int64),
        brackets=brackets,
        data_hash=sha256_hex(path.read_bytes()),
    )


def _rows(path: Path, features: Sequence[str]) -> Iterator[tuple[int, int, str, str, list[float]]]:
    for row, cells in raw_cells(path, (*KEYS, *features)):
        check_filled(path.name, row, cells, (*KEYS, *features))
        try:
            asked, settled = (integer_cell(name, cells[name]) for name in KEYS[:2])
            check_int("settled_ts_ms", settled, asked + 1, INT64_MAX)
            outcome = str(cells["outcome"])
            check_name("outcome", outcome)
            values = [input_cell(name, cells[name]) for name in features]
        except InvalidField as error:
            raise invalid_at(path.name, row, error) from error
        yield asked, settled, str(cells["symbol"]), outcome, values


def brackets_events_v1(features: Sequence[str], bar_interval_ms: int) -> FeatureSet:
    """Give the inputs of an event: all of them the caller's, who alone knows its event."""
    return FeatureSet(
        name="brackets_events_v1",
        features=tuple(caller_feature(name) for name in features),
        engine=EngineConfig(bar_interval_ms=bar_interval_ms),
    )


class _Fit(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    graph: bytes
    calibration: BracketsSpec
    report: BracketsFold
    train_accuracy: float
    test_accuracy: float


def train_brackets(
    events: Events,
    identity: Identity,
    plan: FoldPlan,
    *,
    bar_interval_ms: int,
    seed: int,
    out_dir: Path,
    progress: Progress,
) -> tuple[Path, tuple[BracketsFold, ...]]:
    """Train and pack exclusive outcomes; the artifact is the model of the last fold.

    Args:
        events: What came true.
        identity: What a person says of the artifact.
        plan: How rows are cut.
        bar_interval_ms: Length of the bars of the plans that will ask.
        seed: Seed of every fit.
        out_dir: Folder of artifacts.
        progress: Told of (stage, done, in all).

    Returns:
        The artifact's directory, and how every fold did.

    Raises:
        DataInvalid: A part has too few rows, or lacks an outcome.
        ArtifactInvalid: The outcomes cannot be calibrated or coupled, or the graph is refused.
    """
    folds = walk_forward(events.ts_ms, events.settled_ts_ms, plan)
    fits = []
    for fold in folds:
        progress("folds", fold.number, len(folds))
        fits.append(_fit(events, fold, plan, seed=seed))
    progress("folds", len(folds), len(folds))
    last, fold = fits[-1], folds[-1]
    model = PackedModel(
        graph=last.graph,
        architecture_id="logistic",
        framework="scikit-learn",
        opset=17,
        seed=seed,
        train_accuracy=last.train_accuracy,
        calibration=last.calibration,
        accuracy_bps=round(last.test_accuracy * BPS_ONE),
        metrics=(
            Metric(name=f"{LOG_LOSS_NAME}_apart_ppm", value=last.report.apart_log_loss_ppm),
            Metric(name=f"{LOG_LOSS_NAME}_base_ppm", value=last.report.base_log_loss_ppm),
            Metric(name=f"{LOG_LOSS_NAME}_ppm", value=last.report.coupled_log_loss_ppm),
        ),
        golden_inputs=events.values[fold.test[golden_places(len(fold.test))]],
        output_classes=events.brackets,
    )
    facts = _facts(events, fold, bar_interval_ms)
    path = pack_artifact(identity, facts, model, out_dir=out_dir, progress=progress)
    return path, tuple(fit.report for fit in fits)


def _fit(events: Events, fold: Fold, plan: FoldPlan, *, seed: int) -> _Fit:
    width, count = events.values.shape[1], len(events.brackets)
    graph, said = _regressions(events, fold.train, seed=seed)
    audit_graph(graph)
    contract = GraphContract(
        input_name=INPUT_NAME, width=width, output_name=OUTPUT_NAME, classes=count
    )
    session = open_session(graph, contract, execution_provider="cpu")
    tested = _asked(session, events.values[fold.test])
    parity = float(np.max(np.abs(tested - said(events.values[fold.test]))))
    if parity > PARITY_MAX:
        expected = f"at most {PARITY_MAX} between regressions and graph"
        message = f"brackets: found a distance of {parity}, expected {expected}"
        raise ArtifactInvalid(message, found=parity, expected=expected)
    # The temperature sees rows that no Platt map has seen, with a purge between.
    parts = inner_split(fold.calibration, events.ts_ms, events.settled_ts_ms, plan)
    older, newer = parts.train, parts.calibration
    calibration = fit_brackets(
        events.brackets,
        _asked(session, events.values[older]),
        events.outcomes[older],
        p_hat_raw_later=_asked(session, events.values[newer]),
        outcomes_later=events.outcomes[newer],
    )
    report, accuracy = _measured(events, fold, calibration, tested)
    own = _asked(session, events.values[fold.train]).argmax(axis=1)
    return _Fit(
        graph=graph,
        calibration=calibration,
        report=report,
        train_accuracy=float(np.mean(own == events.outcomes[fold.train])),
        test_accuracy=accuracy,
    )


def _regressions(
    events: Events, rows: Ints, *, seed: int
) -> tuple[bytes, Callable[[Inputs], Floats]]:
    """Fit one regression per outcome; gives the graph, and what the library says itself."""
    values = events.values[rows].astype(np.float64)
    outcomes = events.outcomes[rows]
    for place, key in enumerate(events.brackets):
        if not 0 < np.count_nonzero(outcomes == place) < len(rows):
            found = f"no training row, or every one, in which {key} came true"
            raise DataInvalid(f"found {found}, expected both kinds", found=found)
    mean, spread = values.mean(axis=0), values.std(axis=0)
    scale = np.where(spread > 0.0, spread, 1.0)
    fitted = [
        LogisticRegression(random_state=seed).fit((values - mean) / scale, outcomes == place)
        for place in range(len(events.brackets))
    ]
    exported = export_logits(
        mean,
        scale,
        np.stack([one.coef_[0] for one in fitted]),
        np.array([one.intercept_[0] for one in fitted]),
    )

    def said(inputs: Inputs) -> Floats:
        scaled = (inputs.astype(np.float64) - mean) / scale
        return np.stack([one.predict_proba(scaled)[:, 1] for one in fitted], axis=1)

    return exported.graph, said


def _asked(session: OnnxSession, values: Inputs) -> Floats:
    return session.outputs(np.ascontiguousarray(values))[0].astype(np.float64)


def _measured(
    events: Events, fold: Fold, calibration: BracketsSpec, tested: Floats
) -> tuple[BracketsFold, float]:
    """Score what would be served on test rows; gives how often the most probable came true."""
    served = BracketsCalibrator.of(calibration)
    expected = events.outcomes[fold.test]
    coupled, apart, kept = [], [], []
    for place, row in enumerate(tested.tolist()):
        p_hat = [one.probability(p) for one, p in zip(served.calibrators, row, strict=True)]
        distribution = served.distribution(p_hat)
        if isinstance(distribution, Reason):
            continue
        kept.append(place)
        coupled.append(distribution)
        apart.append([p / sum(p_hat) for p in p_hat])
    if not kept:
        found = "no test row that can be coupled"
        raise ArtifactInvalid(f"brackets: found {found}, expected some", found=found)
    shares, came_true = np.array(coupled), expected[kept]
    base = np.bincount(events.outcomes[fold.train], minlength=len(events.brackets))
    base_shares = np.tile(base / base.sum(), (len(kept), 1))
    report = BracketsFold(
        number=fold.number,
        coupled_log_loss_ppm=round(class_log_loss(shares, came_true) * PPM_ONE),
        apart_log_loss_ppm=round(class_log_loss(np.array(apart), came_true) * PPM_ONE),
        base_log_loss_ppm=round(class_log_loss(base_shares, came_true) * PPM_ONE),
        temperature_x1000=round(calibration.temperature * 1_000),
        refused=len(expected) - len(kept),
    )
    return report, top_label_accuracy(shares, came_true)


def _facts(events: Events, fold: Fold, bar_interval_ms: int) -> DataFacts:
    counts = tuple(
        ClassCount(part=part, output_class=key, count=int(np.sum(outcomes == place)))
        for part in PARTS
        for outcomes in [events.outcomes[getattr(fold, part)]]
        for place, key in enumerate(events.brackets)
    )
    return DataFacts(
        head=Head.BRACKETS,
        feature_set=brackets_events_v1(events.features, bar_interval_ms),
        label_definition="the one of the exclusive outcomes that came true, as the file says",
        data_hash=events.data_hash,
        symbols=tuple(sorted(set(events.symbols))),
        bar_count=0,
        gap_count=0,
        start_ts_ms=bounds_of(events.ts_ms, fold.train)[0],
        train_end_ts_ms=bounds_of(events.settled_ts_ms, fold.train)[1],
        cutoff_ts_ms=bounds_of(events.settled_ts_ms, fold.calibration)[1],
        class_counts=counts,
    )
