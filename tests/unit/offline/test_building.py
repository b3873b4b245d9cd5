"""Building: the same bytes from the same inputs, measured on rows that nothing was fitted on."""

from __future__ import annotations

import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tests.unit.artifacts import (
    CREATED_AT,
    VERSION,
    artifact,
    artifact_in,
    bar_table,
    build,
    contents_of,
    raw_bars,
)

from detent.adapters.artifact_store import read_artifact
from detent.contracts.calibration import CalibrationMethod
from detent.contracts.canonical import sha256_hex
from detent.contracts.errors import ArtifactInvalid, InvalidField
from detent.core.evaluation.calibration_metrics import binary_metrics
from detent.core.evaluation.scores import brier_score, log_loss, stated_name
from detent.core.features.feature_set import FeatureSet
from detent.core.features.feature_spec import FeatureTransform, Normalisation, derived, feature
from detent.core.signals.calibration import Calibrator
from detent.offline.bars import table_of
from detent.offline.building import STAGES
from detent.offline.commands import build_artifact, silent, verify_artifact
from detent.offline.samples import direction_samples, split_by_time
from detent.offline.train_report import parse_train_report
from detent.offline.walk_forward.candidate import Rows
from detent.offline.walk_forward.candidates import LOGISTIC

ROOT = Path(__file__).parents[3]
REBUILD = """
import sys
from pathlib import Path
from tests.unit.artifacts import build
print(build(Path(sys.argv[1])))
"""


