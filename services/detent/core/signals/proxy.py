"""Compute the rule-based probability that needs no artifact and cannot fail.

It is computed on every bar, in every mode, so that falling back is a choice between two
ready values and not another path.
"""

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from detent.contracts.proxy import ProxyConfig
from detent.contracts.reasons import Reason
from detent.contracts.units import BPS_HALF, BPS_ONE

# Relative to the largest momentum: below this the deviation is rounding, not movement.
DEVIATION_RELATIVE_MIN = 1e-12


class ProxyAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the proxy's probability in basis points and, if it is 5000 for want, why."""

    p_hat_bps: int
    reason: Reason | None


WARMING_UP = ProxyAnswer(p_hat_bps=BPS_HALF, reason=Reason.PROXY_WARMING_UP)
FLAT = ProxyAnswer(p_hat_bps=BPS_HALF, reason=Reason.PROXY_FLAT)


def proxy_answer(closes: Sequence[float], config: ProxyConfig) -> ProxyAnswer:
    """Compute the proxy for one symbol; see `proxy_answers`."""
    return proxy_answers([closes], config)[0]


def proxy_answers(closes: Sequence[Sequence[float]], config: ProxyConfig) -> list[ProxyAnswer]:
    """Compute 0.5 * (1 + tanh(k * zscore(momentum))) over the newest closes of each symbol.

    All symbols go through one array, each in a row of its own, so that a symbol's answer is
    the same alone and in company.

    Args:
        closes: Per symbol the closes, oldest first, all above 0; the newest
            `config.closes_needed` count.
        config: Lookback, window, ddof and k.

    Returns:
        Per symbol the probability; 5000 with a reason when history is short or momentum is
        flat.

    Source: seed 002, phase 1 B; row R204.
    """
    needed = config.closes_needed
    answers = [WARMING_UP] * len(closes)
    warm = [index for index, row in enumerate(closes) if len(row) >= needed]
    if not warm:
        return answers
    recent = np.array([closes[index][-needed:] for index in warm], dtype=np.float64)
    momentum = recent[:, config.lookback_bars :] / recent[:, : -config.lookback_bars] - 1.0
    mean = momentum.sum(axis=1) / config.window_bars
    away = momentum - mean[:, np.newaxis]
    deviation = np.sqrt((away * away).sum(axis=1) / (config.window_bars - config.ddof))
    moving = deviation > DEVIATION_RELATIVE_MIN * np.maximum(1.0, np.abs(mean))
    steepness = config.k_x1000 / 1000.0
    for index, moves, last, spread in zip(
        warm, moving.tolist(), away[:, -1].tolist(), deviation.tolist(), strict=True
    ):
        if not moves:
            answers[index] = FLAT
            continue
        p_hat = 0.5 * (1.0 + math.tanh(steepness * (last / spread)))
        answers[index] = ProxyAnswer(p_hat_bps=round(p_hat * BPS_ONE), reason=None)
    return answers
