"""Holds attributions to brute force: Shapley values by enumeration, on what converters write."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tests.unit.exported_artifacts import exported_artifact
from tests.unit.public_exports import WIDTH, Export, lightgbm, samples, scikit_learn, torch_tcn

from detent.adapters.explaining import AttributionMethod, Explainer
from detent.adapters.graph_explain import read_graph
from detent.adapters.graph_form import GraphForm, form_bytes, linked, read_form
from detent.adapters.serving import Serving, open_serving
from detent.contracts.errors import ArtifactInvalid
from detent.core.signals.attributions import top_features
from detent.core.signals.shapley import (
    MODES,
    LinearScores,
    Scores,
    Step,
    TreeNodes,
    TreeScores,
)

Floats = NDArray[np.float32]
# What enumeration and the closed form may differ by, relative to the scores of these models.
TOLERANCE = 1e-9
EXACT = [
    pytest.param(functools.partial(scikit_learn, "logistic"), "shapley_linear", id="logistic"),
    pytest.param(functools.partial(scikit_learn, "logistic", 3), "shapley_linear", id="softmax"),
    pytest.param(functools.partial(scikit_learn, "forest"), "shapley_trees", id="forest"),
    pytest.param(functools.partial(scikit_learn, "forest", 3), "shapley_trees", id="forest of 3"),
    pytest.param(functools.partial(scikit_learn, "boosting"), "shapley_trees", id="boosting"),
    pytest.param(functools.partial(scikit_learn, "boosting", 3), "shapley_trees", id="boosting 3"),
    pytest.param(lightgbm, "shapley_trees", id="LightGBM"),
    pytest.param(functools.partial(lightgbm, 3), "shapley_trees", id="LightGBM of 3"),
]


def by_enumeration(
    score: Callable[[Floats], float], row: Floats, baseline: Floats
) -> NDArray[np.float64]:
    """Give Shapley values by their definition, over every subset of the inputs."""
    width = len(row)
    value = {}
    for size in range(width + 1):
        for chosen in combinations(range(width), size):
            mixed = baseline.copy()
            mixed[list(chosen)] = row[list(chosen)]
            value[frozenset(chosen)] = score(mixed)
    found = np.zeros(width)
    for one in range(width):
        for chosen, before in value.items():
            if one not in chosen:
                size = len(chosen)
                ways = math.factorial(size) * math.factorial(width - size - 1)
                weight = ways / math.factorial(width)
                found[one] += weight * (value[chosen | {one}] - before)
    return found


def served(exported: Callable[[], Export], parent: Path, **changes: Any) -> Serving:
    export = exported()
    artifact = exported_artifact(
        parent, export.graph, export.rows, input_shape=export.input_shape, **changes
    )
    return open_serving(artifact)


def explainer_in(serving: Serving) -> Explainer:
    assert serving.explainer is not None
    return serving.explainer


def scores_in(explainer: Explainer) -> Scores:
    assert explainer.scores is not None
    return explainer.scores


@pytest.mark.proves("R27")
@pytest.mark.parametrize(("exported", "method"), EXACT)
def test_attributions_of_an_export_are_its_shapley_values(
    exported: Callable[[], Export], method: str, tmp_path: Path
) -> None:
    """By enumeration over the scores, which are those that the session's probabilities show."""
    explainer = explainer_in(served(exported, tmp_path))
    scores, rows = scores_in(explainer), exported().rows
    p = explainer.session.outputs(rows)[0]
    link = "none" if "forest" in str(exported) else "sigmoid" if p.shape[1] == 2 else "softmax"

    assert (explainer.facts.method, explainer.facts.exact) == (method, True)
    for number, row in enumerate(rows[:50]):
        np.testing.assert_allclose(linked(scores.scores(row), link), p[number], atol=1e-5)
    for number, row in enumerate(rows[:6]):
        column = number % p.shape[1]

        def score(mixed: Floats, column: int = column) -> float:
            return float(scores.scores(mixed)[column])

        found = explainer.contributions(row, column)
        expected = by_enumeration(score, row, explainer.baseline)
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
        assert abs(found.sum() - score(row) + score(explainer.baseline)) <= TOLERANCE
        assert np.abs(found).max() > 100 * TOLERANCE


