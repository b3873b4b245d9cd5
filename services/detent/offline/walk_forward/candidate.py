"""Say what a candidate is: how it is fitted, and what a fit gives."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from detent.core.evaluation.scores import Floats, Labels
from detent.offline.walk_forward.export import Exported, Inputs

Params = Mapping[str, int]


class Rows(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Holds what a fit is given.

    Attributes:
        values: Shape (n, width), float32.
        labels: Shape (n,).
        window: Shape of a row where it is a window, (rows, features); empty for a flat row.
    """

    values: Inputs
    labels: Labels
    window: tuple[int, ...] = ()


class Fitted(msgspec.Struct, frozen=True, kw_only=True):
    """Holds a fitted model twice: as it will be served, and as the library runs it.

    Attributes:
        exported: The graph.
        native: Gives P(up) of rows, shape (n,), by the library that fitted it.
    """

    exported: Exported
    native: Callable[[Inputs], Floats]


class Fit(Protocol):
    """Fits a candidate."""

    def __call__(self, rows: Rows, params: Params, *, seed: int) -> Fitted:
        """Fit; the same rows, parameters and seed give the same bytes."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """Describes one kind of model.

    Attributes:
        architecture_id: Its name in manifests and bindings.
        framework: Library that fits it.
        fit: Fits it.
        params: What it is fitted with unless a search finds better.
        space: Draws parameters from a trial of Optuna; None where nothing is searched.
        needs_window: Whether it reads a window of rows.
    """

    architecture_id: str
    framework: str
    fit: Fit
    params: Params = {}
    space: Callable[[Any], dict[str, int]] | None = None
    needs_window: bool = False
