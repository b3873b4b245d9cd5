"""Evidence on disk: what is missing is not measured, what is not what it says is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from tests.builders import model_binding
from tests.evidence_folders import small_summary, write_account, write_run
from tests.unit.offline.planted_models import good
from tests.unit.training_rows import (
    LONG_ID,
    build,
    long_dataset,
    long_dataset_in,
)

from detent.contracts.binding import PROXY_BINDING, ModelBinding
from detent.contracts.canonical import sha256_hex
from detent.contracts.errors import DataInvalid
from detent.contracts.plan import RiskLimits
from detent.core.evaluation.equity import bar_returns
from detent.offline.backtesting.strategy import TriggerParameters
from detent.offline.datasets.manifest import DatasetSource
from detent.offline.promotion.dataset_finding import DatasetFinding, find_dataset
from detent.offline.promotion.evidence_file import read_evidence, sidecar_of, write_evidence
from detent.offline.promotion.learning_fills import read_learning
from detent.offline.promotion.run_folder import (
    backtest_finding,
    read_account,
    read_predictions,
    read_run,
)
from detent.offline.promotion.scores import measure_calibration

BOUND = model_binding()


@pytest.mark.proves("R336")
def test_a_whole_data_set_is_named_and_hashed(tmp_path: Path) -> None:
    folder = long_dataset_in(tmp_path)
    digest = sha256_hex((folder / "manifest.json").read_bytes())

    assert find_dataset(folder) == DatasetFinding(dataset_id=LONG_ID, dataset_hash=digest)
    assert find_dataset(None) == DatasetFinding()


def tampered(folder: Path) -> None:
    (folder / "rows.parquet").write_bytes(b"other columns")


def grown(folder: Path) -> None:
    (folder / "notes.txt").write_text("more")


def mislabelled(folder: Path) -> None:
    text = (folder / "manifest.json").read_bytes()
    (folder / "manifest.json").write_bytes(text.replace(b'"horizon_bars":2', b'"horizon_bars":3'))


def gone(folder: Path) -> None:
    shutil.rmtree(folder)


@pytest.mark.proves("R336")
@pytest.mark.parametrize("damage", [tampered, grown, mislabelled, gone])
def test_a_data_set_that_is_not_what_it_says_is_refused(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """What training would not read is evidence of nothing."""
    folder = long_dataset_in(tmp_path)
    assert find_dataset(folder).finding == ""
    digest = find_dataset(folder).dataset_hash
    damage(folder)
    found = find_dataset(folder)

    if damage is mislabelled:
        assert found.finding or found.dataset_hash != digest
        return
    assert found.finding
    assert (found.dataset_id, found.dataset_hash) == (None, None)


@pytest.mark.proves("R170")
def test_a_whole_data_set_that_covers_too_little_promotes_nothing(tmp_path: Path) -> None:
    """Made up, or a fortnight, however sound the bytes are."""
    made_up = find_dataset(long_dataset(tmp_path / "made_up", source=DatasetSource.SYNTHETIC))
    short = find_dataset(build(tmp_path / "short", source=DatasetSource.EXPORT))

    for found, word in ((made_up, "synthetic"), (short, "6 months and 2 regimes")):
        assert word in found.finding
        assert (found.dataset_id, found.dataset_hash) == (None, None)


@pytest.mark.parametrize("name", ["bericht_für_März.json", "my report.json", "\udcff.json"])
def test_evidence_is_read_back_whatever_its_file_is_called(tmp_path: Path, name: str) -> None:
    digest = write_evidence(tmp_path / name, b"{}")

    assert read_evidence(tmp_path / name) == (b"{}", digest)


@pytest.mark.proves("R341")
def test_evidence_is_written_whole_with_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "report.json"
    digest = write_evidence(path, b"{}\n")
    assert read_evidence(path) == (b"{}\n", digest)
    assert sorted(one.name for one in path.parent.iterdir()) == [
        "report.json",
        "report.json.sha256",
    ]

    write_evidence(path, b'{"a": 1}\n')
    assert read_evidence(path)[1] == sha256_hex(b'{"a": 1}\n')
    sidecar_of(path).write_text(f"{digest}  other.json\n")
    assert read_evidence(path)[1] is None
    sidecar_of(path).unlink()
    assert read_evidence(path)[1] is None
    with pytest.raises(DataInvalid, match="FileNotFoundError"):
        read_evidence(tmp_path / "none.json")


@pytest.mark.parametrize("name", ["", ".", "/"])
def test_evidence_without_a_name_is_refused(name: str) -> None:
    with pytest.raises(DataInvalid, match="no name"):
        write_evidence(Path(name), b"{}")


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    with pytest.raises(DataInvalid, match="can be written"):
        write_evidence(blocked / "report.json", b"{}")
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_a_run_comes_back_as_it_was_written(tmp_path: Path) -> None:
    planted = good(2, bars=300)
    write_run(tmp_path / "m.run", planted, "b" * 64, "d" * 64)
    found = read_predictions(tmp_path / "m.run")

    assert found is not None
    assert found.ts_ms.tolist() == planted.predictions.ts_ms.tolist()
    assert found.labels.tolist() == planted.predictions.labels.tolist()
    assert abs(found.p - planted.predictions.p).max() <= 0.5e-4 + 1e-12
    assert read_run(tmp_path / "m.run").trial_count == planted.trial_count
    write_account(tmp_path / "model", planted.model, BOUND)
    account = read_account(tmp_path / "model")
    assert account is not None
    assert account.equity.tolist() == planted.model.equity.tolist()


@pytest.mark.parametrize("seed", range(4))
def test_identity_takes_nothing_away_and_adds_nothing(tmp_path: Path, seed: int) -> None:
    """Served integers are compared with integers: rounding is no harm that calibration did."""
    planted = good(seed, bars=300)
    rows = structs.replace(planted.predictions, p=planted.predictions.p_raw)
    write_run(tmp_path / "m.run", structs.replace(planted, predictions=rows), "b" * 64, "d" * 64)
    found = read_predictions(tmp_path / "m.run")
    assert found is not None
    measured = measure_calibration(found, horizon_bars=4)

    assert measured.log_loss_ppb == measured.log_loss_raw_ppb
    assert measured.brier_ppb == measured.brier_raw_ppb


def test_what_is_not_there_is_not_measured(tmp_path: Path) -> None:
    assert read_predictions(tmp_path) is None
    assert read_account(tmp_path) is None
    assert read_account(None) is None
    assert read_run(tmp_path).trial_count is None
    assert read_learning([]) is None
    assert backtest_finding(tmp_path, None, BOUND) is None


@pytest.mark.parametrize(
    ("file", "read"),
    [
        pytest.param("predictions.parquet", read_predictions, id="predictions"),
        pytest.param("equity.parquet", read_account, id="account"),
        pytest.param("run.json", read_run, id="run"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, file: str, read: Callable[[Path], object]
) -> None:
    (tmp_path / file).write_bytes(b"nothing of the kind")

    with pytest.raises(DataInvalid, match=file):
        read(tmp_path)


@pytest.mark.proves("R130")
@pytest.mark.parametrize(
    ("fill", "kept_apart"),
    [
        pytest.param({"book": "main"}, True, id="profit"),
        pytest.param(
            {"book": "learning/x", "learning": {"experiment_id": "x1"}}, True, id="learning"
        ),
        pytest.param({"book": "learning/x"}, False, id="untagged"),
        pytest.param({"book": "learning/x", "learning": {}}, False, id="tag-without-name"),
        pytest.param(
            {"book": "main", "learning": {"experiment_id": "x1"}}, False, id="tagged-profit"
        ),
        pytest.param({"fill_id": "a"}, False, id="no-book"),
    ],
)
def test_fills_whose_book_and_tags_contradict_are_counted(
    tmp_path: Path, fill: dict[str, object], kept_apart: bool
) -> None:
    path = tmp_path / "fills.jsonl"
    path.write_text(json.dumps({"book": "main"}) + "\n" + json.dumps(fill) + "\n")
    found = read_learning([path])

    assert found is not None
    assert (found.fill_count, found.untagged_count) == (2, 0 if kept_apart else 1)


OTHER = model_binding(model_version_hash="0" * 64)


@pytest.mark.parametrize(
    ("model", "proxy", "changes", "finding"),
    [
        pytest.param(BOUND, PROXY_BINDING, {}, "", id="as-they-should"),
        pytest.param(OTHER, PROXY_BINDING, {}, "model: bound to", id="another-model"),
        pytest.param(BOUND, BOUND, {}, "proxy: bound to", id="the-model-twice"),
        pytest.param(BOUND, PROXY_BINDING, {"fee_bps": "0"}, "other fee_bps", id="dearer"),
        pytest.param(BOUND, PROXY_BINDING, {"vol_bars": 96}, "other vol_bars", id="other-forecast"),
        pytest.param(BOUND, PROXY_BINDING, {"data_hash": "e" * 64}, "other data", id="other-bars"),
    ],
)
def test_back_tests_are_of_the_artifact_and_the_proxy_alike(
    tmp_path: Path,
    model: ModelBinding,
    proxy: ModelBinding,
    changes: dict[str, Any],
    finding: str,
) -> None:
    planted = good(2, bars=300)
    write_account(tmp_path / "model", planted.model, model, **changes)
    write_account(tmp_path / "proxy", planted.proxy, proxy)
    found = backtest_finding(tmp_path / "model", tmp_path / "proxy", BOUND)

    assert found is not None
    assert found.startswith(finding)
    assert bool(found) is bool(finding)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("triggers", (TriggerParameters(shorts=False).trigger,)),
        ("risk_limits", RiskLimits(max_weight_ppm=1)),
        ("symbols", ("AAA",)),
    ],
)
def test_back_tests_of_other_permissions_or_limits_are_not_alike(
    tmp_path: Path, name: str, value: object
) -> None:
    planted = good(2, bars=300)
    plan = structs.replace(small_summary().plan, **{name: value})
    write_account(tmp_path / "model", planted.model, BOUND)
    write_account(tmp_path / "proxy", planted.proxy, PROXY_BINDING, plan=plan)

    assert backtest_finding(tmp_path / "model", tmp_path / "proxy", BOUND) == f"other {name}"


def test_a_back_test_of_nothing_but_what_the_model_has_seen_is_no_evidence(tmp_path: Path) -> None:
    planted = good(2, bars=300)
    seen = structs.replace(BOUND, data_cutoff_ts_ms=int(planted.model.ts_ms[-1]))
    write_account(tmp_path / "model", planted.model, seen)
    write_account(tmp_path / "proxy", planted.proxy, PROXY_BINDING)
    found = backtest_finding(tmp_path / "model", tmp_path / "proxy", seen)

    assert found == (
        f"bars to {seen.data_cutoff_ts_ms}, expected some after the data cutoff "
        f"{seen.data_cutoff_ts_ms}"
    )
    assert read_account(tmp_path / "model", after_ts_ms=seen.data_cutoff_ts_ms) is None


def test_an_account_counts_from_where_the_model_had_seen_nothing(tmp_path: Path) -> None:
    planted = good(2, bars=300)
    write_account(tmp_path / "model", planted.model, BOUND)
    cutoff_ts_ms = int(planted.model.ts_ms[99])
    found = read_account(tmp_path / "model", after_ts_ms=cutoff_ts_ms)

    assert found is not None
    assert found.ts_ms.tolist() == planted.model.ts_ms[99:].tolist()
    assert found.starting_equity == planted.model.equity[99]
    assert bar_returns(found)[1:].tolist() == bar_returns(planted.model)[100:].tolist()
    assert (found.trades[0], found.fees[0], found.traded[0]) == (0, 0.0, 0.0)
    assert found.fees[1:].tolist() == planted.model.fees[100:].tolist()
    assert read_account(tmp_path / "model", after_ts_ms=0) is not None


def test_back_tests_that_lack_a_part_are_not_alike_in_lacking_it(tmp_path: Path) -> None:
    """Two summaries that say nothing agree in everything; neither is a back-test."""
    planted = good(2, bars=300)
    for name, binding in (("model", BOUND), ("proxy", PROXY_BINDING)):
        write_account(tmp_path / name, planted.model, binding)
        bare = json.dumps({"binding_hash": binding.binding_hash})
        (tmp_path / name / "results_summary.json").write_text(bare)

    with pytest.raises(DataInvalid, match="invalid run, results_summary"):
        backtest_finding(tmp_path / "model", tmp_path / "proxy", BOUND)
