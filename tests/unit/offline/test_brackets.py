"""Exclusive outcomes: trained one against the rest, coupled, tempered, packed and served."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.unit.training_rows import CREATED_AT
from typer.testing import CliRunner

from detent.adapters.artifact_store import read_artifact
from detent.adapters.serving import open_serving
from detent.contracts.binding import Head
from detent.contracts.calibration import BracketsSpec
from detent.contracts.errors import DataInvalid
from detent.contracts.signals import BracketsSignal
from detent.offline.commands import silent
from detent.offline.heads.brackets import BracketsFold, read_events, train_brackets
from detent.offline.packing import Identity
from detent.offline.walk_forward.folds import FoldPlan, walk_forward
from detent_cli.main import app

PLAN = FoldPlan(fold_count=2, embargo_ms=0)
IDENTITY = Identity(
    model_name="brackets",
    model_version="v1.0.0",
    created_at=CREATED_AT,
    horizon_bars=1,
    horizon_id="event",
)
KEYS = ("below", "between", "above", "far_above")
MINUTE_MS = 60_000


def columns(count: int = 5_000) -> dict[str, Any]:
    """Give events whose outcome follows from two of three inputs, as a softmax has it."""
    draws = np.random.default_rng(11)
    heat, wind, noise = draws.normal((15.0, 3.0, 0.0), (6.0, 2.0, 1.0), (count, 3)).T
    logits = np.stack([-0.15 * heat, 0.02 * wind, 0.1 * heat, 0.15 * heat - 0.2 * wind], axis=1)
    grown = np.exp(logits - logits.max(axis=1, keepdims=True))
    edges = np.cumsum(grown / grown.sum(axis=1, keepdims=True), axis=1)
    came_true = (draws.random((count, 1)) > edges).sum(axis=1).clip(max=3)
    ts_ms = 1_700_000_000_000 + MINUTE_MS * np.arange(count)
    return {
        "ts_ms": ts_ms,
        "settled_ts_ms": ts_ms + 2 * MINUTE_MS,
        "symbol": ["CITY"] * count,
        "outcome": [KEYS[place] for place in came_true.tolist()],
        "heat": heat.astype(np.float32),
        "wind": wind.astype(np.float32),
        "noise": noise.astype(np.float32),
    }


def events_file(path: Path, **changes: Any) -> Path:
    pq.write_table(pa.table(columns() | changes), path)
    return path


def trained_on(path: Path, out_dir: Path) -> tuple[Path, tuple[BracketsFold, ...]]:
    return train_brackets(
        read_events(path),
        IDENTITY,
        PLAN,
        bar_interval_ms=900_000,
        seed=1,
        out_dir=out_dir,
        progress=silent,
    )


def calibration_of(artifact: Path) -> BracketsSpec:
    found = read_artifact(artifact).calibration
    assert isinstance(found, BracketsSpec)
    return found


def test_what_is_served_is_one_distribution_that_beats_the_shares(tmp_path: Path) -> None:
    path = events_file(tmp_path / "events.parquet")
    artifact, folds = trained_on(path, tmp_path)
    again, _ = trained_on(path, tmp_path / "again")
    manifest = read_artifact(artifact).manifest

    assert read_artifact(again).manifest == manifest
    assert manifest.head is Head.BRACKETS
    assert manifest.output_classes == tuple(sorted(KEYS))
    assert manifest.input_features == ("heat", "wind", "noise")
    for fold in folds:
        assert fold.coupled_log_loss_ppm < fold.base_log_loss_ppm - 50_000
        assert fold.refused == 0
    values = read_events(path).values[-20:]
    for one in open_serving(read_artifact(artifact)).answers([row.tobytes() for row in values]):
        assert isinstance(one, BracketsSignal)
        shares = [bracket.p_unified_bps for bracket in one.brackets]
        assert sum(share or 0 for share in shares) == 10_000


@pytest.mark.proves("R271")
def test_test_rows_move_no_temperature_and_no_map(tmp_path: Path) -> None:
    """Every outcome of the last test block is another one: what is served stays to the byte.

    The control: one calibration row that is another moves it.
    """
    plain, _ = trained_on(events_file(tmp_path / "plain.parquet"), tmp_path / "plain")
    events = read_events(tmp_path / "plain.parquet")
    last = walk_forward(events.ts_ms, events.settled_ts_ms, PLAN)[-1]

    def with_turned(name: str, places: Any) -> Path:
        outcomes = list(columns()["outcome"])
        for place in places:
            outcomes[place] = KEYS[(KEYS.index(outcomes[place]) + 1) % len(KEYS)]
        path = events_file(tmp_path / f"{name}.parquet", outcome=outcomes)
        return trained_on(path, tmp_path / name)[0]

    expected = calibration_of(plain)
    assert calibration_of(with_turned("test", last.test.tolist())) == expected
    later = calibration_of(with_turned("newest", last.calibration[-40:].tolist()))
    assert later.brackets == expected.brackets
    assert later.temperature != expected.temperature


def test_an_outcome_that_never_came_true_in_training_is_refused(tmp_path: Path) -> None:
    outcomes = list(columns()["outcome"])
    outcomes = [KEYS[1] if one == KEYS[0] else one for one in outcomes]
    outcomes[-1] = KEYS[0]
    path = events_file(tmp_path / "events.parquet", outcome=outcomes)

    with pytest.raises(DataInvalid, match="below came true"):
        trained_on(path, tmp_path)


@pytest.mark.parametrize(
    ("name", "value"), [("settled_ts_ms", 0), ("outcome", "no name"), ("heat", 1e39)]
)
def test_an_event_that_is_none_is_refused_by_its_row(
    tmp_path: Path, name: str, value: object
) -> None:
    column = list(columns()[name])
    column[4] = value

    with pytest.raises(DataInvalid, match=name) as caught:
        read_events(events_file(tmp_path / "events.parquet", **{name: column}))
    assert caught.value.metadata["row"] == "5"


def test_a_file_without_inputs_or_with_one_outcome_is_refused(tmp_path: Path) -> None:
    keys = ("ts_ms", "settled_ts_ms", "symbol", "outcome")
    bare = tmp_path / "bare.parquet"
    pq.write_table(pa.table({name: columns()[name] for name in keys}), bare)
    with pytest.raises(DataInvalid, match="no column beside the keys"):
        read_events(bare)
    with pytest.raises(DataInvalid, match="1 outcomes"):
        read_events(events_file(tmp_path / "one.parquet", outcome=["yes"] * 5_000))


def test_the_command_trains_them(tmp_path: Path) -> None:
    path = events_file(tmp_path / "events.parquet")
    command = ["heads", "brackets", str(path), "--out-dir", str(tmp_path), "--json"]
    done = CliRunner().invoke(app, [*command, "--created-at", CREATED_AT, "--folds", "2"])

    assert done.exit_code == 0, done.output
    found = json.loads(done.output[done.output.index("{") :])
    assert len(found["folds"]) == 2
    assert read_artifact(Path(found["artifact"])).manifest.head is Head.BRACKETS