def test_wrong_weight_is_noticed(tmp_path: Path) -> None:
    """The control: the closed form with a leaf counted wrongly is not what enumeration gives."""
    explainer = explainer_in(served(lightgbm, tmp_path))
    scores = scores_in(explainer)
    assert isinstance(scores, TreeScores)
    row = lightgbm().rows[0]
    expected = by_enumeration(lambda mixed: float(scores.scores(mixed)[1]), row, explainer.baseline)
    scores._gives = scores._gives * 1.001
    found = scores.contributions(row, explainer.baseline, 1)

    assert np.abs(found - expected).max() > 1_000 * TOLERANCE


@st.composite
def forests(draw: st.DrawFn) -> tuple[TreeNodes, int]:
    """Draw trees of every mode, in which an input may come several times on one path."""
    width = draw(st.integers(3, 6))
    columns: dict[str, list[Any]] = {name: [] for name in ("input", "at", "mode", "yes", "no")}

    def grow(depth: int) -> int:
        place = len(columns["input"])
        is_leaf = depth == 0 or draw(st.integers(0, 4)) == 0
        columns["input"].append(0 if is_leaf else draw(st.integers(0, width - 1)))
        columns["at"].append(0.0 if is_leaf else draw(st.integers(-2, 2)))
        columns["mode"].append(-1 if is_leaf else draw(st.integers(0, len(MODES) - 1)))
        for side in ("yes", "no"):
            columns[side].append(0)
        if not is_leaf:
            columns["yes"][place] = grow(depth - 1)
            columns["no"][place] = grow(depth - 1)
        return place

    for _ in range(draw(st.integers(1, 3))):
        grow(draw(st.integers(0, 4)))
    leaves = columns["mode"].count(-1)
    values = draw(st.lists(st.integers(-9, 9), min_size=2 * leaves, max_size=2 * leaves))
    nodes = TreeNodes(
        inputs=np.array(columns["input"], dtype=np.int64),
        thresholds=np.array(columns["at"], dtype=np.float32),
        modes=np.array(columns["mode"], dtype=np.int64),
        if_true=np.array(columns["yes"], dtype=np.int64),
        if_false=np.array(columns["no"], dtype=np.int64),
        leaf_values=np.array(values, dtype=np.float64).reshape(leaves, 2) / 4,
    )
    return nodes, width


def walked(nodes: TreeNodes, row: Floats) -> NDArray[np.float64]:
    """Score a row as a reader would: from each root down to a leaf."""
    leaf_numbers = np.cumsum(nodes.modes < 0) - 1
    children = {*nodes.if_true[nodes.modes >= 0].tolist(), *nodes.if_false[nodes.modes >= 0]}
    total = np.zeros(nodes.leaf_values.shape[1])
    compare: dict[str, Callable[[float, float], bool]] = {
        "BRANCH_LEQ": lambda x, at: x <= at,
        "BRANCH_LT": lambda x, at: x < at,
        "BRANCH_GTE": lambda x, at: x >= at,
        "BRANCH_GT": lambda x, at: x > at,
        "BRANCH_EQ": lambda x, at: x == at,
        "BRANCH_NEQ": lambda x, at: x != at,
    }
    for root in set(range(len(nodes.modes))) - children:
        at = root
        while nodes.modes[at] >= 0:
            value, threshold = float(row[nodes.inputs[at]]), float(nodes.thresholds[at])
            holds = compare[MODES[nodes.modes[at]]](value, threshold)
            at = int((nodes.if_true if holds else nodes.if_false)[at])
        total += nodes.leaf_values[leaf_numbers[at]]
    return total


