"""Compute the rule-based probability that needs no artifact and cannot fail.

It is computed on every bar, in every mode, so that falling back is a choice between two
ready values and not another path.
"""

import dataclasses
import math
import operator
from collections.abc import Sequence

from detent.contracts.proxy import ProxyConfig
from detent.contracts.reasons import Reason
from detent.contracts.units import BPS_HALF, BPS_ONE

# Relative to the largest momentum: below this the deviation is rounding, not movement.
DEVIATION_RELATIVE_MIN = 1e-12


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProxyAnswer:
    """Holds the proxy's probability in basis points and, if it is 5000 for want, why."""

    p_hat_bps: int
    reason: Reason | None

    @property
    def is_usable(self) -> bool:
        """Say whether the answer may raise a weight."""
        return self.reason is not Reason.PROXY_WARMING_UP


def proxy_answer(closes: Sequence[float], config: ProxyConfig) -> ProxyAnswer:
    """Compute 0.5 * (1 + tanh(k * zscore(momentum))) over the newest closes.

    Args:
        closes: Closes, oldest first, all above 0; the newest `config.closes_needed` count.
        config: Lookback, window, ddof and k.

    Returns:
        The probability; 5000 with a reason when history is short or momentum is flat.

    Source: seed 002, phase 1 B; row R204.
    """
    if len(closes) < config.closes_needed:
        return ProxyAnswer(p_hat_bps=BPS_HALF, reason=Reason.PROXY_WARMING_UP)
    recent = closes[-config.closes_needed :]
    lookback = config.lookback_bars
    count = config.window_bars
    # Through `map` and `operator`: this runs for every row of every bar.
    momentum = [ratio - 1.0 for ratio in map(operator.truediv, recent[lookback:], recent)]
    mean = math.fsum(momentum) / count
    deviations = [value - mean for value in momentum]
    variance = math.fsum(map(operator.mul, deviations, deviations)) / (count - config.ddof)
    deviation = math.sqrt(variance)
    if deviation <= DEVIATION_RELATIVE_MIN * max(1.0, abs(mean)):
        return ProxyAnswer(p_hat_bps=BPS_HALF, reason=Reason.PROXY_FLAT)
    score = deviations[-1] / deviation
    p_hat = 0.5 * (1.0 + math.tanh(config.k_x1000 / 1000.0 * score))
    return ProxyAnswer(p_hat_bps=round(p_hat * BPS_ONE), reason=None)
