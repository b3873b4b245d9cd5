"""Hold what passes between the process that serves and the one that examines a model.

What comes back may have been written by a model that took the process over, so it is bounded
and read as data, and the best that it can say is that the model may be loaded.
"""

from enum import StrEnum

import msgspec

from detent.adapters.graph_limits import GraphFacts

# Said before the first byte of a model is taken.
READY = b"ready\n"
REPORT_BYTES_MAX = 64 * 2**10


class Stage(StrEnum):
    """Names how far the examination came."""

    START = "start"
    AUDIT = "audit"
    LOAD = "load"
    RUN = "run"
    DONE = "done"


class GraphQuestion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Says what bytes follow and how the graph is to be run.

    Attributes:
        model_bytes: Size of the model.
        input_name: Name of its input.
        row_shape: Shape of one row.
        row_count: Number of rows.
        row_bytes: Size of one row.
        output_name: Name of the output whose form is wanted; empty for none.
    """

    model_bytes: int
    input_name: str
    row_shape: tuple[int, ...]
    row_count: int
    row_bytes: int
    output_name: str = ""


class Refusal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Holds why a model is refused, as an `ArtifactInvalid` has it."""

    gate_reason: str
    rule: str
    found: str
    expected: str
    message: str


class TensorFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """States what one output was."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class GraphReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Says what the examination found.

    Attributes:
        stage: How far it came.
        refusal: Why the model is refused; None if it is not.
        facts: What the graph is.
        outputs: What it gave for the golden rows.
        elapsed_ms: Time that audit, load and runs took.
        limits_missing: Limits that the platform does not have, by their names.
        form_bytes: Size of the form (`graph_form`) that follows the report's line; 0 for
            none.
    """

    stage: Stage
    refusal: Refusal | None = None
    facts: GraphFacts | None = None
    outputs: tuple[TensorFacts, ...] = ()
    elapsed_ms: int = 0
    limits_missing: tuple[str, ...] = ()
    form_bytes: int = 0