@pytest.mark.proves("R27")
@settings(max_examples=120, deadline=None)
@given(forest=forests(), data=st.data())
def test_trees_of_any_shape_are_split_as_by_enumeration(
    forest: tuple[TreeNodes, int], data: st.DataObject
) -> None:
    nodes, width = forest
    values = st.lists(st.integers(-3, 3), min_size=width, max_size=width)
    row, baseline = (np.array(data.draw(values), dtype=np.float32) for _ in range(2))
    step = Step(operation="subtract", constant=np.array([0.5], dtype=np.float32))
    steps = (step,) if data.draw(st.booleans()) else ()
    bias = np.array([0.25, -0.25])
    scores = TreeScores(nodes, steps=steps, bias=bias, width=width)
    shift = np.float32(0.5 if steps else 0.0)

    def score(mixed: Floats) -> float:
        return float(walked(nodes, mixed - shift)[1])

    np.testing.assert_allclose(scores.scores(row), walked(nodes, row - shift) + bias, atol=1e-12)
    found = scores.contributions(row, baseline, 1)
    np.testing.assert_allclose(found, by_enumeration(score, row, baseline), atol=TOLERANCE)
    assert abs(found.sum() - score(row) + score(baseline)) <= TOLERANCE


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_weighted_sums_are_split_as_by_enumeration(data: st.DataObject) -> None:
    width = data.draw(st.integers(3, 6))
    numbers = st.lists(st.floats(-5, 5, width=32), min_size=width, max_size=width)
    weights = np.array([data.draw(numbers), data.draw(numbers)], dtype=np.float64).T
    offset = Step(operation="subtract", constant=np.array(data.draw(numbers), dtype=np.float32))
    scale = Step(operation="multiply", constant=np.array(data.draw(numbers), dtype=np.float32))
    scores = LinearScores(steps=(offset, scale), weights=weights, bias=np.array([1.0, 2.0]))
    row, baseline = (np.array(data.draw(numbers), dtype=np.float32) for _ in range(2))
    found = scores.contributions(row, baseline, 0)
    expected = by_enumeration(lambda mixed: float(scores.scores(mixed)[0]), row, baseline)

    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


