"""Say how far a share of few rows may be from the truth, at 95% confidence.

These bands are around what happened. They do not test a calibration: for that the band around
what was said, of `core/evaluation/reliability.py`, is the one.

Source: Wilson 1927; Clopper and Pearson 1934; Press et al. 2007, section 6.4; QUANT A2.
"""

import math

from detent.contracts.errors import InvalidField

# The 97.5% quantile of a standard normal: 2.5% are left out on either side.
Z = 1.959963984540054
TAIL = 0.025
STEPS_MAX = 500
BISECTIONS = 100
TINY = 1e-300
EPSILON = 1e-16


def wilson_band(ups: int, rows: int) -> tuple[float, float]:
    """Give Wilson's score interval of a share.

    Args:
        ups: Rows that went up.
        rows: Rows, at least 1.

    Raises:
        InvalidField: There are no rows, or more ups than rows.
    """
    _check(ups, rows)
    share, weight = ups / rows, Z * Z / rows
    middle = (share + weight / 2.0) / (1.0 + weight)
    half = Z * math.sqrt((share * (1.0 - share) + weight / 4.0) / rows) / (1.0 + weight)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def clopper_pearson_band(ups: int, rows: int) -> tuple[float, float]:
    """Give the exact interval of a share: never narrower than it says.

    Args and errors: as for `wilson_band`.
    """
    _check(ups, rows)
    # P(at least so many ups) at p is the beta distribution's I_p(ups, rows - ups + 1).
    low = 0.0 if ups == 0 else _beta_quantile(TAIL, ups, rows - ups + 1)
    high = 1.0 if ups == rows else _beta_quantile(1.0 - TAIL, ups + 1, rows - ups)
    return low, high


def beta_share(x: float, a: float, b: float) -> float:
    """Give the regularised incomplete beta function I_x(a, b).

    Args:
        x: In [0, 1].
        a: Above 0.
        b: Above 0.
    """
    if x <= 0.0 or x >= 1.0:
        return min(max(x, 0.0), 1.0)
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - beta_share(1.0 - x, b, a)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    log_front += a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) * _beta_fraction(x, a, b) / a


def _beta_fraction(x: float, a: float, b: float) -> float:
    """Evaluate the continued fraction by Lentz's method; it converges left of the mean."""
    c, d = 1.0, 1.0 / _apart(1.0 - (a + b) * x / (a + 1.0))
    fraction = d
    for m in range(1, STEPS_MAX):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for numerator in (even, odd):
            d = 1.0 / _apart(1.0 + numerator * d)
            c = _apart(1.0 + numerator / c)
            fraction *= c * d
        if abs(c * d - 1.0) <= EPSILON:
            break
    return fraction


def _apart(value: float) -> float:
    return value if abs(value) > TINY else TINY


def _beta_quantile(share: float, a: float, b: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2.0
        if beta_share(middle, a, b) < share:
            low = middle
        else:
            high = middle
    return (low + high) / 2.0


def _check(ups: int, rows: int) -> None:
    if rows < 1 or not 0 <= ups <= rows:
        raise InvalidField("ups", f"{ups} of {rows} rows", "at least one row, no more ups")
