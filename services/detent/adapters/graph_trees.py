"""Read the nodes of trees from the lists in which ONNX keeps them."""

from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from detent.adapters.graph_form import StepForm, TreeForm
from detent.core.signals.shapley import MODES

Whole = NDArray[np.int64]

NODES_MAX = 2**20
COLUMNS_MAX = 1_024
LEAF = b"LEAF"


class TreeAttributes(Protocol):
    """Gives the attributes of a node by name."""

    def one(self, name: str, default: Any) -> Any:
        """Give an attribute of one value."""

    def floats(self, name: str) -> NDArray[np.float32]:
        """Give a list of floats; empty where there is none."""

    def whole(self, name: str) -> Whole:
        """Give a list of integers; empty where there is none."""

    def texts(self, name: str) -> list[bytes]:
        """Give a list of texts; empty where there is none."""


class Trees(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Holds all trees of a node: see `TreeNodes`.

    Attributes:
        steps: What is done to each input first.
        leaf_weights: Shape (leaves, columns), as the lists have it.
        column: The one column that has weights, or the last one that has.
        is_of_one_column: Whether no other has.
    """

    steps: tuple[StepForm, ...]
    inputs: Whole
    thresholds: NDArray[np.float32]
    modes: Whole
    if_true: Whole
    if_false: Whole
    leaf_weights: NDArray[np.float64]
    column: int
    is_of_one_column: bool


def read_trees(node: TreeAttributes, kind: str, *, steps: tuple[StepForm, ...]) -> Trees:
    """Read the trees of a node.

    Args:
        node: A `TreeEnsembleClassifier` or a `TreeEnsembleRegressor`, audited.
        kind: `class` or `target`: how the lists of weights are called.
        steps: What is done to each input first.

    Raises:
        ValueError: The lists do not fit together, or a branch asks what we do not know.
    """
    numbers = {mode.encode("ascii"): number for number, mode in enumerate(MODES)} | {LEAF: -1}
    texts = node.texts("nodes_modes")
    if len(texts) > NODES_MAX or node.one("aggregate_function", b"SUM") not in {b"SUM", b"AVERAGE"}:
        message = f"found {len(texts)} nodes, expected at most {NODES_MAX}, and sums of leaves"
        raise ValueError(message)
    if any(text not in numbers for text in texts):
        message = "found a branch of an unknown mode, expected those of ONNX"
        raise ValueError(message)
    modes = np.array([numbers[text] for text in texts], dtype=np.int64)
    lists = ("nodes_treeids", "nodes_nodeids", "nodes_truenodeids", "nodes_falsenodeids")
    trees, ids, true_ids, false_ids = (node.whole(name) for name in lists)
    places = _Places(trees, ids)
    branches = modes >= 0
    if_true, if_false = np.zeros_like(ids), np.zeros_like(ids)
    if_true[branches] = places.of(trees[branches], true_ids[branches])
    if_false[branches] = places.of(trees[branches], false_ids[branches])
    columns = node.whole(f"{kind}_ids")
    owners = places.of(node.whole(f"{kind}_treeids"), node.whole(f"{kind}_nodeids"))
    wild = not len(columns) or columns.min() < 0 or columns.max() >= COLUMNS_MAX
    if wild or branches[owners].any():
        message = f"found weights of a branch, or none, expected {COLUMNS_MAX} columns of leaves"
        raise ValueError(message)
    leaf_numbers = np.cumsum(~branches) - 1
    weights = np.zeros((int((~branches).sum()), int(columns.max()) + 1))
    amounts = node.floats(f"{kind}_weights").astype(np.float64)
    np.add.at(weights, (leaf_numbers[owners], columns), amounts)
    if node.one("aggregate_function", b"SUM") == b"AVERAGE":
        weights = weights / len(np.unique(trees))
    return Trees(
        steps=steps,
        inputs=np.where(branches, node.whole("nodes_featureids"), 0),
        thresholds=node.floats("nodes_values"),
        modes=modes,
        if_true=if_true,
        if_false=if_false,
        leaf_weights=weights,
        column=int(columns.max()),
        is_of_one_column=len(np.unique(columns)) == 1,
    )


def tree_form(trees: Trees, matrix: NDArray[np.float64]) -> TreeForm:
    """Write trees whose leaves give the columns of a matrix."""
    inputs, modes, if_true, if_false = (
        part.astype("<i4").tobytes()
        for part in (trees.inputs, trees.modes, trees.if_true, trees.if_false)
    )
    return TreeForm(
        inputs=inputs,
        thresholds=trees.thresholds.astype("<f4").tobytes(),
        modes=modes,
        if_true=if_true,
        if_false=if_false,
        leaf_values=(trees.leaf_weights @ matrix).astype("<f8").tobytes(),
    )


class _Places:
    """Finds where a node stands in the lists, by its tree and its name."""

    def __init__(self, trees: Whole, ids: Whole) -> None:
        self._trees, self._ids = np.unique(trees), np.unique(ids)
        keys = self._keys(trees, ids)
        self._order = np.argsort(keys, kind="stable")
        self._sorted = keys[self._order]

    def of(self, trees: Whole, ids: Whole) -> Whole:
        """Give the places of some nodes.

        Raises:
            ValueError: A node is not there.
        """
        keys = self._keys(trees, ids)
        found = np.searchsorted(self._sorted, keys).clip(max=len(self._sorted) - 1)
        if not np.array_equal(self._sorted[found], keys):
            message = "found a node that no list has, expected one that is there"
            raise ValueError(message)
        places: Whole = self._order[found]
        return places

    def _keys(self, trees: Whole, ids: Whole) -> Whole:
        tree_ranks, id_ranks = (
            np.searchsorted(known, given).clip(max=len(known) - 1)
            for known, given in ((self._trees, trees), (self._ids, ids))
        )
        known = np.array_equal(self._trees[tree_ranks], trees) and np.array_equal(
            self._ids[id_ranks], ids
        )
        if not known:
            message = "found a node that no list has, expected one that is there"
            raise ValueError(message)
        keys: Whole = tree_ranks * len(self._ids) + id_ranks
        return keys
