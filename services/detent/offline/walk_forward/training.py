"""Train on a data set: search, fit every candidate in every fold, choose, pack, record.

Source: seed 003, section 12.9; rows R143 to R154, R163, R164, R168.
"""

from pathlib import Path

import msgspec
import numpy as np

from detent.adapters.artifact_store import read_pinned_manifest
from detent.contracts.binding import Head
from detent.contracts.errors import DataInvalid, InvalidField
from detent.contracts.manifest import Manifest
from detent.core.evaluation.scores import Floats
from detent.core.signals.calibration import Calibrator
from detent.offline.building import direction_counts
from detent.offline.datasets.folder import Dataset
from detent.offline.datasets.manifest import DatasetManifest
from detent.offline.datasets.rows import Rows
from detent.offline.evaluating import evaluate
from detent.offline.packing import (
    DataFacts,
    Identity,
    PackedModel,
    golden_places,
    pack_artifact,
)
from detent.offline.samples import Progress
from detent.offline.walk_forward.candidate import Rows as FitRows
from detent.offline.walk_forward.candidates import BY_ID, DEFAULT_IDS
from detent.offline.walk_forward.choice import Choice, choose, simplest_first
from detent.offline.walk_forward.engine import Engine, run_all
from detent.offline.walk_forward.fold_fit import FoldFit, FoldTask, fit_fold
from detent.offline.walk_forward.folds import (
    PARTS,
    Fold,
    FoldPlan,
    bounds_of,
    check_both_classes,
    inner_split,
    walk_forward,
)
from detent.offline.walk_forward.leakage import check_plausible
from detent.offline.walk_forward.record import RunRecord, check_free, run_folder, write_run
from detent.offline.walk_forward.recording import (
    baseline_losses,
    candidate_records,
    feature_weights,
    fold_records,
    library_versions,
    predictions_of,
)
from detent.offline.walk_forward.search import Study, params_of, search

FOLDS_MAX = 50
TRIALS_MAX = 1_000


class TrainingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """States what a person decides about a run.

    Attributes:
        model_name: Name of the model's line, `a-z 0-9 _`.
        model_version: `v<major>.<minor>.<patch>`.
        created_at: UTC, an input, so that a rebuild is byte-identical.
        seed: Seed of every fit and search.
        architectures: What is tried.
        fold_count: Test blocks.
        embargo_bars: Bars between the last outcome of a part and the next part.
        trial_count: Trials of each search; 0 for none.
        n_samples: Only so many of the newest rows; None for all.
        git_sha: Commit of the code, 40 hex; None when unknown.
        notes: What a person wants to remember.
    """

    model_name: str
    model_version: str
    created_at: str
    seed: int = 0
    architectures: tuple[str, ...] = DEFAULT_IDS
    fold_count: int = 5
    embargo_bars: int = 1
    trial_count: int = 8
    n_samples: int | None = None
    git_sha: str | None = None
    notes: str | None = None

    def __post_init__(self) -> None:
        """Refuse a run of nothing."""
        unknown = [one for one in self.architectures if one not in BY_ID]
        if unknown or not self.architectures:
            found = ", ".join(unknown) or "none"
            raise InvalidField("architectures", found, f"some of {', '.join(BY_ID)}")
        if len(set(self.architectures)) != len(self.architectures):
            raise InvalidField("architectures", ", ".join(self.architectures), "each once")
        limits = (
            ("seed", 0, 2**31 - 1),
            ("fold_count", 1, FOLDS_MAX),
            ("embargo_bars", 0, 10_000),
            ("trial_count", 0, TRIALS_MAX),
        )
        for name, low, high in limits:
            if not low <= getattr(self, name) <= high:
                raise InvalidField(name, getattr(self, name), f"[{low}, {high}]")


