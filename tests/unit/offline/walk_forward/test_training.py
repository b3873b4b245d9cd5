"""Training: the same bytes wherever it runs, and evidence that is strictly out of fold."""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
from pathlib import Path

import joblib
import numpy as np
import pyarrow.parquet as pq
import pytest
from msgspec import structs
from tests.unit.artifacts import contents_of
from tests.unit.training_rows import CREATED_AT, DATASET_ID, build, dataset, dataset_in

from detent.adapters.artifact_store import read_artifact
from detent.adapters.serving import open_serving
from detent.contracts.canonical import sha256_hex
from detent.contracts.errors import DataInvalid, InvalidField
from detent.contracts.signals import DirectionSignal
from detent.core.evaluation.scores import log_loss
from detent.core.features.shipped_sets import direction_window_v1
from detent.offline.commands import silent
from detent.offline.datasets.folder import read_dataset
from detent.offline.datasets.rows import PROXY
from detent.offline.train_report import parse_train_report
from detent.offline.walk_forward import training
from detent.offline.walk_forward.commands import train_folder
from detent.offline.walk_forward.engine import Engine, EngineKind, run_all
from detent.offline.walk_forward.fold_fit import FoldFit, FoldTask, fit_fold
from detent.offline.walk_forward.folds import FoldPlan, walk_forward
from detent.offline.walk_forward.record import parse_run, run_bytes
from detent.offline.walk_forward.training import Trained, TrainingRequest, train

ROOT = Path(__file__).parents[4]
REQUEST = TrainingRequest(
    model_name="planted",
    model_version="v1.0.0",
    created_at=CREATED_AT,
    seed=7,
    architectures=("gbt_lightgbm", "logistic", "random_forest"),
    fold_count=2,
    trial_count=2,
    git_sha="a" * 40,
    notes="planted",
)
AGAIN = """
import sys
from pathlib import Path
from tests.unit.offline.walk_forward.test_training import once
print(once(Path(sys.argv[1]), workers=int(sys.argv[2])).artifact)
"""
RAY = """
import sys, warnings
from pathlib import Path
from detent.offline.walk_forward.engine import Engine, EngineKind
from tests.unit.offline.walk_forward.test_training import once
print(once(Path(sys.argv[1]), workers=2, kind=EngineKind.RAY).artifact)
"""


def once(
    out_dir: Path,
    *,
    workers: int = 1,
    kind: EngineKind = EngineKind.LOCAL,
    request: TrainingRequest = REQUEST,
) -> Trained:
    """Train on the planted rows."""
    engine = Engine(kind=kind, workers=workers)
    return train(dataset(), request, out_dir=out_dir, engine=engine, progress=silent)


@functools.cache
def trained() -> Trained:
    """Give one run, made once."""
    return once(Path(tempfile.mkdtemp()))


def everything(path: Path) -> dict[str, bytes]:
    """Read an artifact and the run beside it."""
    run = path.with_name(f"{path.name}.run")
    evidence = {one.name: one.read_bytes() for one in sorted(run.iterdir())}
    return contents_of(path) | evidence


