"""Hold what a run of the session gave for some rows."""

import msgspec

from detent.contracts.errors import InternalError
from detent.contracts.reasons import Reason
from detent.contracts.signals import HeadSignal
from detent.servers.inference.run_queue import Floats

Answers = list[HeadSignal | Reason]


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what a run gave for some rows.

    Attributes:
        answers: One per row: its signal, or why it has none.
        latency_us: Time inside inference, microseconds.
        error: What failed, if it did.
        outputs: The graph's first output, a row per row; None where there was no run.
    """

    answers: Answers
    latency_us: int = 0
    error: InternalError | None = None
    outputs: Floats | None = None
