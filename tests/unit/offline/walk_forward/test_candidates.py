"""Candidates: the same bytes again, accepted by the gates, and served as they were fitted."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from detent.adapters import graph_limits
from detent.adapters.graph_audit import audit_graph
from detent.contracts.errors import ArtifactInvalid, DataInvalid
from detent.core.evaluation.simplicity import is_simpler
from detent.offline.walk_forward import fold_fit
from detent.offline.walk_forward.candidate import Fitted, Rows
from detent.offline.walk_forward.candidates import BY_ID, CANDIDATES, DEFAULT_IDS, LOGISTIC
from detent.offline.walk_forward.choice import choose, simplest_first
from detent.offline.walk_forward.export import floor_float32
from detent.offline.walk_forward.fold_fit import PARITY_MAX, direction_session, up
from detent.offline.walk_forward.search import search
from detent.offline.walk_forward.tcn import import_torch
from detent.offline.walk_forward.trees import early_stopped_rounds, lightgbm_params

WIDTH, COUNT, WINDOW = 6, 900, (64, 12)
FEWER = {"n_estimators": 12, "epochs": 10}


@functools.cache
def rows() -> Rows:
    """Give rows with something to learn in them: a sum, a product and noise."""
    draws = np.random.default_rng(11)
    values = draws.normal(0.0, 1.5, (COUNT, WIDTH)).astype(np.float32)
    score = values[:, 0] + 0.8 * values[:, 1] * values[:, 2] + draws.normal(0.0, 1.0, COUNT)
    return Rows(values=values, labels=score > 0.0)


def params(name: str) -> dict[str, int]:
    return {key: min(value, FEWER.get(key, value)) for key, value in BY_ID[name].params.items()}


@functools.cache
def fitted(name: str, seed: int = 0) -> Fitted:
    return BY_ID[name].fit(rows(), params(name), seed=seed)


@pytest.mark.proves("R147", "R48")
@pytest.mark.parametrize("name", DEFAULT_IDS)
def test_two_fits_of_one_seed_are_equal_to_the_byte(name: str) -> None:
    again = BY_ID[name].fit(rows(), params(name), seed=0)

    assert again.exported == fitted(name).exported
    assert onnx.load_model_from_string(again.exported.graph).graph.name == "detent_direction"


@pytest.mark.parametrize("name", ["random_forest", "mlp"])
def test_another_seed_is_another_model(name: str) -> None:
    """Must-fail control of the test before: what draws does depend on the seed."""
    assert fitted(name, seed=1).exported != fitted(name).exported


@pytest.mark.proves("R147")
@pytest.mark.parametrize("name", DEFAULT_IDS)
def test_the_gates_accept_each_export_and_it_says_what_was_fitted(name: str) -> None:
    exported = fitted(name).exported
    facts = audit_graph(exported.graph)
    session = direction_session(exported.graph, width=WIDTH)
    served, native = up(session, rows().values), fitted(name).native(rows().values)

    assert facts.outputs == ("probabilities",)
    assert np.max(np.abs(served - native)) <= PARITY_MAX
    assert np.mean((served > 0.5) == rows().labels) > 0.55


@pytest.mark.parametrize("name", ["random_forest", "gbt_lightgbm"])
def test_trees_take_the_same_branch_on_their_own_thresholds(name: str) -> None:
    """Rows that lie exactly on every threshold, and one step of float32 to either side."""
    exported = fitted(name).exported
    graph = onnx.load_model_from_string(exported.graph).graph
    held = {item.name: item for node in graph.node for item in node.attribute}
    edges = np.unique(np.array(held["nodes_values"].floats, dtype=np.float32))
    near = np.concatenate([edges, np.nextafter(edges, np.float32(9)), np.nextafter(edges, -9)])
    values = np.repeat(near[:, np.newaxis], WIDTH, axis=1).astype(np.float32)

    served = up(direction_session(exported.graph, width=WIDTH), values)
    assert len(near) > 30
    assert np.max(np.abs(served - fitted(name).native(values))) <= PARITY_MAX


@settings(max_examples=200, deadline=None)
@given(st.floats(-(2.0**99), 2.0**99), st.floats(-(2.0**99), 2.0**99, width=32))
def test_a_threshold_rounded_down_parts_float32_alike(threshold: float, value: float) -> None:
    floored = float(floor_float32(np.array([threshold]))[0])

    assert float(np.float32(floored)) == pytest.approx(floored, rel=0.0, abs=0.0)
    assert (value <= floored) == (value <= threshold)


@pytest.mark.proves("R166")
@pytest.mark.parametrize("name", DEFAULT_IDS)
def test_every_candidate_is_small_and_the_loader_refuses_what_is_not(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limits of the loader, brought down to just below the model, refuse it."""
    graph = fitted(name).exported.graph
    facts = audit_graph(graph)
    assert len(graph) < 2**20
    assert facts.nodes < 100

    monkeypatch.setattr("detent.adapters.graph_audit.NODES_MAX", facts.nodes - 1)
    with pytest.raises(ArtifactInvalid, match="nodes"):
        audit_graph(graph)
    monkeypatch.setattr("detent.adapters.graph_audit.NODES_MAX", graph_limits.NODES_MAX)
    monkeypatch.setattr("detent.adapters.graph_audit.MODEL_BYTES_MAX", len(graph) - 1)
    with pytest.raises(ArtifactInvalid, match="bytes"):
        audit_graph(graph)