def run_script(text: str, *words: str) -> Path:
    """Run some code in a process of its own; its last line names the artifact."""
    done = subprocess.run(
        [sys.executable, "-c", text, *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return Path(done.stdout.strip().splitlines()[-1])


@pytest.mark.proves("R48", "R50", "R146")
def test_another_process_with_two_workers_gives_the_same_bytes(tmp_path: Path) -> None:
    """Artifact, record and predictions, to the byte."""
    path = run_script(AGAIN, str(tmp_path), "2")

    assert everything(path) == everything(trained().artifact)


@pytest.mark.long
@pytest.mark.proves("R48", "R50")
def test_a_ray_cluster_gives_the_same_bytes(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="ray is not installed")
    path = run_script(RAY, str(tmp_path))

    assert everything(path) == everything(trained().artifact)


@pytest.mark.proves("R48", "R146")
def test_another_seed_gives_other_bytes(tmp_path: Path) -> None:
    """Must-fail control of the test before."""
    request = structs.replace(REQUEST, seed=8, architectures=("random_forest",), trial_count=0)
    other = once(tmp_path / "a", request=request)
    mine = once(tmp_path / "b", request=structs.replace(request, seed=7))

    assert read_artifact(other.artifact).model != read_artifact(mine.artifact).model


@pytest.mark.proves("R67", "R143", "R144", "R145", "R56")
def test_artifact_and_run_name_each_other_and_their_data() -> None:
    record, artifact = trained().record, read_artifact(trained().artifact)
    manifest, report = artifact.manifest, parse_train_report(artifact.train_report)

    assert parse_run((trained().run / "run.json").read_bytes()) == record
    assert run_bytes(record) == (trained().run / "run.json").read_bytes()
    assert record.model_version_hash == manifest.model_version_hash
    assert manifest.dataset_id == record.dataset_id == report.dataset_id == DATASET_ID
    assert record.dataset_hash == dataset().manifest.dataset_hash
    assert manifest.training_metadata.data_hash == dataset().manifest.data_hash[:16]
    assert (manifest.git_sha, manifest.notes) == ("a" * 40, "planted")
    assert report.seed == record.seed == 7
    assert report.model_sha256 == sha256_hex(artifact.model)
    assert manifest.label_definition == dataset().manifest.label_definition
    assert record.trial_count == 3 + 2 * 2
    assert [len(study.trials) for study in record.studies] == [2, 2]
    names = [one.architecture_id for one in record.candidates]
    assert names == ["logistic", "random_forest", "gbt_lightgbm"]
    assert record.choice.architecture_id == manifest.architecture_id
    assert len(record.weights) == len(manifest.input_features)
    assert record.weights[0].log_loss_rise_ppm > 0


@pytest.mark.proves("R153", "R168")
def test_predictions_are_out_of_fold_and_those_of_the_fold_that_made_them() -> None:
    table = pq.read_table(trained().run / "predictions.parquet")
    found = {name: table.column(name).to_numpy() for name in table.column_names}
    record, rows = trained().record, dataset().rows
    folds = walk_forward(
        rows.ts_ms, rows.label_ts_ms, FoldPlan(fold_count=2, embargo_ms=record.embargo_ms)
    )
    tested = np.concatenate([fold.test for fold in folds])

    assert [str(field.type) for field in table.schema] == [
        "int64",
        "int64",
        "string",
        "int32",
        "double",
        "int32",
        "int32",
        "bool",
    ]
    assert np.array_equal(found["ts_ms"], rows.ts_ms[tested])
    assert np.array_equal(found["label"], rows.labels[tested])
    assert np.array_equal(found["proxy_p_hat_bps"], rows.targets[PROXY][tested])
    for bounds in record.folds:
        of_fold = found["fold"] == bounds.number
        assert found["ts_ms"][of_fold].min() == bounds.test_start_ts_ms
        assert bounds.train_settled_ts_ms + record.embargo_ms < bounds.calibration_start_ts_ms
        assert bounds.calibration_settled_ts_ms + record.embargo_ms < bounds.test_start_ts_ms
    chosen = next(
        one for one in record.candidates if one.architecture_id == record.choice.architecture_id
    )
    loss = log_loss(np.clip(found["p_hat_bps"] / 1e4, 1e-4, 1 - 1e-4), found["label"])
    assert loss * 1e6 == pytest.approx(chosen.log_loss_ppm, abs=20)


@pytest.mark.proves("R150", "R153")
def test_what_the_artifact_serves_is_what_the_last_fold_recorded() -> None:
    serving = open_serving(read_artifact(trained().artifact))
    table = pq.read_table(trained().run / "predictions.parquet")
    last = table.filter(table.column("fold").to_numpy() == 1)
    rows = dataset().rows
    later = rows.ts_ms >= last.column("ts_ms").to_numpy().min()

    said = serving.answers([row.tobytes() for row in rows.values[later]])

    assert serving.artifact.manifest.data_cutoff_ts_ms < rows.ts_ms[later].min()
    assert all(isinstance(one, DirectionSignal) for one in said)
    assert [one.p_hat_bps for one in said] == last.column("p_hat_bps").to_pylist()


def test_the_newest_rows_alone_may_be_asked_for(tmp_path: Path) -> None:
    request = structs.replace(
        REQUEST, n_samples=1_600, architectures=("logistic",), model_name="newest"
    )
    record = once(tmp_path, request=request).record

    assert record.row_count == 1_600
    assert record.folds[0].train_start_ts_ms == int(dataset().rows.ts_ms[-1_600])
    assert record.choice.reason == "logistic: the only candidate"


def test_without_a_search_no_rows_are_kept_for_one(tmp_path: Path) -> None:
    """The rows suffice for a fold, and would not for cutting its training part once more."""
    request = structs.replace(
        REQUEST, n_samples=1_100, fold_count=1, architectures=("logistic",), model_name="small"
    )
    record = once(tmp_path, request=request).record

    assert record.row_count == 1_100
    searched = structs.replace(request, architectures=("random_forest",))
    with pytest.raises(DataInvalid, match="rows for its judgement"):
        once(tmp_path / "searched", request=searched)


def test_a_run_without_a_candidate_says_why_each_is_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def backwards(task: FoldTask) -> FoldFit:
        labels = task.labels.copy()
        labels[task.fold.calibration] ^= True
        return fit_fold(structs.replace(task, labels=labels))

    monkeypatch.setattr(training, "fit_fold", backwards)
    request = structs.replace(REQUEST, architectures=("logistic",), model_name="backwards")

    with pytest.raises(DataInvalid, match=r"logistic, fold 0: .*points the wrong way"):
        once(tmp_path, request=request)


@pytest.mark.parametrize("name", ["planted_v1.0.0", "planted_v1.0.0.run"])
def test_a_run_never_replaces_another(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is fitted either: a run that was broken off left an artifact and no evidence."""
    monkeypatch.setattr(training, "walk_forward", None)
    (tmp_path / name).mkdir()

    with pytest.raises(DataInvalid, match="never changes"):
        once(tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_a_leaking_feature_stops_the_run(tmp_path: Path) -> None:
    rows = dataset().rows
    values = rows.values.copy()
    values[:, 0] = rows.labels
    leaking = structs.replace(dataset(), rows=structs.replace(rows, values=values))

    with pytest.raises(DataInvalid, match="return_pct_1"):
        train(leaking, REQUEST, out_dir=tmp_path, engine=Engine(), progress=silent)
    assert list(tmp_path.iterdir()) == []


def test_without_the_guard_the_leak_would_win(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Must-fail control: with the guard taken out, the run believes what it sees."""
    rows = dataset().rows
    values = rows.values.copy()
    values[:, 0] = rows.labels + np.random.default_rng(0).normal(0.0, 0.3, len(rows))
    leaking = structs.replace(dataset(), rows=structs.replace(rows, values=values))
    monkeypatch.setattr(training, "check_plausible", lambda *_: None)
    request = structs.replace(REQUEST, architectures=("logistic",))

    found = train(leaking, request, out_dir=tmp_path, engine=Engine(), progress=silent)

    assert found.record.candidates[0].log_loss_ppm < 300_000


@pytest.mark.proves("R143")
def test_the_data_set_may_be_named_and_another_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match="other-15m"):
        train_folder(
            dataset_in(tmp_path),
            REQUEST,
            out_dir=tmp_path / "out",
            engine=Engine(),
            progress=silent,
            dataset_id="other-15m",
        )


@pytest.mark.parametrize(
    "change",
    [
        {"architectures": ()},
        {"architectures": ("oracle",)},
        {"architectures": ("logistic", "logistic")},
        {"fold_count": 0},
        {"seed": -1},
        {"embargo_bars": -1},
        {"trial_count": -1},
    ],
)
def test_a_run_of_nothing_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(InvalidField):
        structs.replace(REQUEST, **change)


@pytest.mark.parametrize(
    "change",
    [
        {"model_name": "Bad Name"},
        {"model_version": "1.0.0"},
        {"created_at": "yesterday"},
        {"git_sha": "abc"},
    ],
)
def test_what_no_manifest_could_say_is_refused_before_anything_is_fitted(
    tmp_path: Path, change: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run takes minutes, and a typing error is known at once."""
    monkeypatch.setattr(training, "walk_forward", None)

    with pytest.raises(InvalidField, match=next(iter(change))):
        once(tmp_path, request=structs.replace(REQUEST, **change))


def test_results_come_in_the_order_of_the_tasks() -> None:
    seen: list[int] = []

    assert run_all(abs, [-3, -1, -2], Engine(), told=seen.append) == [3, 1, 2]
    assert seen == [1, 2, 3]


def test_no_process_is_started_that_no_task_is_left_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    real = joblib.parallel_config

    def note(backend: str, *, n_jobs: int) -> object:
        asked.append(n_jobs)
        return real("sequential", n_jobs=1)

    monkeypatch.setattr(joblib, "parallel_config", note)
    many = Engine(workers=100_000)
    assert run_all(abs, [-3, -1], many, told=lambda _: None) == [3, 1]
    assert run_all(abs, [], many, told=lambda _: None) == []

    assert asked == [2, 1]


def test_a_cluster_that_nothing_would_run_on_is_refused() -> None:
    with pytest.raises(InvalidField, match=r"address: found 'ray://there'.*the engine is local"):
        Engine(address="ray://there")


@pytest.mark.proves("R163", "R161")
def test_a_convolution_over_windows_is_trained_and_packed_with_its_shape(tmp_path: Path) -> None:
    """The shape of its rows is in the manifest, and the artifact proves itself as served."""
    pytest.importorskip("torch", reason="torch is not installed: it is in no locked environment")
    feature_set = direction_window_v1(900_000)
    windows = read_dataset(
        build(tmp_path, feature_set=feature_set, horizon_bars=1, dataset_id="windows-15m")
    )
    request = structs.replace(
        REQUEST, architectures=("tcn",), fold_count=1, trial_count=0, model_name="windows"
    )

    found = train(windows, request, out_dir=tmp_path, engine=Engine(), progress=silent)

    manifest = read_artifact(found.artifact).manifest
    assert manifest.architecture_id == "tcn"
    assert manifest.input_shape == (64, 12)
    assert found.record.candidates[0].parity_e9 <= 1_000
