"""Say what the sequential test can tell with so many symbols, so that nobody promises more.

The numbers are those that `benchmarks/rollout` counts, for bars of 15 minutes and a stable
model a percent better than a coin: 200 runs each, so a share is known to within 700 basis
points. Between two counts of symbols the smaller one's holds, below the smallest there is none.

Source: QUANT C4; `benchmarks/rollout/README.md`; decision D18.
"""

from collections.abc import Iterable

from detent.contracts.rollout import PowerPoint, RampStep, StepPower
from detent.core.rollout.assignment import resolve_arms

# Three days, a week and three weeks of bars of 15 minutes.
BAR_COUNTS = (288, 672, 2_016)
# By symbols of the candidate and by how much worse it is: how often it is found by then. Basis
# points throughout, except for counts of symbols and of bars.
TABLE: dict[int, dict[int, tuple[int, int, int]]] = {
    1: {
        100: (600, 900, 2_000),
        500: (1_400, 3_000, 8_400),
        1_000: (2_600, 6_300, 10_000),
        2_000: (5_700, 9_400, 10_000),
    },
    5: {
        100: (1_400, 4_200, 9_300),
        500: (8_100, 9_900, 10_000),
        1_000: (10_000, 10_000, 10_000),
        2_000: (10_000, 10_000, 10_000),
    },
    20: {
        100: (5_200, 9_200, 10_000),
        500: (10_000, 10_000, 10_000),
        1_000: (10_000, 10_000, 10_000),
        2_000: (10_000, 10_000, 10_000),
    },
}


def power_of(symbol_count: int) -> tuple[PowerPoint, ...]:
    """Give what the test finds with so many symbols; nothing without any."""
    known = [count for count in TABLE if count <= symbol_count]
    if not known:
        return ()
    return tuple(
        PowerPoint(effect_bps=effect_bps, bar_count=bar_count, power_bps=power_bps)
        for effect_bps, shares in TABLE[max(known)].items()
        for bar_count, power_bps in zip(BAR_COUNTS, shares, strict=True)
    )


def step_power(symbols: Iterable[str], *, salt: str, canary_bps: int) -> StepPower:
    """Give the candidate's symbols at a share, as they come out, and what can be told by them."""
    arms = resolve_arms(symbols, salt=salt, canary_bps=canary_bps)
    return StepPower(
        canary_bps=canary_bps, symbols=arms.candidate, power=power_of(len(arms.candidate))
    )


def ramp_power(
    symbols: Iterable[str], *, salt: str, ramp: Iterable[RampStep]
) -> tuple[StepPower, ...]:
    """Give that for every step of a ramp."""
    asked = tuple(symbols)
    return tuple(step_power(asked, salt=salt, canary_bps=step.canary_bps) for step in ramp)
