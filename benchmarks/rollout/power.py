"""Count how often three tests find a worse candidate, and how often a healthy one is stopped."""

from collections.abc import Callable

import msgspec
import numpy as np

from benchmarks.rollout.market import Floats, draw_bars, said, stretch_of
from detent.core.rollout.sequential import ALPHA, e_values

BARS = 2_880
# After so many bars of 15 minutes: one day, three, seven, three weeks.
LOOKS = (96, 288, 672, 2_016)
# Bars between two looks of somebody who peeks.
PEEK_BARS = 24
Z_ONE_SIDED = 1.6448536269514722


class Power(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the shares of runs that each test stopped, at each of `LOOKS`.

    Attributes:
        canary: Symbols that the candidate serves.
        universe: Symbols in all.
        growth: By what share the candidate's Brier score is worse.
        stretch: How many times too sure of itself it is for that.
        fixed: The paired test with one look, at that bar.
        betting: The process that is looked at after every bar, up to that bar.
        unpaired: The test of the canary symbols against the others, with one look.
        betting_ever: Share that the process stopped within all bars.
        peeked_ever: Share that the paired test stopped when looked at every `PEEK_BARS`.
        median_bars: Bars after which half of the runs were stopped; None if they were not.
    """

    canary: int
    universe: int
    growth: float
    stretch: float
    fixed: tuple[float, ...]
    betting: tuple[float, ...]
    unpaired: tuple[float, ...]
    betting_ever: float
    peeked_ever: float
    median_bars: int | None


def measured(
    canary: int,
    universe: int,
    growths: tuple[float, ...],
    *,
    runs: int,
    seed: int,
    advance: Callable[[], None],
) -> list[Power]:
    """Draw runs of one universe, and test every degree of harm on the same runs."""
    stretches = [stretch_of(growth) for growth in growths]
    paired = np.zeros((len(growths), runs, BARS))
    scaled = np.zeros_like(paired)
    unpaired = np.zeros_like(paired)
    for run in range(runs):
        drawn = draw_bars(universe, BARS, np.random.default_rng((seed, canary, run)))
        honest = said(drawn.log_odds)
        losses = (honest - drawn.up) ** 2
        p, up = honest[:canary], drawn.up[:canary]
        for place, stretch in enumerate(stretches):
            q = said(drawn.log_odds[:canary], stretch)
            if_up, if_down = (1.0 - q) ** 2 - (1.0 - p) ** 2, q**2 - p**2
            paired[place, run] = np.where(up, if_up, if_down).mean(axis=0)
            scale = np.maximum(np.abs(if_up), np.abs(if_down)).mean(axis=0)
            scaled[place, run] = paired[place, run] / np.where(scale > 0.0, scale, 1.0)
            # The candidate's own loss against that of the symbols that the champion serves.
            own = ((q - up) ** 2).mean(axis=0)
            unpaired[place, run] = own - losses[canary:].mean(axis=0)
        advance()
    # A healthy candidate is another model that is as good, not the same one: for it, errors
    # of equal size on either side of the champion, in fair bets.
    for place, growth in enumerate(growths):
        if growth == 0.0:
            paired[place], scaled[place] = _healthy(runs, canary, seed=seed)
    return [
        _power(
            canary,
            universe,
            growth=growth,
            stretch=stretches[place],
            paired=paired[place],
            scaled=scaled[place],
            unpaired=unpaired[place],
        )
        for place, growth in enumerate(growths)
    ]


def _healthy(runs: int, canary: int, *, seed: int) -> tuple[Floats, Floats]:
    """Draw losses of a candidate with the champion's skill: the truth lies midway."""
    paired, scaled = np.zeros((runs, BARS)), np.zeros((runs, BARS))
    for run in range(runs):
        chance = np.random.default_rng((seed, canary, run, 1))
        drawn = draw_bars(canary, BARS, chance)
        truth = said(drawn.log_odds)
        apart = chance.normal(0.0, 0.03, truth.shape)
        q, p = np.clip(truth + apart, 0.0, 1.0), np.clip(truth - apart, 0.0, 1.0)
        if_up, if_down = (1.0 - q) ** 2 - (1.0 - p) ** 2, q**2 - p**2
        paired[run] = np.where(drawn.up, if_up, if_down).mean(axis=0)
        scaled[run] = paired[run] / np.maximum(np.abs(if_up), np.abs(if_down)).mean(axis=0)
    return paired, scaled


def _power(
    canary: int,
    universe: int,
    *,
    growth: float,
    stretch: float,
    paired: Floats,
    scaled: Floats,
    unpaired: Floats,
) -> Power:
    stopped = np.maximum.accumulate(e_values(scaled), axis=1) >= 1.0 / ALPHA
    bars = np.where(stopped.any(axis=1), stopped.argmax(axis=1) + 1, BARS + 1)
    looks = range(PEEK_BARS, BARS + 1, PEEK_BARS)
    peeked = np.array([_z(paired[:, :look]) > Z_ONE_SIDED for look in looks])
    median = int(np.median(bars))
    return Power(
        canary=canary,
        universe=universe,
        growth=growth,
        stretch=stretch,
        fixed=tuple(float(np.mean(_z(paired[:, :look]) > Z_ONE_SIDED)) for look in LOOKS),
        betting=tuple(float(np.mean(stopped[:, look - 1])) for look in LOOKS),
        unpaired=tuple(float(np.mean(_z(unpaired[:, :look]) > Z_ONE_SIDED)) for look in LOOKS),
        betting_ever=float(np.mean(stopped[:, -1])),
        peeked_ever=float(np.mean(peeked.any(axis=0))),
        median_bars=median if median <= BARS else None,
    )


def _z(differences: Floats) -> Floats:
    """Give the mean over its standard error, robust to autocorrelation (Newey and West)."""
    count = differences.shape[1]
    centred = differences - differences.mean(axis=1, keepdims=True)
    lags = int(4.0 * (count / 100.0) ** (2.0 / 9.0))
    variance = (centred**2).mean(axis=1)
    for lag in range(1, lags + 1):
        products = (centred[:, lag:] * centred[:, :-lag]).sum(axis=1) / count
        variance = variance + 2.0 * (1.0 - lag / (lags + 1.0)) * products
    found: Floats = differences.mean(axis=1) / np.sqrt(np.maximum(variance, 1e-300) / count)
    return found
