"""Carry what the examiner read of a graph, so that the serving process need not read it.

The bytes may have been written by a model that took the examiner over. They are read as data,
checked, and believed only as far as they give what the session gives.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from detent.core.signals.shapley import (
    MODES,
    OPERATIONS,
    LinearScores,
    Scores,
    Step,
    TreeNodes,
    TreeScores,
)

FORM_BYTES_MAX = 64 * 2**20
LINKS = ("none", "sigmoid", "softmax")


class StepForm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Holds a step; the constant is little-endian float32."""

    operation: str
    constant: bytes


class TreeForm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Holds `TreeNodes`: float32, float64 and int32, little-endian."""

    inputs: bytes
    thresholds: bytes
    modes: bytes
    if_true: bytes
    if_false: bytes
    leaf_values: bytes


class GraphForm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Says what a graph computes, where it is a linear model or trees.

    Attributes:
        steps: What it does to each input first.
        bias: One float64 per class, little-endian.
        link: What it does to the scores last, one of `LINKS`.
        weights: Of a linear model: float64, (width, classes); else None.
        trees: Of trees; else None.
    """

    steps: tuple[StepForm, ...]
    bias: bytes
    link: str
    weights: bytes | None = None
    trees: TreeForm | None = None


def form_bytes(form: GraphForm | None) -> bytes:
    """Write a form; nothing where there is none, or where it is too large to send."""
    if form is None:
        return b""
    written = msgspec.msgpack.encode(form)
    return written if len(written) <= FORM_BYTES_MAX else b""


def read_form(written: bytes, *, width: int, classes: int) -> tuple[Scores, str] | None:
    """Give the scores that a form describes, and their link; None where there are none.

    Args:
        written: What `form_bytes` gave.
        width: Number of inputs of the graph.
        classes: Number of columns of its first output.
    """
    if not written:
        return None
    try:
        form = msgspec.msgpack.decode(written, type=GraphForm)
        steps = tuple(_step(step, width) for step in form.steps)
        bias = _finite(_array(form.bias, "<f8", classes))
        if form.link not in LINKS or (form.weights is None) == (form.trees is None):
            return None
        if form.weights is not None:
            weights = _finite(_array(form.weights, "<f8", width * classes))
            shaped = weights.reshape(width, classes)
            return LinearScores(steps=steps, weights=shaped, bias=bias), form.link
        assert form.trees is not None, "one of the two is there"
        nodes = _nodes(form.trees, classes)
        return TreeScores(nodes, steps=steps, bias=bias, width=width), form.link
    except (msgspec.DecodeError, ValueError):
        return None


def linked(scores: NDArray[np.float64], link: str) -> NDArray[np.float64]:
    """Give the probabilities that a graph makes of its scores, shape (classes,)."""
    if link == "softmax":
        shares = np.exp(scores - scores.max())
        found: NDArray[np.float64] = shares / shares.sum()
        return found
    if link == "sigmoid":
        # No exponent of a positive number: it cannot overflow.
        small = np.exp(-np.abs(scores))
        return np.where(scores >= 0, 1.0, small) / (1.0 + small)
    return scores


def _step(form: StepForm, width: int) -> Step:
    if form.operation not in OPERATIONS:
        message = f"found step {form.operation!r}, expected one of {', '.join(OPERATIONS)}"
        raise ValueError(message)
    constant = np.frombuffer(form.constant, "<f4")
    if len(constant) not in {1, width}:
        message = f"found {len(constant)} constants, expected 1 or {width}"
        raise ValueError(message)
    return Step(operation=form.operation, constant=constant)


def _nodes(form: TreeForm, classes: int) -> TreeNodes:
    inputs, modes, if_true, if_false = (
        np.frombuffer(part, "<i4").astype(np.int64)
        for part in (form.inputs, form.modes, form.if_true, form.if_false)
    )
    count = len(modes)
    _check_same([len(inputs), len(if_true), len(if_false)], count)
    if modes.max(initial=-1) >= len(MODES):
        message = f"found mode {modes.max()}, expected less than {len(MODES)}"
        raise ValueError(message)
    leaves = int((modes < 0).sum())
    return TreeNodes(
        inputs=inputs,
        thresholds=_array(form.thresholds, "<f4", count),
        modes=modes,
        if_true=if_true,
        if_false=if_false,
        leaf_values=_finite(_array(form.leaf_values, "<f8", leaves * classes)).reshape(
            leaves, classes
        ),
    )


def _array(content: bytes, kind: str, count: int) -> NDArray[Any]:
    found = np.frombuffer(content, kind)
    _check_same([len(found)], count)
    return found


def _check_same(sizes: Sequence[int], count: int) -> None:
    if any(size != count for size in sizes):
        message = f"found lists of {list(sizes)}, expected {count}"
        raise ValueError(message)


def _finite(values: NDArray[Any]) -> NDArray[Any]:
    if not np.isfinite(values).all():
        message = "found a value that is no number, expected numbers"
        raise ValueError(message)
    return values
