"""Split what a model scores a row above one baseline row among its inputs, exactly.

For one baseline row the Shapley value of an input needs no sampling. A linear score splits into
one term per input. A tree's score is a sum over leaves, and the game of one leaf has a closed
form: with A the inputs of its path whose conditions only the row meets, and B those that only the
baseline meets, a leaf of value v gives v (|A|-1)! |B|! / (|A|+|B|)! to each of A and takes
v |A|! (|B|-1)! / (|A|+|B|)! from each of B; it gives nothing if neither meets some condition.

Sums are of float64 in a fixed order, one row at a time: a row's numbers depend on no other row.

Source: Lundberg et al., From local explanations to global understanding, 2020 (interventional
TreeSHAP with one reference); row R27.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]
Whole = NDArray[np.int64]

# Bounds time and memory of one row: conditions on the paths to all leaves.
CONDITIONS_MAX = 2**22
# The weights are kept in a square table of this side.
PATH_INPUTS_MAX = 64

OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
}
# What a branch asks of its input, by the names of ONNX.
COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "BRANCH_LEQ": np.less_equal,
    "BRANCH_LT": np.less,
    "BRANCH_GTE": np.greater_equal,
    "BRANCH_GT": np.greater,
    "BRANCH_EQ": np.equal,
    "BRANCH_NEQ": np.not_equal,
}
MODES = tuple(COMPARISONS)


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """Holds one operation that a graph applies to each input by itself, such as a scaler's.

    Attributes:
        operation: One of `OPERATIONS`.
        constant: Shape () or (width,), float32.
    """

    operation: str
    constant: Floats


def prepared(row: Floats, steps: Sequence[Step], kind: type[np.floating[Any]]) -> NDArray[Any]:
    """Apply the steps of a graph to a row, in the precision asked for."""
    values = row.astype(kind)
    for step in steps:
        values = OPERATIONS[step.operation](values, step.constant.astype(kind))
    return values


class Scores(Protocol):
    """Scores rows as a graph does before its last function, and splits the scores."""

    def scores(self, row: Floats) -> Doubles:
        """Give the score of every class, shape (classes,)."""

    def contributions(self, row: Floats, baseline: Floats, column: int) -> Doubles:
        """Give each input's share of score(row) - score(baseline), shape (width,)."""


class LinearScores(msgspec.Struct, frozen=True, kw_only=True):
    """Scores rows by a weighted sum.

    Attributes:
        steps: What is done to each input first.
        weights: Shape (width, classes).
        bias: Shape (classes,).
    """

    steps: tuple[Step, ...]
    weights: Doubles
    bias: Doubles

    def scores(self, row: Floats) -> Doubles:
        """Give the score of every class, shape (classes,)."""
        values = prepared(row, self.steps, np.float64)
        found: Doubles = (values[:, np.newaxis] * self.weights).sum(axis=0) + self.bias
        return found

    def contributions(self, row: Floats, baseline: Floats, column: int) -> Doubles:
        """Give w_i (x_i - b_i) for every input, shape (width,)."""
        above = prepared(row, self.steps, np.float64) - prepared(baseline, self.steps, np.float64)
        found: Doubles = self.weights[:, column] * above
        return found


class TreeNodes(msgspec.Struct, frozen=True, kw_only=True):
    """Holds all nodes of all trees, side by side.

    Attributes:
        inputs: Input that a branch looks at, shape (nodes,).
        thresholds: What it is compared with, float32.
        modes: How, an index of `MODES`; -1 for a leaf.
        if_true: Node that follows where the comparison holds; nothing for a leaf.
        if_false: Node that follows where it does not.
        leaf_values: Shape (leaves, classes): the leaves in the order of the nodes.
    """

    inputs: Whole
    thresholds: Floats
    modes: Whole
    if_true: Whole
    if_false: Whole
    leaf_values: Doubles


class _Met(msgspec.Struct, frozen=True):
    """Says, per pair of leaf and input, whether a row meets what the path asks of the input."""

    pairs: NDArray[np.bool_]


