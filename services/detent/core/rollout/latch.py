"""Say when a model has misbehaved so often that it is switched off until a person releases it.

Time is the bars' own, so that a replay latches on the same bar. Nothing here ever releases.

Source: RELIABILITY A4; Regulation (EU) 2017/589, article 15(3).
"""

from collections import defaultdict, deque
from collections.abc import Mapping
from enum import StrEnum

import msgspec

from detent.contracts.reasons import Reason
from detent.core.signals.choice import ModelOutcome

P_HALF_BPS = 5_000

# The model, or what runs it, is at fault.
FAILURES = frozenset(
    {
        Reason.BINDING_MISMATCH,
        Reason.INFERENCE_DEADLINE,
        Reason.INFERENCE_OVERLOADED,
        Reason.INFERENCE_UNAVAILABLE,
        Reason.INFERENCE_ERROR,
        Reason.OUTPUT_INVALID,
    }
)
# Somebody wants the model off: no trouble of its own.
MEANT = frozenset(
    {
        Reason.KILL_SWITCH_ENV,
        Reason.KILL_SWITCH_CONFIG,
        Reason.KILL_SWITCH_FILE,
        Reason.KILL_SWITCH_STATE,
        Reason.KILL_STATE_STALE,
        Reason.INFER_DISABLED,
        Reason.ACTIVE_DISABLED,
        Reason.BAD_ACK,
        Reason.ENV_NOT_ALLOWED,
        Reason.NOT_IN_CANARY,
        Reason.ROLLED_BACK,
    }
)


class LatchRule(StrEnum):
    """Names what was counted."""

    FAILURES = "failures"
    FALLBACKS = "fallbacks"
    FLIPS = "flips"


class LatchLimits(msgspec.Struct, frozen=True, kw_only=True):
    """States how often within which time; a limit of 0 is none.

    Attributes:
        window_ms: Length of the window, data time.
        failures: Bars in which the model, or what runs it, failed for some symbol.
        fallbacks: Bars in which the proxy answered for some symbol though the model was wanted.
        flips: Changes of one symbol's probability from one side of a half to the other.
    """

    window_ms: int = 86_400_000
    failures: int = 30
    fallbacks: int = 0
    flips: int = 0


class Latch:
    """Counts the troubles of one model."""

    def __init__(self, limits: LatchLimits) -> None:
        """Begin with nothing counted."""
        self._limits = limits
        self._failures: deque[int] = deque()
        self._fallbacks: deque[int] = deque()
        self._flips: defaultdict[str, deque[int]] = defaultdict(deque)
        self._is_up: dict[str, bool] = {}
        self._newest_ms = 0

    def note(self, outcomes: Mapping[str, ModelOutcome], *, ts_ms: int) -> LatchRule | None:
        """Count one bar and give the first rule whose limit it reaches; then begin anew.

        Args:
            outcomes: What came of asking the model, by symbol.
            ts_ms: Close of the bar, Unix milliseconds.
        """
        self._newest_ms = max(self._newest_ms, ts_ms)
        reasons = {one.reason for one in outcomes.values() if one.reason is not None}
        if reasons & FAILURES:
            self._failures.append(ts_ms)
        if reasons - MEANT:
            self._fallbacks.append(ts_ms)
        flipped = self._note_flips(outcomes, ts_ms)
        limits = self._limits
        counts = (
            (LatchRule.FAILURES, self._count(self._failures), limits.failures),
            (LatchRule.FALLBACKS, self._count(self._fallbacks), limits.fallbacks),
            (LatchRule.FLIPS, flipped, limits.flips),
        )
        for rule, count, limit in counts:
            if 0 < limit <= count:
                # Who releases it begins with nothing on the account.
                for counted in (self._failures, self._fallbacks, self._flips, self._is_up):
                    counted.clear()
                return rule
        return None

    def _note_flips(self, outcomes: Mapping[str, ModelOutcome], ts_ms: int) -> int:
        """Count the flips of the symbol that has most of them in the window."""
        most = 0
        for symbol, outcome in outcomes.items():
            if outcome.p_hat_bps is None or outcome.p_hat_bps == P_HALF_BPS:
                continue
            is_up = outcome.p_hat_bps > P_HALF_BPS
            if self._is_up.setdefault(symbol, is_up) is not is_up:
                self._is_up[symbol] = is_up
                self._flips[symbol].append(ts_ms)
                most = max(most, self._count(self._flips[symbol]))
        return most

    def _count(self, stamps: deque[int]) -> int:
        while stamps and stamps[0] <= self._newest_ms - self._limits.window_ms:
            stamps.popleft()
        return len(stamps)
