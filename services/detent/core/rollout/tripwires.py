"""Say when a candidate breaks a limit that no outcome has to be waited for.

Each rule compares the candidate with the stable model on the same rows, so that a feature service
that is down takes nobody back; a stable model that said nothing excuses nothing. A rate counts
once it was seen on several bars: the rows of one bar share one call, and so one bad moment.

Source: decision D18; QUANT C4.
"""

from enum import StrEnum

import msgspec

from detent.contracts.checks import check_int
from detent.contracts.units import BPS_ONE, INT32_MAX, divide_half_even
from detent.core.rollout.arm_measures import ArmCounts, BarMeasures


class RollbackRule(StrEnum):
    """Names what takes a candidate back: the tripwires, and the test of its losses."""

    ERRORS = "errors"
    INVALID = "invalid_outputs"
    LATENCY = "latency"
    FALLBACKS = "fallbacks"
    MEAN_SHIFT = "mean_shift"
    CHURN = "churn"
    TEST = "sequential_test"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """States what was found of one rule, and its bound.

    Attributes:
        rule: Which rule.
        found: The number, in `unit`; None where there is too little to say.
        bound: What it may be at most; at or above it for `sequential_test`.
        unit: What both are counted in.
    """

    rule: RollbackRule
    found: int | None
    bound: int
    unit: str

    @property
    def text(self) -> str:
        """Say it in words for the history."""
        found = "unknown" if self.found is None else str(self.found)
        return f"{self.rule.value} {found} {self.unit}, bound {self.bound}"


class TripwireLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Declares the limits; each is broken above it.

    Attributes:
        window_bars: Bars that are counted together.
        rows_min: Fewer rows in the window break no limit.
        bars_min: Bars on which a rate has to be seen; a mean and a ratio of what models say need
            a full window, because models remember from bar to bar.
        error_excess_bps: Share of rows in which the candidate failed, less the stable model's.
        invalid_rows: Rows in which the candidate gave NaN or the like, less the stable model's:
            a sound model gives none, so that a few are enough.
        latency_p99_us: The candidate's p99 while the stable model's is not above it.
        fallback_excess_bps: Share of rows without an answer, less the stable model's.
        mean_shift_bps: Mean of candidate less stable, either way: wide enough for one symbol, whose
            mean over a window is known least.
        churn_ratio_bps: What the candidate moves from bar to bar, over what the stable model does.
        churn_floor_bps: A mean move that is too small to be churn, whatever the ratio.
    """

    window_bars: int = 96
    rows_min: int = 60
    bars_min: int = 3
    error_excess_bps: int = 300
    invalid_rows: int = 2
    latency_p99_us: int = 100_000
    fallback_excess_bps: int = 1_000
    mean_shift_bps: int = 1_000
    churn_ratio_bps: int = 30_000
    churn_floor_bps: int = 100

    def __post_init__(self) -> None:
        """Refuse limits that could not be broken, or that hold nothing."""
        check_int("window_bars", self.window_bars, 1, INT32_MAX)
        check_int("rows_min", self.rows_min, 1, INT32_MAX)
        check_int("bars_min", self.bars_min, 1, self.window_bars)
        check_int("error_excess_bps", self.error_excess_bps, 0, BPS_ONE - 1)
        check_int("invalid_rows", self.invalid_rows, 0, INT32_MAX)
        check_int("latency_p99_us", self.latency_p99_us, 1, INT32_MAX)
        check_int("fallback_excess_bps", self.fallback_excess_bps, 0, BPS_ONE - 1)
        check_int("mean_shift_bps", self.mean_shift_bps, 0, BPS_ONE - 1)
        check_int("churn_ratio_bps", self.churn_ratio_bps, BPS_ONE, INT32_MAX)
        check_int("churn_floor_bps", self.churn_floor_bps, 0, BPS_ONE)


def broken_rule(found: BarMeasures, limits: TripwireLimits) -> RollbackRule | None:
    """Give the first rule that the window breaks, or None.

    Args:
        found: Sums over the window.
        limits: The limits.
    """
    candidate, stable = found.candidate, found.stable
    # A few NaN are enough, whatever else there is.
    if candidate.invalid - stable.invalid > limits.invalid_rows:
        return RollbackRule.INVALID
    if candidate.rows < limits.rows_min:
        return None
    errors = candidate.errors - stable.errors
    fallbacks = candidate.fallbacks - stable.fallbacks
    if found.error_bars >= limits.bars_min and _above(
        errors, candidate.rows, limits.error_excess_bps
    ):
        # One that was too slow to be waited for failed by its latency.
        return RollbackRule.LATENCY if 2 * candidate.slow > errors else RollbackRule.ERRORS
    if found.slow_bars >= limits.bars_min and _is_slow(candidate) and not _is_slow(stable):
        return RollbackRule.LATENCY
    if found.fallback_bars >= limits.bars_min and _above(
        fallbacks, candidate.rows, limits.fallback_excess_bps
    ):
        return RollbackRule.FALLBACKS
    if found.bars < limits.window_bars:
        return None
    if _above(abs(found.shift_bps), found.paired, limits.mean_shift_bps, one=1):
        return RollbackRule.MEAN_SHIFT
    return RollbackRule.CHURN if _is_churny(found, limits) else None


def findings(found: BarMeasures, limits: TripwireLimits) -> tuple[Finding, ...]:
    """Give the number and the bound of every limit, whether broken or not.

    Args:
        found: Sums over the window.
        limits: The limits.
    """
    candidate, stable = found.candidate, found.stable
    invalid = candidate.invalid - stable.invalid
    numbers = (
        (RollbackRule.ERRORS, _bps(candidate.errors - stable.errors, candidate.rows)),
        (RollbackRule.FALLBACKS, _bps(candidate.fallbacks - stable.fallbacks, candidate.rows)),
        (RollbackRule.MEAN_SHIFT, _mean(found.shift_bps, found.paired)),
        (RollbackRule.CHURN, _bps(*_moves(found))),
    )
    bounds = {
        RollbackRule.ERRORS: (limits.error_excess_bps, "bps of rows beyond stable"),
        RollbackRule.FALLBACKS: (limits.fallback_excess_bps, "bps of rows beyond stable"),
        RollbackRule.MEAN_SHIFT: (limits.mean_shift_bps, "bps either way"),
        RollbackRule.CHURN: (limits.churn_ratio_bps, "bps of stable's moves"),
    }
    return (
        Finding(
            rule=RollbackRule.INVALID,
            found=invalid,
            bound=limits.invalid_rows,
            unit="rows beyond stable",
        ),
        Finding(
            rule=RollbackRule.LATENCY,
            found=candidate.slow,
            # The p99 is above the limit when more than a hundredth of the rows are.
            bound=candidate.timed // 100,
            unit=f"of {candidate.timed} rows slower than {limits.latency_p99_us} us",
        ),
        *(
            Finding(rule=rule, found=number, bound=bounds[rule][0], unit=bounds[rule][1])
            for rule, number in numbers
        ),
    )


def _above(part: int, whole: int, bound: int, *, one: int = BPS_ONE) -> bool:
    """Say whether a share is above its bound, without a division."""
    return part * one > bound * whole


def _is_slow(counts: ArmCounts) -> bool:
    """Say whether the p99 is above the limit: more than a hundredth of the rows are."""
    return counts.slow * 100 > counts.timed


def _moves(found: BarMeasures) -> tuple[int, int]:
    """Give both mean moves over one denominator."""
    candidate, stable = found.candidate, found.stable
    return candidate.moved_bps * stable.moves, stable.moved_bps * candidate.moves


def _is_churny(found: BarMeasures, limits: TripwireLimits) -> bool:
    candidate, stable = found.candidate, found.stable
    if min(candidate.moves, stable.moves) < limits.rows_min:
        return False
    moved = candidate.moved_bps > limits.churn_floor_bps * candidate.moves
    return moved and _above(*_moves(found), limits.churn_ratio_bps)


def _bps(part: int, whole: int) -> int | None:
    return divide_half_even(part * BPS_ONE, whole) if whole else None


def _mean(total: int, count: int) -> int | None:
    return divide_half_even(total, count) if count else None