class TreeScores:
    """Scores rows by the leaves that they fall into."""

    def __init__(
        self, nodes: TreeNodes, *, steps: tuple[Step, ...], bias: Doubles, width: int
    ) -> None:
        """Lay out, once, what the path to each leaf asks of each input.

        Args:
            nodes: All trees.
            steps: What is done to each input before the trees see it, in float32.
            bias: Added to the score of every class, shape (classes,).
            width: Number of inputs.

        Raises:
            ValueError: The nodes are no trees over these inputs, or too many.
        """
        self._nodes, self._steps, self._width = nodes, steps, width
        leaf_of, node_of, side_of = _conditions(nodes, width)
        inputs = nodes.inputs[node_of]
        order = np.lexsort((inputs, leaf_of))
        self._node_of, self._side_of = node_of[order], side_of[order]
        leaf_of, inputs = leaf_of[order], inputs[order]
        self._pair_starts = _starts(leaf_of, inputs)
        self._inputs, pair_leaf = inputs[self._pair_starts], leaf_of[self._pair_starts]
        self._leaf_starts = _starts(pair_leaf)
        leaves = pair_leaf[self._leaf_starts]
        self._sizes = np.diff(self._leaf_starts, append=len(pair_leaf))
        if self._sizes.max(initial=0) > PATH_INPUTS_MAX:
            message = f"found a path over {self._sizes.max()} inputs, expected {PATH_INPUTS_MAX}"
            raise ValueError(message)
        self._values = nodes.leaf_values[leaves]
        # A tree without a branch adds the same to every row.
        alone = np.ones(len(nodes.leaf_values), dtype=np.bool_)
        alone[leaves] = False
        self._bias: Doubles = bias + nodes.leaf_values[alone].sum(axis=0)
        self._gives, self._takes = _weights(int(self._sizes.max(initial=0)))

    def scores(self, row: Floats) -> Doubles:
        """Give the score of every class, shape (classes,)."""
        if not len(self._sizes):
            return self._bias.copy()
        reached = np.logical_and.reduceat(self._met(row).pairs, self._leaf_starts)
        found: Doubles = self._bias + self._values[reached].sum(axis=0)
        return found

    def contributions(self, row: Floats, baseline: Floats, column: int) -> Doubles:
        """Give the Shapley value of every input, shape (width,)."""
        if not len(self._sizes):
            return np.zeros(self._width)
        mine, other = self._met(row).pairs, self._met(baseline).pairs
        only_mine, only_other = mine & ~other, other & ~mine
        starts = self._leaf_starts
        mine_count = np.add.reduceat(only_mine.astype(np.int64), starts)
        other_count = np.add.reduceat(only_other.astype(np.int64), starts)
        possible = np.logical_and.reduceat(mine | other, starts)
        value = np.where(possible, self._values[:, column], 0.0)
        given = np.repeat(value * self._gives[mine_count, other_count], self._sizes)
        taken = np.repeat(value * self._takes[mine_count, other_count], self._sizes)
        amounts = np.where(only_mine, given, np.where(only_other, -taken, 0.0))
        sums = np.bincount(self._inputs, weights=amounts, minlength=self._width)
        return sums.astype(np.float64)

    def _met(self, row: Floats) -> _Met:
        nodes = self._nodes
        values = prepared(row, self._steps, np.float32)[nodes.inputs]
        holds = np.zeros(len(values), dtype=np.bool_)
        for number, mode in enumerate(MODES):
            chosen = nodes.modes == number
            if chosen.any():
                holds[chosen] = COMPARISONS[mode](values[chosen], nodes.thresholds[chosen])
        return _Met(
            np.logical_and.reduceat(holds[self._node_of] == self._side_of, self._pair_starts)
        )


def _conditions(nodes: TreeNodes, width: int) -> tuple[Whole, Whole, NDArray[np.bool_]]:
    """List, per leaf, each branch above it and the side on which it lies."""
    count, branches = len(nodes.modes), np.flatnonzero(nodes.modes >= 0)
    leaves = np.flatnonzero(nodes.modes < 0)
    children = np.concatenate([nodes.if_true[branches], nodes.if_false[branches]])
    if len(leaves) != len(nodes.leaf_values) or len(np.unique(children)) != len(children):
        message = "found nodes that are no trees, expected one parent each"
        raise ValueError(message)
    for indices, end in ((children, count), (nodes.inputs, width)):
        if indices.min(initial=0) < 0 or indices.max(initial=0) >= end:
            message = f"found an index outside its range, expected [0, {end})"
            raise ValueError(message)
    parents = np.full(count, -1, dtype=np.int64)
    parents[children] = np.concatenate([branches, branches])
    sides = np.zeros(count, dtype=np.bool_)
    sides[nodes.if_true[branches]] = True
    found: list[tuple[Whole, Whole, NDArray[np.bool_]]] = []
    names, current, total = np.arange(len(leaves)), leaves, 0
    while len(current):
        below = parents[current] >= 0
        names, current = names[below], current[below]
        total += len(current)
        if total > CONDITIONS_MAX:
            message = f"found more than {CONDITIONS_MAX} conditions, expected fewer"
            raise ValueError(message)
        found.append((names, parents[current], sides[current]))
        current = parents[current]
    empty = np.zeros(0, dtype=np.int64)
    found.append((empty, empty, empty.astype(np.bool_)))
    leaf_of, node_of, side_of = (np.concatenate(part) for part in zip(*found, strict=True))
    return leaf_of, node_of, side_of


def _starts(*keys: Whole) -> Whole:
    """Give where a run of equal keys begins."""
    if not len(keys[0]):
        return np.zeros(0, dtype=np.int64)
    changes = np.zeros(len(keys[0]), dtype=np.bool_)
    changes[0] = True
    for key in keys:
        changes[1:] |= key[1:] != key[:-1]
    return np.flatnonzero(changes)


def _weights(side: int) -> tuple[Doubles, Doubles]:
    """Tabulate (a-1)! b! / (a+b)! and a! (b-1)! / (a+b)! for a and b up to a number."""
    gives, takes = np.zeros((side + 1, side + 1)), np.zeros((side + 1, side + 1))
    for mine in range(side + 1):
        for other in range(side + 1 - mine):
            ways = math.comb(mine + other, mine)
            if mine:
                gives[mine, other] = 1 / (mine * ways)
            if other:
                takes[mine, other] = 1 / (other * ways)
    return gives, takes
