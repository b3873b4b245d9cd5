"""State what a graph may be at most, and how a graph that is more is refused.

Every number stands well above what the public converters write for the models that Detent
serves, and well below what would trouble a process.
"""

import msgspec

from detent.contracts.errors import ArtifactInvalid, shown
from detent.contracts.reasons import Reason

GRAPH_FILE = "model.onnx"

MODEL_BYTES_MAX = 256 * 2**20
NODES_MAX = 100_000
INITIALIZERS_MAX = 100_000
# One tensor, and all of them; a float32 has four bytes.
TENSOR_ELEMENTS_MAX = 64 * 2**20
ALL_ELEMENTS_MAX = 64 * 2**20
# Numbers of one attribute: a forest of a thousand trees of a thousand nodes has a million.
ATTRIBUTE_ITEMS_MAX = 16 * 2**20
DIMENSIONS_MAX = 16
OUTPUTS_MAX = 16
# From the opset that the oldest converter in use writes to the newest that was looked at.
OPSET_RANGES = {"ai.onnx": (7, 28), "ai.onnx.ml": (1, 5)}
IR_VERSIONS = (3, 14)


class GraphFacts(msgspec.Struct, frozen=True, kw_only=True):
    """States what an audited graph is.

    Attributes:
        nodes: Number of nodes.
        elements: Numbers in all of its tensors.
        ops: Names of its operators, sorted, each once.
        outputs: Names of its outputs, in order.
    """

    nodes: int
    elements: int
    ops: tuple[str, ...]
    outputs: tuple[str, ...]


def graph_refused(
    rule: str, found: object, expected: str, *, gate_reason: Reason = Reason.MODEL_NOT_LOADED
) -> ArtifactInvalid:
    """Give the error that says which rule a graph breaks.

    Args:
        rule: Name of the rule, stable.
        found: What stood there; cut to a length that fits in a message.
        expected: What should have.
        gate_reason: The gate that this shuts.
    """
    return ArtifactInvalid(
        f"{GRAPH_FILE}: found {shown(found)}, expected {expected}",
        gate_reason=gate_reason,
        file=GRAPH_FILE,
        rule=rule,
        found=found,
        expected=expected,
    )


def check_limit(rule: str, found: int, limit: int, what: str) -> None:
    """Refuse a count that is above its limit."""
    if found > limit:
        raise graph_refused(rule, f"{found} {what}", f"at most {limit} {what}")
