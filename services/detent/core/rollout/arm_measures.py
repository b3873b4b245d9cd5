"""Count what both arms of a rollout did over a window of bars.

Everything is a sum over rows, so a window that moves on takes what left it away again.

Source: row R117; decision D18.
"""

from collections import Counter
from collections.abc import Mapping

import msgspec

from detent.contracts.reasons import Reason
from detent.contracts.rollout import RolloutArm
from detent.contracts.units import BPS_ONE
from detent.core.rollout.paired_rows import Answer, PairedBar, PairedRow


class ArmCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Holds sums over the rows of one arm.

    Attributes:
        rows: Rows in which the model was asked.
        fallbacks: Rows without an answer of it.
        errors: Rows in which it, or what runs it, failed.
        invalid: Rows in which it answered NaN or something else that no model may answer.
        timed: Rows whose latency is known, or known to have been too long.
        slow: Rows that took longer than the limit, or too long to be waited for.
        moved_bps: Sum of the changes of a symbol's probability from one bar to its next.
        moves: How many changes those are.
    """

    rows: int = 0
    fallbacks: int = 0
    errors: int = 0
    invalid: int = 0
    timed: int = 0
    slow: int = 0
    moved_bps: int = 0
    moves: int = 0

    def plus(self, other: "ArmCounts", sign: int = 1) -> "ArmCounts":
        """Add other counts, or take them away with a sign of -1."""
        return ArmCounts(
            rows=self.rows + sign * other.rows,
            fallbacks=self.fallbacks + sign * other.fallbacks,
            errors=self.errors + sign * other.errors,
            invalid=self.invalid + sign * other.invalid,
            timed=self.timed + sign * other.timed,
            slow=self.slow + sign * other.slow,
            moved_bps=self.moved_bps + sign * other.moved_bps,
            moves=self.moves + sign * other.moves,
        )


class BarMeasures(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what a bar, or a window of bars, adds up to.

    Attributes:
        stable: Of the stable model.
        candidate: Of the candidate.
        shift_bps: Sum over the rows that both answered of candidate less stable.
        paired: How many rows those are.
        bars: How many bars they are.
        error_bars: Bars in which the candidate failed and the stable model did not.
        fallback_bars: The same of having no answer.
        slow_bars: The same of being slow.
    """

    stable: ArmCounts = ArmCounts()
    candidate: ArmCounts = ArmCounts()
    shift_bps: int = 0
    paired: int = 0
    bars: int = 0
    error_bars: int = 0
    fallback_bars: int = 0
    slow_bars: int = 0

    def plus(self, other: "BarMeasures", sign: int = 1) -> "BarMeasures":
        """Add another bar, or take it away with a sign of -1."""
        return BarMeasures(
            stable=self.stable.plus(other.stable, sign),
            candidate=self.candidate.plus(other.candidate, sign),
            shift_bps=self.shift_bps + sign * other.shift_bps,
            paired=self.paired + sign * other.paired,
            bars=self.bars + sign * other.bars,
            error_bars=self.error_bars + sign * other.error_bars,
            fallback_bars=self.fallback_bars + sign * other.fallback_bars,
            slow_bars=self.slow_bars + sign * other.slow_bars,
        )


def measure_bar(
    bar: PairedBar,
    *,
    latency_us_max: int,
    last_stable: Mapping[str, int],
    last_candidate: Mapping[str, int],
) -> BarMeasures:
    """Measure one bar.

    Args:
        bar: Its rows.
        latency_us_max: From here on a row is slow.
        last_stable: What the stable model said last, by symbol.
        last_candidate: What the candidate said last.
    """
    rows = [row for row in bar.rows if row.is_judged]
    stable = _counts(rows, RolloutArm.STABLE, latency_us_max, last_stable)
    candidate = _counts(rows, RolloutArm.CANDIDATE, latency_us_max, last_candidate)
    shifts = [pair[0] - pair[1] for row in rows if (pair := row.pair) is not None]
    return BarMeasures(
        stable=stable,
        candidate=candidate,
        shift_bps=sum(shifts),
        paired=len(shifts),
        bars=1,
        error_bars=int(candidate.errors > stable.errors),
        fallback_bars=int(candidate.fallbacks > stable.fallbacks),
        slow_bars=int(candidate.slow > stable.slow),
    )


def _counts(
    rows: list[PairedRow], arm: RolloutArm, latency_us_max: int, last: Mapping[str, int]
) -> ArmCounts:
    asked = fallbacks = errors = invalid = timed = slow = moved_bps = moves = 0
    for row in rows:
        answer = row.stable if arm is RolloutArm.STABLE else row.candidate
        if answer is None:
            continue
        asked += 1
        if answer.p_bps is None:
            fallbacks += 1
            errors += answer.is_failure
            invalid += answer.reason is Reason.OUTPUT_INVALID
        elif row.symbol in last:
            moved_bps += abs(answer.p_bps - last[row.symbol])
            moves += 1
        if answer.reason is Reason.INFERENCE_DEADLINE:
            timed, slow = timed + 1, slow + 1
        elif answer.latency_us is not None:
            timed += 1
            slow += answer.latency_us > latency_us_max
    return ArmCounts(
        rows=asked,
        fallbacks=fallbacks,
        errors=errors,
        invalid=invalid,
        timed=timed,
        slow=slow,
        moved_bps=moved_bps,
        moves=moves,
    )


class ArmReport(msgspec.Struct, frozen=True, kw_only=True):
    """Says in full what one arm did over a window, for whoever looks.

    Attributes:
        arm: Which.
        counts: Its sums.
        reasons: Why it gave no answer, and how often.
        latency_p99_us: Of the rows whose latency was measured, nearest rank; None without any.
        brier: Brier score of the labelled rows that both answered; None without any.
        scored: How many rows those are.
    """

    arm: RolloutArm
    counts: ArmCounts
    reasons: Mapping[Reason, int]
    latency_p99_us: int | None
    brier: float | None
    scored: int


def arm_report(bars: tuple[PairedBar, ...], arm: RolloutArm, counts: ArmCounts) -> ArmReport:
    """Report one arm over the bars of a window.

    Args:
        bars: The bars, with the labels that are known.
        arm: Which arm.
        counts: Its sums over them.
    """
    rows = [row for bar in bars for row in bar.rows if row.is_judged]
    answers = [_of(row, arm) for row in rows]
    latencies = sorted(
        one.latency_us for one in answers if one is not None and one.latency_us is not None
    )
    place = 0 if arm is RolloutArm.CANDIDATE else 1
    lost = [
        (row.pair[place] / BPS_ONE - row.label) ** 2
        for row in rows
        if row.label is not None and row.pair is not None
    ]
    reasons = Counter(one.reason for one in answers if one is not None and one.reason is not None)
    return ArmReport(
        arm=arm,
        counts=counts,
        reasons=dict(reasons),
        latency_p99_us=latencies[-(-99 * len(latencies) // 100) - 1] if latencies else None,
        brier=sum(lost) / len(lost) if lost else None,
        scored=len(lost),
    )


def _of(row: PairedRow, arm: RolloutArm) -> Answer | None:
    return row.stable if arm is RolloutArm.STABLE else row.candidate