def graph(nodes: list[Any], constants: dict[str, Any], *, columns: int = 2) -> bytes:
    """Write a graph over `input`, by hand."""
    given_ = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", WIDTH])
    out = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", columns])
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    body = helper.make_graph(nodes, "by_hand", [given_], [out], initializer=weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return bytes(helper.make_model(body, opset_imports=opsets, ir_version=8).SerializeToString())


def linear_graph(*, bend: bool = False) -> bytes:
    """Write a standardisation, a product and a sigmoid; bent, it is no linear model."""
    chance = np.random.default_rng(3)
    constants = {
        "mean": chance.normal(0, 1, (1, WIDTH)).astype(np.float32),
        "deviation": chance.uniform(0.5, 2, WIDTH).astype(np.float32),
        "w": chance.normal(0, 1, (1, WIDTH)).astype(np.float32),
        "b": np.array([0.1], dtype=np.float32),
        "one": np.array(1.0, dtype=np.float32),
    }
    nodes = [
        helper.make_node("Sub", ["input", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "deviation"], ["scaled"]),
        helper.make_node("Gemm", ["scaled", "w", "b"], ["z"], transB=1),
        helper.make_node("Relu" if bend else "Identity", ["z"], ["bent"]),
        helper.make_node("Sigmoid", ["bent"], ["up"]),
        helper.make_node("Sub", ["one", "up"], ["down"]),
        helper.make_node("Concat", ["down", "up"], ["probabilities"], axis=1),
    ]
    return graph(nodes, constants)


def rows_of(count: int = 64) -> Floats:
    return samples(2)[0][:count]


def test_graph_of_plain_products_is_read_as_linear(tmp_path: Path) -> None:
    serving = open_serving(exported_artifact(tmp_path, linear_graph(), rows_of()))
    explainer = explainer_in(serving)
    row = rows_of()[3]
    p = explainer.session.outputs(np.stack([row, explainer.baseline]))[0].astype(np.float64)
    log_odds = np.log(p[:, 1] / p[:, 0])

    assert explainer.method is AttributionMethod.LINEAR
    found = explainer.contributions(row, 1)
    # The sum is the difference in log odds, as far as float32 shows it.
    assert found.sum() == pytest.approx(log_odds[0] - log_odds[1], abs=1e-4)


@pytest.mark.parametrize(
    "exported",
    [
        pytest.param(functools.partial(scikit_learn, "perceptron"), id="perceptron"),
        pytest.param(torch_tcn, id="window"),
    ],
)
def test_other_graphs_are_asked_again_without_each_feature(
    exported: Callable[[], Export], tmp_path: Path
) -> None:
    explainer = explainer_in(served(exported, tmp_path))
    export = exported()
    row, columns = export.rows[5], (export.input_shape or (1, WIDTH))[1]

    assert (explainer.facts.method, explainer.facts.exact) == ("occlusion", False)
    assert len(explainer.names) == columns
    found = explainer.contributions(row, 1)
    for feature in range(columns):
        without = row.copy()
        # All of a feature's values in a window, and no other's.
        without[feature::columns] = explainer.baseline[feature::columns]
        pair = [explainer.session.outputs(one[np.newaxis])[0] for one in (row, without)]
        assert found[feature] == float(pair[0][0, 1]) - float(pair[1][0, 1])


def test_window_names_each_feature_once(tmp_path: Path) -> None:
    """A window's name is its feature's, not that of one instant."""
    chance = np.random.default_rng(4)
    weights = chance.normal(0, 0.2, (12, 2)).astype(np.float32)
    given_ = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 4, 3])
    out = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 2])
    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["z"]),
        helper.make_node("Softmax", ["z"], ["probabilities"]),
    ]
    body = helper.make_graph(
        nodes, "window", [given_], [out], initializer=[numpy_helper.from_array(weights, "w")]
    )
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(body, opset_imports=opsets, ir_version=8).SerializeToString()
    windows = chance.normal(0, 1, (16, 12)).astype(np.float32)
    serving = open_serving(exported_artifact(tmp_path, model, windows, input_shape=(4, 3)))
    explainer = explainer_in(serving)
    top = explainer.top(windows[0], explainer.session.outputs(windows[:1])[0][0])

    assert explainer.method is AttributionMethod.OCCLUSION
    assert top is not None
    assert sorted(top[0]) == sorted(serving.artifact.pinned.feature_set.feature_names)


def test_graph_that_only_looks_linear_is_not_read_as_such(tmp_path: Path) -> None:
    serving = open_serving(exported_artifact(tmp_path, linear_graph(bend=True), rows_of()))

    assert explainer_in(serving).method is AttributionMethod.OCCLUSION


def test_form_that_is_not_what_the_session_gives_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The examiner's word alone is not enough: a model may have taken it over."""
    from detent.adapters import explaining

    def lying(written: bytes, *, width: int, classes: int) -> tuple[Scores, str] | None:
        read = read_form(written, width=width, classes=classes)
        assert read is not None
        assert isinstance(read[0], LinearScores)
        return structs.replace(read[0], weights=read[0].weights * 1.01), read[1]

    monkeypatch.setattr(explaining, "read_form", lying)
    serving = open_serving(exported_artifact(tmp_path, linear_graph(), rows_of()))

    assert explainer_in(serving).method is AttributionMethod.OCCLUSION


def form_of(model: bytes) -> GraphForm:
    form = read_graph(model, input_name="input", output_name="probabilities", width=WIDTH)
    assert form is not None
    return form


