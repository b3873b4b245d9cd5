"""Hold the items and answers of `PolicyService/StreamDecisions`."""

from detent.contracts.calls.policy import (
    DecideTargetWeightsRequest,
    DecideTargetWeightsResponse,
    RowRefusal,
)
from detent.contracts.checks import check_int, check_text
from detent.contracts.errors import InvalidField

ITEM_ID_MAX = 2**63 - 1
TIMEOUT_MS_MAX = 3_600_000


class StreamDecisionsRequest(DecideTargetWeightsRequest, frozen=True, kw_only=True):
    """Asks for decisions on one bar, as one item of a stream: the same question, in a frame.

    Attributes:
        item_id: Number of the item, from 1; the answer repeats it.
        timeout_ms: How long the caller waits for it from its arrival, milliseconds.
        traceparent: The item's own W3C trace context; empty takes that of the call.
        tracestate: What belongs to it.
    """

    item_id: int
    timeout_ms: int
    traceparent: str = ""
    tracestate: str = ""

    def __post_init__(self) -> None:
        """Refuse what the unary call refuses, and a frame that nobody could answer."""
        super().__post_init__()
        check_int("item_id", self.item_id, 1, ITEM_ID_MAX)
        check_int("timeout_ms", self.timeout_ms, 1, TIMEOUT_MS_MAX)
        for name in ("traceparent", "tracestate"):
            if getattr(self, name):
                check_text(name, getattr(self, name))


class StreamDecisionsResponse(DecideTargetWeightsResponse, frozen=True, kw_only=True):
    """Answers one item of a stream, with its results or with why it is refused as a whole.

    Attributes:
        item_id: Number of the item; 0 where it could not be read.
        refusal: Why the item is refused.
    """

    item_id: int
    refusal: RowRefusal | None = None

    def __post_init__(self) -> None:
        """Refuse an answer that says nothing or both."""
        if bool(self.results) is (self.refusal is not None):
            found = f"{len(self.results)} results and {'a' if self.refusal else 'no'} refusal"
            raise InvalidField("refusal", found, "results or a refusal")