def test_a_graph_that_says_something_else_is_never_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.unit.offline.walk_forward.test_folds import PLAN, clean
    from tests.unit.training_rows import dataset

    def lies(given: Rows, wanted: Any, *, seed: int) -> Fitted:
        honest = LOGISTIC.fit(given, wanted, seed=seed)
        return structs.replace(honest, native=lambda values: honest.native(values) + 2e-6)

    monkeypatch.setitem(
        fold_fit.BY_ID,
        "logistic",
        structs.replace(LOGISTIC, fit=lies),  # type: ignore[index]
    )
    table = dataset().rows
    task = fold_fit.FoldTask(
        architecture_id="logistic",
        params={},
        seed=0,
        fold=clean(),
        plan=PLAN,
        ts_ms=table.ts_ms,
        label_ts_ms=table.label_ts_ms,
        values=table.values,
        labels=table.labels,
        window=(),
        purge_rows=6,
    )

    with pytest.raises(ArtifactInvalid, match="between model and graph"):
        fold_fit.fit_fold(task)


@pytest.mark.proves("R154")
@pytest.mark.parametrize("name", ["gbt_lightgbm", "random_forest"])
def test_a_search_is_seeded_stored_and_within_its_bounds(name: str) -> None:
    halves = [
        Rows(values=rows().values[part], labels=rows().labels[part])
        for part in (slice(0, 600), slice(600, COUNT))
    ]
    studies = [
        search(BY_ID[name], *halves, trial_count=3, seed=seed, told=lambda: None)
        for seed in (5, 5, 6)
    ]

    first, again, other = studies
    assert first is not None
    assert other is not None
    assert first == again
    assert [one.params for one in other.trials] != [one.params for one in first.trials]
    assert len(first.trials) == 3
    best = min(first.trials, key=lambda one: one.brier_ppm)
    kept = {key: value for key, value in first.params.items() if key != "n_estimators"}
    assert kept.items() <= best.params.items()
    if name == "gbt_lightgbm":
        bounds = {
            "n_estimators": (50, 200),
            "max_depth": (3, 8),
            "learning_rate_x1000": (10, 300),
            "min_child_samples": (10, 100),
        }
        for one in first.trials:
            assert all(low <= one.params[key] <= high for key, (low, high) in bounds.items())
        assert 1 <= first.params["n_estimators"] <= best.params["n_estimators"]