def test_form_that_does_not_fit_together_is_none() -> None:
    linear, trees = form_of(linear_graph()), form_of(lightgbm().graph)
    assert trees.trees is not None
    broken: list[GraphForm] = [
        structs.replace(linear, weights=b"1234567"),
        structs.replace(linear, weights=None),
        structs.replace(linear, bias=np.array([0.0, np.nan]).tobytes()),
        structs.replace(linear, link="tanh"),
        structs.replace(linear, trees=trees.trees),
        structs.replace(linear, steps=(structs.replace(linear.steps[0], operation="power"),)),
        structs.replace(linear, steps=(structs.replace(linear.steps[0], constant=bytes(8)),)),
    ]
    for name in ("inputs", "modes", "if_true", "if_false", "thresholds"):
        size = len(getattr(trees.trees, name))
        for content in (b"", b"\xff\xff\xff\x7f" * (size // 4), bytes(size)):
            if name in {"inputs", "thresholds"} and content == bytes(size):
                # Other trees, but trees.
                continue
            if name == "thresholds" and content:
                continue
            changed = structs.replace(trees.trees, **{name: content})
            broken.append(structs.replace(trees, trees=changed))

    assert read_form(form_bytes(linear), width=WIDTH, classes=2) is not None
    assert read_form(form_bytes(trees), width=WIDTH, classes=2) is not None
    for form in broken:
        assert read_form(form_bytes(form), width=WIDTH, classes=2) is None, form
    for written in (b"", b"\x00", b"no form", form_bytes(linear)[:-1]):
        assert read_form(written, width=WIDTH, classes=2) is None


def test_baseline_is_the_artifacts_or_the_mean_of_its_golden_rows(tmp_path: Path) -> None:
    rows = rows_of()
    own = np.linspace(-1, 1, WIDTH).astype(np.float32)
    mean = explainer_in(open_serving(exported_artifact(tmp_path / "a", linear_graph(), rows)))
    said = explainer_in(
        open_serving(exported_artifact(tmp_path / "b", linear_graph(), rows, baseline=own))
    )

    expected = rows[:8].astype(np.float64).mean(axis=0).astype(np.float32)
    assert np.array_equal(mean.baseline, expected)
    assert np.array_equal(said.baseline, own)
    assert said.contributions(own, 1) == pytest.approx(np.zeros(WIDTH))
    assert mean.facts.baseline_hash != said.facts.baseline_hash
    with pytest.raises(ArtifactInvalid, match="baseline"):
        open_serving(exported_artifact(tmp_path / "c", linear_graph(), rows, baseline=own * np.nan))


def test_top_three_are_shares_of_all_weight_and_ties_keep_their_order() -> None:
    names = ("a", "b", "c", "d", "e")

    assert top_features(names, np.array([1.0, -4.0, 2.0, 2.0, -1.0])) == (
        ("b", "c", "d"),
        (400, 200, 200),
    )
    assert top_features(names, np.zeros(5)) == (("a", "b", "c"), (0, 0, 0))
    assert top_features(names, np.full(5, 1e308)) == (("a", "b", "c"), (200, 200, 200))
    assert top_features(names, np.array([1.0, np.nan, 0.0, 0.0, 0.0])) is None


def test_trees_beyond_the_limit_are_not_laid_out() -> None:
    """A path over more inputs than the table of weights has."""
    depth = 70
    count = 2 * depth + 1
    branches = np.arange(depth)
    nodes = TreeNodes(
        inputs=np.concatenate([branches, np.zeros(depth + 1, dtype=np.int64)]),
        thresholds=np.zeros(count, dtype=np.float32),
        modes=np.concatenate([np.zeros(depth, np.int64), np.full(depth + 1, -1)]),
        if_true=np.concatenate([depth + branches, np.zeros(depth + 1, dtype=np.int64)]),
        if_false=np.concatenate([branches[1:], [count - 1], np.zeros(depth + 1, dtype=np.int64)]),
        leaf_values=np.ones((depth + 1, 1)),
    )
    with pytest.raises(ValueError, match="70 inputs"):
        TreeScores(nodes, steps=(), bias=np.zeros(1), width=depth)


def test_examiner_reads_nothing_of_what_it_cannot_follow() -> None:
    broken = onnx.load_from_string(lightgbm().graph)
    node = broken.graph.node[0]
    for attribute in node.attribute:
        if attribute.name == "class_ids":
            attribute.ints[0] = 2**62
    wild = broken.SerializeToString()

    assert read_graph(wild, input_name="input", output_name="probabilities", width=6) is None
    perceptron = scikit_learn("perceptron").graph
    assert read_graph(perceptron, input_name="input", output_name="probabilities", width=6) is None
    assert read_graph(wild, input_name="input", output_name="label", width=6) is None
