"""Hold the parameters of the rule-based proxy, which every binding pins by hash."""

from typing import ClassVar

import msgspec

from detent.contracts.canonical import canonical_hash
from detent.contracts.checks import check_int
from detent.contracts.json_codec import to_json

BARS_MAX = 10_000


class ProxyConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Fixes what seed 002 leaves open in tanh(k * zscore(momentum)).

    Attributes:
        lookback_bars: Momentum is close / close[lookback] - 1.
        window_bars: Number of momentum values in the z-score, the newest included.
        ddof: Delta degrees of freedom of the deviation, 0 or 1.
        k_x1000: Steepness times 1000.
    """

    SCHEMA: ClassVar[str] = "detent.proxy.v1"

    lookback_bars: int
    window_bars: int
    ddof: int
    k_x1000: int

    def __post_init__(self) -> None:
        """Refuse parameters that give no z-score."""
        check_int("lookback_bars", self.lookback_bars, 1, BARS_MAX)
        check_int("window_bars", self.window_bars, 2, BARS_MAX)
        check_int("ddof", self.ddof, 0, 1)
        check_int("k_x1000", self.k_x1000, 1, 100_000)

    @property
    def closes_needed(self) -> int:
        """Count the closes that one value needs."""
        return self.lookback_bars + self.window_bars

    @property
    def proxy_version(self) -> str:
        """Hash the parameters, in canonical form, to 64 hex."""
        return canonical_hash(self.SCHEMA, to_json(self))


# A half-day of momentum against two days of its own history, at an hourly cadence: long
# enough to be a rule and not noise, short enough to be warm within sixty bars.
PROXY_DEFAULT = ProxyConfig(lookback_bars=12, window_bars=48, ddof=1, k_x1000=1000)
