"""Hold what both models of a rollout said of the same bars, and what became of them.

A row is what a monitor judges by: the candidate's answer, the stable model's answer to the same
question, and the outcome once it is known. Which of the two answered the strategist is not said
here, because it changes nothing of who was right.

Source: decision D18; QUANT A9.
"""

import msgspec

from detent.contracts.checks import check_int, check_ts_ms
from detent.contracts.errors import InvalidField
from detent.contracts.reasons import Reason
from detent.contracts.units import BPS_ONE, INT64_MAX
from detent.core.rollout.latch import FAILURES, MEANT


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """States what one model said of one symbol's bar.

    Attributes:
        p_bps: Its calibrated probability; None where it gave none.
        reason: Why it gave none; None where it did.
        latency_us: How long it took, microseconds; None where nobody measured it.
    """

    p_bps: int | None
    reason: Reason | None = None
    latency_us: int | None = None

    def __post_init__(self) -> None:
        """Refuse what is neither an answer nor a reason, or both."""
        if (self.p_bps is None) is (self.reason is None):
            raise InvalidField("answer", (self.p_bps, self.reason), "a probability or a reason")
        if self.p_bps is not None:
            check_int("p_bps", self.p_bps, 0, BPS_ONE)
        if self.latency_us is not None:
            check_int("latency_us", self.latency_us, 0, INT64_MAX)

    @property
    def is_failure(self) -> bool:
        """Say whether the model, or what runs it, was at fault."""
        return self.reason in FAILURES


class PairedRow(msgspec.Struct, frozen=True, kw_only=True):
    """Holds one symbol's bar as both models saw it.

    Attributes:
        symbol: Instrument.
        candidate: What the candidate said.
        stable: What the stable model said; None where it was not asked or has not answered.
        label: Whether the price went up over the horizon; None while nobody knows.
    """

    symbol: str
    candidate: Answer
    stable: Answer | None
    label: bool | None = None

    @property
    def is_judged(self) -> bool:
        """Say whether the row counts: one whose model somebody switched off does not."""
        return self.candidate.reason not in MEANT and (
            self.stable is None or self.stable.reason not in MEANT
        )

    @property
    def pair(self) -> tuple[int, int] | None:
        """Give what candidate and stable model said, where both said something."""
        # Who answered was not switched off, so that such a row is always judged.
        if self.stable is None or self.candidate.p_bps is None or self.stable.p_bps is None:
            return None
        return self.candidate.p_bps, self.stable.p_bps


class PairedBar(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the rows of one bar, each symbol at most once.

    Attributes:
        ts_ms: Close of the bar, Unix milliseconds.
        rows: Its rows, at least one.
    """

    ts_ms: int
    rows: tuple[PairedRow, ...]

    def __post_init__(self) -> None:
        """Refuse a bar of nothing, and one that counts a symbol twice."""
        check_ts_ms("ts_ms", self.ts_ms)
        if not self.rows or len({row.symbol for row in self.rows}) != len(self.rows):
            found = [row.symbol for row in self.rows]
            raise InvalidField("rows", found, "at least one symbol, each once")


def check_later(before_ms: int | None, ts_ms: int) -> None:
    """Refuse a bar that is not later than the last one.

    Raises:
        InvalidField: It is not.
    """
    if before_ms is not None and ts_ms <= before_ms:
        raise InvalidField("ts_ms", ts_ms, f"later than {before_ms}")
