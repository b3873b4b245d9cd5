"""Name the bounds that a candidate is held to: the seeds' own, and the standard ones.

Source: decision D17; QUANT C5; seed 004, section 6 (`seed`); rows R132, R135, R170, R332, R354.
"""

import msgspec

from detent.contracts.errors import InvalidField

# A month of 365.25 / 12 days, six of them.
_SIX_MONTHS_MS = 15_778_800_000


class ServiceBounds(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what a candidate's shadow has to show before it may be used.

    Attributes:
        row_count_min: Rows; with fewer, the slowest of a thousand is not among them.
        covered_ms_min: Time that its bars have to cover.
        p99_below_us: The latency of 99 of 100 rows stays below this, microseconds.
        p999_below_us: That of 999 of 1000.
        errors_below_ppm: The share of rows without an answer stays below this.
    """

    row_count_min: int = 1_000
    covered_ms_min: int = 86_400_000
    p99_below_us: int = 100_000
    p999_below_us: int = 250_000
    errors_below_ppm: int = 50_000


class PromotionProfile(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the bounds of one profile; None is a bound that it does not ask.

    Attributes:
        name: `seed` or `standard`.
        is_statistical: Whether differences have to be shown with confidence. Otherwise what was
            measured counts as it stands.
        data_span_ms_min: Time that the rows out of fold have to cover.
        row_count_min: Rows given out of fold.
        rarer_count_min: Rows of the class with fewer.
        simpler_margin_ppm: Part of the uncertainty by which a simpler model may be worse.
        slope_low_ppm: Slopes of the line of calibration that are good, from here.
        slope_high_ppm: Up to here.
        intercept_max_ppm: Largest magnitude of its intercept.
        ece_max_ppm: Largest ECE.
        sharpe_min_x1000: Smallest annualised Sharpe ratio.
        max_drawdown_max_ppm: Deepest drawdown.
        fees_of_gross_max_ppm: Largest part of the gross profit that fees may take.
        deflated_sharpe_min_ppm: Smallest deflated Sharpe ratio.
        turnover_ratio_max_ppm: What turnover may exceed the proxy's by, relatively.
        slippage_difference_max_bps_x1000: What slippage may exceed the proxy's by.
        drawdown_difference_max_ppm: What the deepest drawdown may exceed the proxy's by.
        trade_count_min: Fills of the candidate.
        drawdown_ratio_below_ppm: Its deepest drawdown over the proxy's stays below this.
        slippage_below_bps_x1000: Its slippage less the proxy's stays below this.
        service: What its shadow has to show.
    """

    name: str
    is_statistical: bool
    ece_max_ppm: int | None
    sharpe_min_x1000: int | None
    max_drawdown_max_ppm: int | None
    fees_of_gross_max_ppm: int | None
    deflated_sharpe_min_ppm: int | None
    data_span_ms_min: int = _SIX_MONTHS_MS
    row_count_min: int = 1_000
    rarer_count_min: int = 100
    simpler_margin_ppm: int = 2_000
    slope_low_ppm: int = 800_000
    slope_high_ppm: int = 1_250_000
    intercept_max_ppm: int = 50_000
    turnover_ratio_max_ppm: int = 100_000
    slippage_difference_max_bps_x1000: int = 1_000
    drawdown_difference_max_ppm: int = 20_000
    trade_count_min: int = 40
    drawdown_ratio_below_ppm: int = 1_500_000
    slippage_below_bps_x1000: int = 25_000
    service: ServiceBounds | None = None


SEED = PromotionProfile(
    name="seed",
    is_statistical=False,
    ece_max_ppm=90_000,
    sharpe_min_x1000=2_000,
    max_drawdown_max_ppm=120_000,
    fees_of_gross_max_ppm=50_000,
    deflated_sharpe_min_ppm=None,
)
STANDARD = PromotionProfile(
    name="standard",
    is_statistical=True,
    ece_max_ppm=None,
    sharpe_min_x1000=None,
    max_drawdown_max_ppm=None,
    fees_of_gross_max_ppm=None,
    deflated_sharpe_min_ppm=950_000,
    service=ServiceBounds(),
)
PROFILES = {profile.name: profile for profile in (STANDARD, SEED)}


def profile_named(name: str) -> PromotionProfile:
    """Give a profile.

    Raises:
        InvalidField: There is none of that name.
    """
    if name not in PROFILES:
        raise InvalidField("profile", name, " or ".join(PROFILES))
    return PROFILES[name]
