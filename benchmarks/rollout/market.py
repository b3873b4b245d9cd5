"""Draw what a champion and a worse candidate say of the same bars, and what came true."""

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# Log odds of a calibrated direction model: its Brier score is .2476, a percent below chance.
LOG_ODDS_SD = 0.2
CHAMPION_BRIER = 0.2476
# What symbols share: outcomes that are correlated by .4, which takes a latent correlation of
# sin(.4 pi / 2), and a fifth of what the models say, because they look at the same market.
SHARED_SURPRISE = math.sin(0.4 * math.pi / 2.0)
SHARED_SIGNAL = 0.2


class Bars(msgspec.Struct, frozen=True, kw_only=True):
    """Holds one run of a universe of symbols.

    Attributes:
        log_odds: Shape (symbols, bars): of the champion, which is calibrated.
        up: Shape (symbols, bars), bool: what came true.
    """

    log_odds: Floats
    up: NDArray[np.bool_]


def draw_bars(symbols: int, bars: int, chance: np.random.Generator) -> Bars:
    """Draw a run; symbols move together, bars are independent."""
    log_odds = LOG_ODDS_SD * correlated(symbols, bars, SHARED_SIGNAL, chance)
    surprise = correlated(symbols, bars, SHARED_SURPRISE, chance)
    return Bars(log_odds=log_odds, up=surprise < normal_quantile(_share(log_odds)))


def correlated(symbols: int, bars: int, correlation: float, chance: np.random.Generator) -> Floats:
    """Draw normal numbers that are correlated over symbols."""
    shared, own = chance.normal(size=bars), chance.normal(size=(symbols, bars))
    found: Floats = math.sqrt(correlation) * shared + math.sqrt(1.0 - correlation) * own
    return found


def said(log_odds: Floats, stretch: float = 1.0) -> Floats:
    """Give the probabilities of a model that is too sure of itself by a factor, 1 for none."""
    return _share(stretch * log_odds)


def stretch_of(growth: float) -> float:
    """Give the overconfidence at which the Brier score grows by a share, by bisection."""
    if growth == 0.0:
        return 1.0
    points, weights = np.polynomial.hermite_e.hermegauss(60)
    log_odds, weights = LOG_ODDS_SD * points, weights / weights.sum()
    honest = _share(log_odds)

    def worse_by(stretch: float) -> float:
        lost = (said(log_odds, stretch) - honest) ** 2
        return float(weights @ lost) / float(weights @ (honest * (1.0 - honest)))

    low, high = 1.0, 100.0
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (middle, high) if worse_by(middle) < growth else (low, middle)
    return high


def _share(log_odds: Floats) -> Floats:
    found: Floats = 1.0 / (1.0 + np.exp(-log_odds))
    return found


def normal_quantile(shares: Floats) -> Floats:
    """Give the standard normal quantile to 1e-9, from a table: shares here are near one half."""
    grid = np.linspace(-6.0, 6.0, 24_001)
    below = np.array([0.5 * math.erfc(-value / math.sqrt(2.0)) for value in grid])
    found: Floats = np.interp(shares, below, grid)
    return found
