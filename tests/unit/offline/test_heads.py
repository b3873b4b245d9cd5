"""Heads beside direction: trained on rows with a pattern, packed, and served with what they are."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from msgspec import structs
from tests.tidy.layers import reachable
from tests.tidy.tree import python_sources
from tests.unit.training_rows import CREATED_AT, SYMBOLS, bars, build, dataset

from detent.adapters.artifact_store import read_artifact
from detent.adapters.serving import open_serving
from detent.contracts.binding import Head
from detent.contracts.errors import ArtifactInvalid, DataInvalid, InvalidField
from detent.contracts.signals import FillSignal, RegimeSignal, ToxicitySignal
from detent.core.evaluation.scores import accuracy
from detent.offline.commands import silent
from detent.offline.datasets.folder import Dataset, read_dataset
from detent.offline.datasets.rows import NEXT_SCORE, SCORE
from detent.offline.heads.class_heads import TOXICITY_BOOSTING, TrainedHead, train_class_head
from detent.offline.heads.fill import (
    COLUMNS,
    FEATURES,
    SWEEP_BPS,
    check_monotone,
    read_orders,
    train_fill,
)
from detent.offline.heads.policy_rules import (
    DEPTH_MAX,
    KEYS,
    LEAF_ROWS_MIN,
    discover_rules,
    parse_rules,
    read_policy_rows,
    rule_text,
    rules_bytes,
    wilson_low,
    within,
)
from detent.offline.heads.spacing import (
    SpacingGoal,
    SpacingOutcome,
    SpacingTarget,
    best_spacings,
)
from detent.offline.packing import Identity
from detent.offline.score_labels import ToxicityConfig, tercile_cuts, toxicity_bars_v1
from detent.offline.train_report import parse_train_report
from detent.offline.walk_forward.fold_fit import direction_session, up
from detent.offline.walk_forward.folds import FoldPlan, walk_forward

MINUTE_MS = 60_000
PLAN = FoldPlan(fold_count=2, embargo_ms=900_000)


def identity(name: str) -> Identity:
    return Identity(
        model_name=name,
        model_version="v1.0.0",
        created_at=CREATED_AT,
        horizon_bars=2,
        horizon_id="h2",
        dataset_id="planted-15m",
    )


def data_set(parent: Path, head: Head) -> Dataset:
    """Give a data set of bars whose volatility comes in long waves, so that it can be foreseen."""
    return read_dataset(
        build(parent, head=head, feature_set=toxicity_bars_v1(900_000), dataset_id=f"set-{head}")
    )


def answers(path: Path, inputs: Any) -> list[Any]:
    return open_serving(read_artifact(path)).answers([row.tobytes() for row in inputs])


def outcome(spacing: int, sharpe: float, max_dd: float, ts_ms: int = 1) -> SpacingOutcome:
    return SpacingOutcome(
        ts_ms=ts_ms,
        symbol="AAA",
        spacing_x1000=spacing,
        sharpe=sharpe,
        rt_expectancy=-sharpe,
        fill_rate=0.5,
        max_dd=max_dd,
    )


@pytest.mark.proves("R253")
def test_a_spacing_that_breaks_a_constraint_is_out_whatever_it_earned() -> None:
    found = [outcome(1500, 3.0, 0.06), outcome(1200, 2.0, 0.05), outcome(800, 1.0, 0.0)]

    assert best_spacings(found, SpacingGoal()) == {(1, "AAA"): 1200}
    wide = SpacingGoal(constraints=(("max_dd", 0.0, 0.10),))
    assert best_spacings(found, wide) == {(1, "AAA"): 1500}
    none = SpacingGoal(constraints=(("max_dd", 0.0, 0.05), ("fill_rate", 0.6, 1.0)))
    assert best_spacings(found, none) == {}
    other = SpacingGoal(target=SpacingTarget.RT_EXPECTANCY)
    assert best_spacings(found, other) == {(1, "AAA"): 800}


@pytest.mark.proves("R253")
def test_what_is_not_a_number_is_never_the_best() -> None:
    found = [outcome(1500, float("nan"), 0.01), outcome(900, 1.0, float("nan"))]

    assert best_spacings(found, SpacingGoal()) == {}
    with pytest.raises(InvalidField, match="spacing_x1000"):
        outcome(499, 1.0, 0.0)
    with pytest.raises(InvalidField, match="constraints"):
        SpacingGoal(constraints=(("profit", 0.0, 1.0),))


def regime_head(
    found: Dataset, spacings: Mapping[tuple[int, str], int], out_dir: Path
) -> TrainedHead:
    """Train a regime head with what each spacing earned."""
    return train_class_head(
        found,
        identity("regime"),
        PLAN,
        seed=3,
        out_dir=out_dir,
        progress=silent,
        spacings=spacings,
    )


@pytest.mark.proves("R253", "R148", "R150")
def test_regime_head_answers_classes_and_the_spacing_it_learnt(tmp_path: Path) -> None:
    found = data_set(tmp_path, Head.REGIME)
    rows = found.rows
    high = np.asarray(rows.targets[SCORE]) > np.median(np.asarray(rows.targets[SCORE]))
    keys = zip(rows.ts_ms.tolist(), rows.symbols, high, strict=True)
    spacings = {(ts_ms, symbol): 1600 if wide else 700 for ts_ms, symbol, wide in keys}

    trained = regime_head(found, spacings, tmp_path)
    again = regime_head(found, spacings, tmp_path / "again")

    manifest = read_artifact(trained.artifact).manifest
    assert read_artifact(again.artifact).manifest == manifest
    assert manifest.output_name == "regime_probs"
    assert manifest.output_classes == ("LOW", "MID", "HIGH")
    assert "cut at" in manifest.label_definition
    for one in answers(trained.artifact, rows.values[-50:]):
        assert isinstance(one, RegimeSignal)
        assert 700 <= one.spacing_multiplier_x1000 <= 1600
    assert len(trained.folds) == 2


@pytest.mark.proves("R253")
def test_a_fold_without_spacings_to_learn_from_is_refused(tmp_path: Path) -> None:
    """A spacing that was good in the newest windows alone is none that earlier rows can teach."""
    found = data_set(tmp_path, Head.REGIME)
    newest = found.rows.newest(150)
    spacings = dict.fromkeys(zip(newest.ts_ms.tolist(), newest.symbols, strict=True), 1200)

    with pytest.raises(DataInvalid, match="spacing: found 0 rows for train of fold 0"):
        regime_head(found, spacings, tmp_path)


@pytest.mark.proves("R148")
def test_regime_head_without_outcomes_has_a_spacing_of_one(tmp_path: Path) -> None:
    found = data_set(tmp_path, Head.REGIME)
    trained = train_class_head(
        found, identity("regime"), PLAN, seed=0, out_dir=tmp_path, progress=silent
    )

    one, *_ = answers(trained.artifact, found.rows.values[:1])
    assert one.spacing_multiplier_x1000 == 1000
    with pytest.raises(DataInvalid, match="spacing"):
        train_class_head(
            found,
            identity("other"),
            PLAN,
            seed=0,
            out_dir=tmp_path,
            progress=silent,
            spacings={(0, "ZZZ"): 900},
        )


def trees_of(model: bytes) -> list[tuple[int, int]]:
    """Count the trees of every ensemble of a graph, and the splits to its deepest leaf."""
    found = []
    for node in onnx.load_model_from_string(model).graph.node:
        held = {item.name: list(item.ints) for item in node.attribute}
        if "nodes_treeids" not in held:
            continue
        names = ("nodes_treeids", "nodes_nodeids", "nodes_truenodeids", "nodes_falsenodeids")
        depths: dict[tuple[int, int], int] = {}
        for tree, own, low, high in zip(*(held[name] for name in names), strict=True):
            depth = depths.setdefault((tree, own), 0)
            if low != high:
                depths[tree, low] = depths[tree, high] = depth + 1
        found.append((len(set(held["nodes_treeids"])), max(depths.values())))
    return found


@pytest.mark.proves("R254")
def test_toxicity_head_answers_now_and_next_with_a_report_per_fold(tmp_path: Path) -> None:
    found = data_set(tmp_path, Head.TOXICITY)
    trained = train_class_head(
        found, identity("toxicity"), PLAN, seed=0, out_dir=tmp_path, progress=silent
    )

    manifest = read_artifact(trained.artifact).manifest
    assert [output.name for output in manifest.further_outputs] == ["next_regime_probs"]
    assert all(
        isinstance(one, ToxicitySignal) for one in answers(trained.artifact, found.rows.values[:9])
    )
    for fold in trained.folds:
        assert fold.low_cut_bps <= fold.high_cut_bps
        assert 0 < fold.stays_hit_bps < 10_000
        assert 0 < fold.next_hit_bps < 10_000
    # As published: a hundred trees of depth five for each class, learning a tenth at a time.
    assert TOXICITY_BOOSTING["learning_rate"] == pytest.approx(0.1)
    assert trees_of(read_artifact(trained.artifact).model) == [(300, 5), (300, 5)]


@pytest.mark.proves("R254")
def test_next_score_is_the_score_one_horizon_later(tmp_path: Path) -> None:
    found = data_set(tmp_path, Head.TOXICITY).rows
    for symbol in SYMBOLS:
        chosen = found.symbols == symbol
        score, following = (found.targets[name][chosen] for name in (SCORE, NEXT_SCORE))
        assert np.array_equal(score[2:], following[:-2])
        closes = {bar.ts_ms: float(bar.close) for bar in bars().bars[symbol]}
        for row in np.flatnonzero(chosen)[::100].tolist():
            begin, settled = int(found.ts_ms[row]), int(found.label_ts_ms[row])
            middle = begin + (settled - begin) // 2
            assert settled == begin + 4 * 900_000
            moved = abs(closes[middle] / closes[begin] - 1.0) * 10_000
            assert found.targets[SCORE][row] == pytest.approx(moved)


def test_cuts_know_nothing_of_later_rows() -> None:
    """Must-fail control: cuts of all rows are others than those of the training rows."""
    scores = np.concatenate([np.arange(100.0), 1_000.0 + np.arange(100.0)])

    assert tercile_cuts(scores[:100]) == pytest.approx((33.0, 66.0))
    assert tercile_cuts(scores) != pytest.approx((33.0, 66.0))


@pytest.mark.proves("R261")
def test_toxicity_looks_back_at_three_windows_and_one_minute_ahead() -> None:
    config = ToxicityConfig()

    assert config.lookback_windows == (10, 30, 60)
    assert config.prediction_horizon_s == 60
    assert config.horizon_bars(MINUTE_MS) == 1
    names = toxicity_bars_v1(MINUTE_MS).feature_names
    assert all(f"return_pct_{window}" in names for window in (10, 30, 60))
    with pytest.raises(InvalidField, match="multiple"):
        config.horizon_bars(45_000)
    for windows in ((), (30, 10), (10, 10)):
        with pytest.raises(InvalidField):
            ToxicityConfig(lookback_windows=windows)


def test_a_data_set_of_another_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match="regime or toxicity"):
        train_class_head(dataset(), identity("x"), PLAN, seed=0, out_dir=tmp_path, progress=silent)


@functools.cache
def _order_columns(count: int = 1_500) -> dict[str, Any]:
    draws = np.random.default_rng(5)
    distance = draws.uniform(0.0, 60.0, count)
    spread = draws.uniform(1.0, 5.0, count)
    chance = 1.0 / (1.0 + np.exp(0.12 * distance - 2.0 + 0.2 * spread))
    ts_ms = 1_700_000_000_000 + 60_000 * np.arange(count)
    columns: dict[str, Any] = {
        "ts_ms": ts_ms,
        "settled_ts_ms": ts_ms + 30_000,
        "symbol": ["AAA"] * count,
        "distance_bps": distance,
        "spread_bps": spread,
        "filled": (draws.random(count) < chance).astype(np.int64),
    }
    columns |= {name: draws.normal(0.0, 1.0, count) for name in FEATURES[2:]}
    return columns


def orders_file(path: Path, **changes: Any) -> Path:
    columns = _order_columns() | changes
    pq.write_table(pa.table({name: columns[name] for name in COLUMNS}), path)
    return path


@pytest.mark.proves("R255")
def test_fill_head_beats_the_share_and_never_rises_with_the_distance(tmp_path: Path) -> None:
    orders = read_orders(orders_file(tmp_path / "orders.parquet"))
    plan = structs.replace(PLAN, embargo_ms=0)
    path, folds = train_fill(
        orders,
        identity("fill"),
        plan,
        bar_interval_ms=900_000,
        seed=0,
        out_dir=tmp_path,
        progress=silent,
    )

    for fold in folds:
        assert fold.brier_ppm < fold.base_brier_ppm
    swept = np.repeat(orders.values[:1], len(SWEEP_BPS), axis=0)
    swept[:, 0] = SWEEP_BPS
    said = answers(path, swept)
    assert all(isinstance(one, FillSignal) for one in said)
    shares = [one.p_fill_bps for one in said]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > shares[-1] + 2_000
    assert all(0 <= share <= 10_000 for share in shares)
    # What it is said to have got right of the training rows is not what it got right of the test.
    trained = walk_forward(orders.ts_ms, orders.settled_ts_ms, plan)[-1].train
    session = direction_session((path / "model.onnx").read_bytes(), width=len(FEATURES))
    right = accuracy(up(session, orders.values[trained]), orders.filled[trained])
    report = parse_train_report((path / "train_report.json").read_bytes())
    assert report.train_accuracy_bps == round(right * 10_000)


@pytest.mark.proves("R255")
def test_a_graph_that_rises_with_the_distance_is_refused() -> None:
    check_monotone(np.array([[0.9, 0.5, 0.5], [0.4, 0.3, 0.1]]))

    with pytest.raises(ArtifactInvalid, match="rise"):
        check_monotone(np.array([[0.9, 0.5, 0.5], [0.4, 0.3, 0.31]]))


@pytest.mark.proves("R255")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("filled", 2),
        ("distance_bps", -1.0),
        ("settled_ts_ms", 0),
        ("symbol", None),
        ("spread_bps", 1e39),
    ],
)
def test_an_order_that_is_none_is_refused_by_its_row(
    tmp_path: Path, name: str, value: float | None
) -> None:
    column = list(_order_columns()[name])
    column[6] = value

    with pytest.raises(DataInvalid, match=name) as caught:
        read_orders(orders_file(tmp_path / "orders.parquet", **{name: column}))
    assert caught.value.metadata["row"] == "7"


def policy_file(path: Path, *, turns: bool) -> Path:
    """Give rows in which volatility names the best policy; `turns` ends that for later rows."""
    draws, count = np.random.default_rng(9), 3_000
    volatility, noise = draws.random(count), draws.random(count)
    grid = volatility > 0.6
    wrong = draws.random(count) < 0.1
    later = np.arange(count) > count // 2
    named = grid ^ wrong ^ (later & turns)
    ts_ms = 1_700_000_000_000 + 60_000 * np.arange(count)
    columns = {
        "ts_ms": ts_ms,
        "settled_ts_ms": ts_ms + 60_000,
        "best_policy": np.where(named, "grid", "hold"),
        "volatility": volatility.astype(np.float32),
        "noise": noise.astype(np.float32),
    }
    assert set(KEYS) <= set(columns)
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.proves("R256")
@pytest.mark.parametrize(
    ("name", "value"),
    [("settled_ts_ms", 1_700_000_000_000), ("volatility", np.inf), ("best_policy", "")],
)
def test_a_condition_that_is_none_is_refused_by_its_row(
    tmp_path: Path, name: str, value: object
) -> None:
    """One that was settled before it arose would let the rules see what they are judged on."""
    path = policy_file(tmp_path / "rows.parquet", turns=False)
    columns = pq.read_table(path).to_pydict()
    columns[name][6] = value
    pq.write_table(pa.table(columns), path)

    with pytest.raises(DataInvalid, match=name) as caught:
        read_policy_rows(path)
    assert caught.value.metadata["row"] == "7"


@pytest.mark.proves("R256")
def test_rules_are_found_validated_and_read_back_as_they_were(tmp_path: Path) -> None:
    rows = read_policy_rows(policy_file(tmp_path / "rows.parquet", turns=False))
    plan = FoldPlan(fold_count=1, embargo_ms=0)
    rules = discover_rules(rows, plan, seed=0)

    assert rules == discover_rules(rows, plan, seed=0)
    assert parse_rules(rules_bytes(rules)) == rules
    assert {rule.policy for rule in rules.rules} == {"grid", "hold"}
    assert (DEPTH_MAX, LEAF_ROWS_MIN) == (5, 100)
    for rule in rules.rules:
        assert rule.rows >= LEAF_ROWS_MIN
        assert rule.held_out_low_bps > 5_000
        assert len(rule.bounds) <= 5
        assert rule.policy in rule_text(rule)
    covered = [within(rule, rows.values, rows.features) for rule in rules.rules]
    # Leaves of one tree: no row is covered twice.
    assert np.sum(covered, axis=0).max() == 1


@pytest.mark.proves("R256")
def test_a_rule_that_stops_holding_is_dropped(tmp_path: Path) -> None:
    rows = read_policy_rows(policy_file(tmp_path / "rows.parquet", turns=True))
    rules = discover_rules(rows, FoldPlan(fold_count=1, embargo_ms=0), seed=0)

    assert rules.dropped > 0
    assert rules.rules == ()


def test_the_bound_of_a_share_needs_evidence() -> None:
    assert wilson_low(0, 0) == pytest.approx(0.0)
    assert wilson_low(9, 10) < wilson_low(90, 100) < 0.9


@pytest.mark.proves("R256")
@pytest.mark.parametrize("start", ["detent.servers", "detent.core", "detent_client"])
def test_discovery_is_never_imported_online(start: str) -> None:
    sources = python_sources("services", "clients")
    loaded = reachable(start, sources)

    assert loaded
    assert not [name for name in loaded if name.startswith("detent.offline")]