class _Run(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Holds what every step of a run reads."""

    dataset: Dataset
    rows: Rows
    folds: tuple[Fold, ...]
    plan: FoldPlan
    request: TrainingRequest
    progress: Progress

    @property
    def window(self) -> tuple[int, ...]:
        """Give the shape of a row where it is a window."""
        feature_set = self.dataset.feature_set
        rows = feature_set.window_rows
        return (rows, len(feature_set.features)) if rows > 1 else ()


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    """Says where a run put what it made.

    Attributes:
        artifact: The artifact's directory.
        run: The run's folder.
        record: What stands in `run.json`.
    """

    artifact: Path
    run: Path
    record: RunRecord


def train(
    dataset: Dataset,
    request: TrainingRequest,
    *,
    out_dir: Path,
    engine: Engine,
    progress: Progress,
    predecessor: Path | None = None,
) -> Trained:
    """Train a direction model and keep the evidence for it.

    The artifact is the chosen candidate as the last fold fitted it: its newest test block is
    the newest data, and what was measured there is what is served.

    Raises:
        DataInvalid: The rows are too few, leak, or are of another head; no candidate can be
            calibrated; or the artifact or its run exists.
        InvalidField: A field is malformed.
        ArtifactInvalid: A graph would be refused.
        OSError: The folder cannot be made.
    """
    identity = _identity(dataset.manifest, request)
    # Before anything is fitted: where it goes is there, and holds neither artifact nor run.
    out_dir.mkdir(parents=True, exist_ok=True)
    check_free(out_dir / identity.model_id)
    check_free(run_folder(out_dir, identity.model_id))
    before = None if predecessor is None else read_pinned_manifest(predecessor).manifest
    if dataset.manifest.head is not Head.DIRECTION:
        found = str(dataset.manifest.head)
        raise DataInvalid(f"head: found {found}, expected direction", found=found)
    rows = dataset.rows if request.n_samples is None else dataset.rows.newest(request.n_samples)
    interval_ms = dataset.manifest.bar_interval_ms
    plan = FoldPlan(fold_count=request.fold_count, embargo_ms=request.embargo_bars * interval_ms)
    folds = walk_forward(rows.ts_ms, rows.label_ts_ms, plan)
    check_both_classes(rows.labels, folds)
    oldest = folds[0].train
    check_plausible(rows.values[oldest], rows.labels[oldest], dataset.feature_set.input_names)
    run = _Run(
        dataset=dataset, rows=rows, folds=folds, plan=plan, request=request, progress=progress
    )
    studies = _search(run)
    fits = _fit(run, engine, studies)
    said = _said(fits)
    tested = np.concatenate([fold.test for fold in folds])
    choice = choose(
        said, rows.labels[tested], rows.ts_ms[tested], horizon_bars=dataset.manifest.horizon_bars
    )
    last = fits[choice.architecture_id][-1]
    artifact = _pack(run, identity, last, out_dir=out_dir, predecessor=before)
    record = _record(run, studies, fits, choice=choice, artifact=artifact)
    chosen = fits[choice.architecture_id]
    folder = write_run(
        run_folder(out_dir, record.model_id), record, predictions_of(rows, folds, chosen)
    )
    return Trained(artifact=artifact, run=folder, record=record)


def _search(run: _Run) -> dict[str, Study]:
    """Search on the training rows of the first fold; nothing else is ever looked at."""
    rows, request = run.rows, run.request
    searched = [one for one in request.architectures if BY_ID[one].space is not None]
    total, done = len(searched) * request.trial_count, 0
    if not total:
        return {}
    inner = inner_split(run.folds[0].train, rows.ts_ms, rows.label_ts_ms, run.plan)
    fitted_on, judged_on = (
        FitRows(values=rows.values[part], labels=rows.labels[part], window=run.window)
        for part in (inner.train, inner.calibration)
    )

    def told() -> None:
        nonlocal done
        done += 1
        run.progress("search", done, total)

    studies = {}
    for name in searched:
        study = search(
            BY_ID[name],
            fitted_on,
            judged_on,
            trial_count=request.trial_count,
            seed=request.seed,
            told=told,
        )
        if study is not None:
            studies[name] = study
    return studies


def _fit(run: _Run, engine: Engine, studies: dict[str, Study]) -> dict[str, list[FoldFit]]:
    rows, request = run.rows, run.request
    symbol_count = len(run.dataset.manifest.symbols)
    tasks = [
        FoldTask(
            architecture_id=name,
            params=dict(params_of(BY_ID[name], studies)),
            seed=request.seed,
            fold=fold,
            plan=run.plan,
            ts_ms=rows.ts_ms,
            label_ts_ms=rows.label_ts_ms,
            values=rows.values,
            labels=rows.labels,
            window=run.window,
            purge_rows=(run.dataset.manifest.horizon_bars + request.embargo_bars) * symbol_count,
        )
        for name in simplest_first(request.architectures)
        # The last fold is the largest: it starts first, so that no worker waits for it alone.
        for fold in reversed(run.folds)
    ]
    run.progress("folds", 0, len(tasks))
    fits: dict[str, list[FoldFit]] = {}
    for fit in run_all(
        fit_fold, tasks, engine, told=lambda done: run.progress("folds", done, len(tasks))
    ):
        fits.setdefault(fit.architecture_id, []).append(fit)
    return {name: sorted(found, key=lambda fit: fit.fold_number) for name, found in fits.items()}


def _said(fits: dict[str, list[FoldFit]]) -> dict[str, Floats]:
    """Give what each candidate said out of fold; one without a calibration is out.

    Raises:
        DataInvalid: All are out; the message says why each is.
    """
    said = {
        name: np.concatenate([fit.p for fit in found])
        for name, found in fits.items()
        if all(fit.refusal is None for fit in found)
    }
    if not said:
        first = {
            name: next(fit for fit in found if fit.refusal is not None)
            for name, found in fits.items()
        }
        found = "; ".join(f"{k}, fold {fit.fold_number}: {fit.refusal}" for k, fit in first.items())
        expected = "a candidate with a calibration in every fold"
        raise DataInvalid(f"found none, {found}; expected {expected}", found=found)
    return said


def _identity(manifest: DatasetManifest, request: TrainingRequest) -> Identity:
    return Identity(
        model_name=request.model_name,
        model_version=request.model_version,
        created_at=request.created_at,
        horizon_bars=manifest.horizon_bars,
        horizon_id=manifest.horizon_id,
        git_sha=request.git_sha,
        dataset_id=manifest.dataset_id,
        notes=request.notes,
    )


def _pack(
    run: _Run, identity: Identity, fit: FoldFit, *, out_dir: Path, predecessor: Manifest | None
) -> Path:
    rows, fold, request = run.rows, run.folds[-1], run.request
    manifest, candidate = run.dataset.manifest, BY_ID[fit.architecture_id]
    assert fit.calibration is not None
    calibrator = Calibrator.of(fit.calibration)
    evaluation = evaluate(
        fit.p_raw,
        np.array([calibrator.probability(float(p)) for p in fit.p_raw]),
        rows.labels[fold.test],
        base_share=float(np.mean(rows.labels[fold.train])),
    )
    facts = DataFacts(
        head=manifest.head,
        feature_set=run.dataset.feature_set,
        label_definition=manifest.label_definition,
        data_hash=manifest.data_hash,
        symbols=manifest.symbols,
        bar_count=manifest.bar_count,
        gap_count=manifest.gap_count,
        start_ts_ms=bounds_of(rows.ts_ms, fold.train)[0],
        train_end_ts_ms=bounds_of(rows.label_ts_ms, fold.train)[1],
        cutoff_ts_ms=bounds_of(rows.label_ts_ms, fold.calibration)[1],
        class_counts=direction_counts({name: rows.labels[getattr(fold, name)] for name in PARTS}),
    )
    model = PackedModel(
        graph=fit.graph,
        architecture_id=fit.architecture_id,
        framework=candidate.framework,
        opset=fit.opset,
        seed=request.seed,
        train_accuracy=fit.train_accuracy,
        calibration=fit.calibration,
        accuracy_bps=evaluation.accuracy_bps,
        metrics=evaluation.metrics,
        golden_inputs=rows.values[fold.test[golden_places(len(fold.test))]],
        input_shape=fit.input_shape,
        reliability_raw=evaluation.reliability_raw,
        reliability=evaluation.reliability,
    )
    return pack_artifact(
        identity, facts, model, out_dir=out_dir, progress=run.progress, predecessor=predecessor
    )


def _record(
    run: _Run,
    studies: dict[str, Study],
    fits: dict[str, list[FoldFit]],
    *,
    choice: Choice,
    artifact: Path,
) -> RunRecord:
    rows, folds, request = run.rows, run.folds, run.request
    manifest = run.dataset.manifest
    proxy_ppm, base_ppm = baseline_losses(rows, folds)
    params = {name: params_of(BY_ID[name], studies) for name in fits}
    return RunRecord(
        model_id=artifact.name,
        model_version_hash=read_pinned_manifest(artifact).manifest.model_version_hash,
        dataset_id=manifest.dataset_id,
        dataset_hash=manifest.dataset_hash,
        data_hash=manifest.data_hash,
        row_count=len(rows),
        seed=request.seed,
        embargo_ms=request.embargo_bars * manifest.bar_interval_ms,
        purge_bars=manifest.horizon_bars,
        folds=fold_records(rows, folds),
        candidates=candidate_records(rows, folds, fits, params),
        trial_count=len(fits) + sum(len(study.trials) for study in studies.values()),
        studies=tuple(studies.values()),
        choice=choice,
        weights=feature_weights(
            rows,
            folds[-1],
            fits[choice.architecture_id][-1],
            manifest.input_features,
            seed=request.seed,
        ),
        proxy_log_loss_ppm=proxy_ppm,
        base_log_loss_ppm=base_ppm,
        library_versions=library_versions(),
    )