@pytest.mark.proves("R154")
def test_boosting_stops_after_fifty_trees_that_brought_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On labels that turn around the first tree is the best, and it alone is kept."""
    import lightgbm

    rounds: list[int] = []
    real = lightgbm.early_stopping

    def told(stopping_rounds: int, **options: Any) -> Any:
        rounds.append(stopping_rounds)
        return real(stopping_rounds, **options)

    monkeypatch.setattr(lightgbm, "early_stopping", told)
    labels = rows().labels.astype(np.float64)
    params = lightgbm_params({**BY_ID["gbt_lightgbm"].params, "n_estimators": 200}, seed=0)

    kept = early_stopped_rounds(rows().values, labels, (rows().values, 1.0 - labels), params)

    assert (kept, rounds) == (1, [50])


@pytest.mark.proves("R163")
def test_candidates_come_the_simplest_first() -> None:
    names = [one.architecture_id for one in CANDIDATES]

    assert simplest_first(names[::-1]) == ["logistic", "linear_regression", *names[2:]]
    assert is_simpler("gbt_lightgbm", "tcn")
    assert is_simpler("mlp", "tcn")


def said(share: float, count: int = 4_000) -> tuple[dict[str, Any], Any, Any]:
    """Give what a simple and a complex model said: the second knows a share of the truth more."""
    draws = np.random.default_rng(3)
    truth = np.clip(0.5 + draws.normal(0.0, 0.1, count), 0.05, 0.95)
    labels = draws.random(count) < truth
    rough = 0.5 + 0.5 * (truth - 0.5)
    finer = np.clip(rough + share * (truth - rough) + draws.normal(0.0, 0.01, count), 0.01, 0.99)
    return {"tcn": finer, "logistic": rough}, labels, np.repeat(np.arange(count // 2), 2)


@pytest.mark.proves("R163", "R164")
def test_the_simpler_stays_where_the_other_is_as_good() -> None:
    """The complex one is a little better by chance, and that is not enough."""
    found, labels, ts_ms = said(0.0)

    choice = choose(found, labels, ts_ms, horizon_bars=4)

    assert choice.architecture_id == "logistic"
    assert choice.comparisons[0].bound_ppb >= 0
    assert "is no better" in choice.reason


@pytest.mark.proves("R163", "R164")
def test_a_model_that_is_better_beyond_doubt_takes_the_place() -> None:
    found, labels, ts_ms = said(1.0)

    choice = choose(found, labels, ts_ms, horizon_bars=4)

    assert choice.architecture_id == "tcn"
    assert choice.comparisons[0].bound_ppb < 0


def test_no_candidate_is_no_choice() -> None:
    with pytest.raises(DataInvalid, match="at least one candidate"):
        choose({}, np.zeros(0, dtype=np.bool_), np.zeros(0, dtype=np.int64), horizon_bars=1)


def test_without_torch_the_convolution_is_a_typed_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)

    with pytest.raises(DataInvalid, match=r"detent\[torch\]"):
        import_torch()


@pytest.mark.proves("R163")
def test_convolution_over_windows_is_the_same_twice_and_served_as_fitted() -> None:
    pytest.importorskip("torch", reason="torch is not installed: it is in no locked environment")
    draws = np.random.default_rng(12)
    values = draws.normal(0.0, 1.0, (600, WINDOW[0] * WINDOW[1])).astype(np.float32)
    labels = values[:, -WINDOW[1]] + values[:, -2 * WINDOW[1] + 1] > 0.0
    windows = Rows(values=values, labels=labels, window=WINDOW)
    first, again = (
        BY_ID["tcn"].fit(windows, {"channels": 8, "epochs": 4}, seed=2) for _ in range(2)
    )
    other = BY_ID["tcn"].fit(windows, {"channels": 8, "epochs": 4}, seed=3)

    assert first.exported == again.exported
    assert first.exported != other.exported
    audit_graph(first.exported.graph)
    session = direction_session(first.exported.graph, width=values.shape[1], input_shape=WINDOW)
    assert np.max(np.abs(up(session, values) - first.native(values))) <= PARITY_MAX
    assert first.exported.input_shape == WINDOW
    with pytest.raises(DataInvalid, match="windows"):
        BY_ID["tcn"].fit(rows(), {"channels": 8, "epochs": 1}, seed=0)