@pytest.mark.proves("R48")
def test_rebuild_in_another_process_gives_the_same_bytes(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-c", REBUILD, str(tmp_path / "other")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert contents_of(Path(built.stdout.strip())) == contents_of(artifact_in(tmp_path))


@pytest.mark.proves("R50")
def test_rebuild_from_the_manifest_alone_gives_the_same_hash(tmp_path: Path) -> None:
    """Bars whose hash is the manifest's, and the artifact's own words: nothing else."""
    manifest = artifact().manifest
    table = bar_table()
    assert table.data_hash[:16] == manifest.training_metadata.data_hash

    path = build_artifact(
        table,
        model_name=manifest.model_name,
        version=manifest.model_version,
        horizon_bars=manifest.horizon_bars,
        horizon_id=manifest.horizon_id,
        created_at=manifest.created_at,
        out_dir=tmp_path,
        feature_set=artifact().pinned.feature_set,
    )

    found = read_artifact(path).manifest
    assert found.model_version_hash == manifest.model_version_hash


@pytest.mark.proves("R161", "R155")
def test_window_of_normalised_features_is_trained_and_verified(tmp_path: Path) -> None:
    """The graph is as wide as all rows together, and the manifest names every value of them."""
    window = FeatureSet(
        name="window",
        features=(
            feature(
                FeatureTransform.RETURN_PCT,
                1,
                normalisation=Normalisation(offset=Decimal(0), scale=Decimal("0.25")),
            ),
            derived(FeatureTransform.ROLLING_STD, "close"),
        ),
        engine=artifact().pinned.feature_set.engine,
        window_rows=4,
    )

    path = build_artifact(
        bar_table(),
        model_name="window",
        version=VERSION,
        horizon_bars=2,
        horizon_id="h2",
        created_at=CREATED_AT,
        out_dir=tmp_path,
        feature_set=window,
    )

    found = read_artifact(path)
    assert found.pinned.feature_set == window
    assert found.manifest.input_features == window.input_names
    assert len(window.input_names) == 8
    assert {len(row.values) for row in found.golden.rows} == {32}
    verify_artifact(path, model_version_hash=found.manifest.model_version_hash)


@pytest.mark.proves("R56")
def test_build_from_one_other_row_is_another_artifact(tmp_path: Path) -> None:
    rows = raw_bars(1_500)
    row = rows[400]
    rows[400] = type(row)(
        row=row.row,
        open_ts_ms=row.open_ts_ms,
        symbol=row.symbol,
        numbers=(*row.numbers[:4], row.numbers[4] + 1),
    )
    path = build_artifact(
        table_of("x", rows),
        model_name=artifact().manifest.model_name,
        version=VERSION,
        horizon_bars=2,
        horizon_id="h2",
        created_at=CREATED_AT,
        out_dir=tmp_path,
    )
    found = read_artifact(path).manifest

    assert found.training_metadata.data_hash != artifact().manifest.training_metadata.data_hash
    assert found.model_version_hash != artifact().manifest.model_version_hash


@pytest.mark.proves("R144")
def test_built_artifact_verifies_as_it_will_when_served(tmp_path: Path) -> None:
    path = artifact_in(tmp_path)
    serving = verify_artifact(path, model_version_hash=artifact().manifest.model_version_hash)

    assert serving.artifact == artifact()
    assert len(serving.artifact.golden.rows) == 32
    with pytest.raises(ArtifactInvalid):
        verify_artifact(path, model_version_hash="f" * 64)


def test_graph_has_one_input_and_only_probabilities() -> None:
    graph = onnx.load_model_from_string(artifact().model).graph

    assert graph.name == "detent_direction"
    assert [tensor.name for tensor in graph.input] == ["input"]
    assert [tensor.name for tensor in graph.output] == ["probabilities"]
    assert {node.op_type for node in graph.node} == {"Scaler", "LinearClassifier"}


def test_two_exports_of_the_same_rows_are_equal() -> None:
    manifest = artifact().manifest
    samples = direction_samples(
        bar_table(),
        artifact().pinned.feature_set,
        horizon_bars=manifest.horizon_bars,
        progress=silent,
    )
    train = split_by_time(samples).train
    rows = Rows(values=train.values, labels=train.labels)
    first, second = (LOGISTIC.fit(rows, LOGISTIC.params, seed=0).exported for _ in range(2))

    assert first == second
    assert first.graph == artifact().model


@pytest.mark.proves("R145")
def test_train_report_says_what_the_artifact_was_made_from() -> None:
    report = parse_train_report(artifact().train_report)
    manifest = artifact().manifest
    metadata = manifest.training_metadata
    by_part = {
        part: sum(entry.count for entry in report.class_distribution if entry.part == part)
        for part in ("train", "calibration", "test")
    }

    assert report.model_sha256 == sha256_hex(artifact().model)
    assert report.dataset_id == bar_table().data_hash
    assert report.created_at == CREATED_AT
    assert report.n_features == len(manifest.input_features)
    assert (report.bar_count, report.gap_count) == (1_500, 0)
    assert by_part == {
        "train": metadata.train_samples,
        "calibration": metadata.calibration_samples,
        "test": metadata.test_samples,
    }
    assert report.n_samples == sum(by_part.values())
    assert report.onnx_opset_version == 17
    assert report.sklearn_version
    assert report.skl2onnx_version
    assert sum(bin_.count for bin_ in report.reliability) == metadata.test_samples
    for bin_ in report.reliability:
        assert bin_.low_ppm <= bin_.p_mean_ppm <= bin_.high_ppm
        assert bin_.null_low_ppm <= bin_.null_high_ppm


@pytest.mark.proves("R168", "R169")
def test_metrics_are_those_of_the_test_rows(tmp_path: Path) -> None:
    """Measured again from the served artifact, on the rows after everything it has seen."""
    serving = verify_artifact(artifact_in(tmp_path))
    manifest = artifact().manifest
    samples = direction_samples(
        bar_table(),
        artifact().pinned.feature_set,
        horizon_bars=manifest.horizon_bars,
        progress=silent,
    )
    later = samples.where(samples.ts_ms > manifest.data_cutoff_ts_ms)
    calibrator = Calibrator.of(artifact().calibration)
    p_raw = serving.session.probabilities(later.inputs())[:, -1].tolist()
    p = np.array([calibrator.probability(value) for value in p_raw])
    metrics = {metric.name: metric.value for metric in manifest.training_metadata.metrics}

    assert len(later) == manifest.training_metadata.test_samples
    assert metrics["brier_ppm"] == round(1e6 * brier_score(p, later.labels))
    assert metrics["brier_ppm"] < metrics["brier_base_ppm"]
    metrics = {stated_name(name): value for name, value in metrics.items()}
    assert metrics["log_loss_clip2p52_ppm"] == round(1e6 * log_loss(p, later.labels))
    defined = binary_metrics(p, later.labels, np.full((2, len(p)), 0.5))
    for name in set(metrics) - {"up_share_ppm"}:
        stated = re.sub(r"(_raw|_base)?_ppm$", "", name)
        assert stated in defined, name
    assert manifest.training_metadata.test_accuracy_bps > 5_500


@pytest.mark.proves("R167")
def test_manifest_names_its_calibration() -> None:
    assert artifact().manifest.calibration_method is CalibrationMethod.PLATT
    assert artifact().calibration.calibration_version == artifact().manifest.calibration_version


@pytest.mark.proves("R168")
def test_a_calibration_is_chosen_on_held_out_rows_when_asked(tmp_path: Path) -> None:
    """The artifact says what was tried, verifies, and its report is of other rows still."""
    path = build_artifact(
        bar_table(),
        model_name="direction_chosen",
        version=VERSION,
        horizon_bars=2,
        horizon_id="h2",
        created_at=CREATED_AT,
        out_dir=tmp_path,
        calibration_method=None,
    )
    built = read_artifact(path)
    choice = built.calibration.choice

    assert choice is not None
    assert choice.chosen is built.manifest.calibration_method
    assert len(choice.tried) > 1
    assert choice.row_count < built.manifest.training_metadata.calibration_samples


def test_training_window_ends_before_the_data_cutoff() -> None:
    manifest = artifact().manifest
    bars = bar_table().bars["BTCUSDT"]

    assert manifest.training_window.start_ts_ms == bars[0].ts_ms
    assert manifest.training_window.end_ts_ms < manifest.data_cutoff_ts_ms < bars[-1].ts_ms


def test_build_reports_every_stage(tmp_path: Path) -> None:
    seen: dict[str, tuple[int, int]] = {}

    def progress(stage: str, done: int, total: int) -> None:
        seen[stage] = (done, total)

    build_artifact(
        bar_table(),
        model_name="reported",
        version=VERSION,
        horizon_bars=2,
        horizon_id="h2",
        created_at=CREATED_AT,
        out_dir=tmp_path,
        progress=progress,
    )

    assert tuple(seen) == STAGES
    assert all(done == total for done, total in seen.values())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_name", "Bad Name"),
        ("version", "1.0"),
        ("horizon_id", ""),
        ("created_at", "yesterday"),
    ],
)
def test_build_with_a_malformed_name_writes_nothing(tmp_path: Path, field: str, value: str) -> None:
    arguments: dict[str, Any] = {
        "model_name": "fine",
        "version": VERSION,
        "horizon_id": "h2",
        "created_at": CREATED_AT,
        field: value,
    }

    with pytest.raises(InvalidField):
        build_artifact(bar_table(), horizon_bars=2, out_dir=tmp_path, **arguments)

    assert list(tmp_path.iterdir()) == []


def test_build_never_replaces_an_artifact(tmp_path: Path) -> None:
    before = contents_of(artifact_in(tmp_path))

    with pytest.raises(ArtifactInvalid, match="new version"):
        build(tmp_path)

    assert contents_of(tmp_path / artifact().manifest.model_id) == before
