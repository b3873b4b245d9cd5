"""Ask for the weights of many symbols on many bars: the arithmetic of `weight`, on arrays.

What a signal asks for does not depend on what is held, so it is computed for a whole stretch of
bars at once; `column_steps` then walks over the bars. Both give the integers of the scalar core,
field by field, for the rows that most bars consist of. What is rare is left to `decide_weight`:
exits and what they latch, stand-downs, learning terms, gates of the book, tighter limits for one
bar, emergencies.

Source: FORMULAS 2.1; decisions D8, D9 and D22.
"""

from decimal import Decimal
from fractions import Fraction

import msgspec
import numpy as np
from numpy.typing import NDArray

from detent.contracts.plan import STATE_INITIAL, Plan, PolicyConfig, RiskLimits, TriggerState
from detent.contracts.reasons import Reason
from detent.contracts.units import BPS_ONE, PPM_ONE
from detent.core.policy.inputs import PolicyInputs
from detent.core.policy.weight import wanted_weight

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

# What a trigger permits, as a number; a direction is its own sign.
LONG, SHORT, INACTIVE, EXIT_ONLY = 1, -1, 0, 2
TRIGGER_CODES = {
    TriggerState.LONG_ALLOWED: LONG,
    TriggerState.SHORT_ALLOWED: SHORT,
    TriggerState.INACTIVE: INACTIVE,
    TriggerState.EXIT_ONLY: EXIT_ONLY,
}
TRIGGER_STATES = {code: state for state, code in TRIGGER_CODES.items()}
# What is not there, in a column that holds nothing below 0.
ABSENT = -1
# Equity is counted in hundredths; every threshold of a notional is brought to that unit.
EQUITY_SCALE = 100
# Volatilities above 40,000 % could leave 64 bits: the scalar core decides those rows.
VOL_MAX_PPM = 400 * PPM_ONE

# The reasons that these arrays give, in the order of evaluation; the place is the bit.
REASONS = (
    Reason.SIGNAL_BELOW_TAU,
    Reason.VOL_INVALID,
    Reason.WEIGHT_MIN_RAISED,
    Reason.WEIGHT_MAX_CAPPED,
    Reason.TRIGGER_INACTIVE,
    Reason.EXIT_DECAY,
    Reason.EXIT_SNAPPED,
    Reason.TRIGGER_UNKNOWN,
    Reason.HOLD_OR_REDUCE,
    Reason.SIGN_CLAMPED,
    # The bound of a weight is checked twice; a record names it once, where it came first.
    Reason.WEIGHT_MAX_CAPPED,
    Reason.RISK_CAP_SYMBOL,
    Reason.RISK_CAP_PLAN,
    Reason.SYMBOL_NOT_ALLOWED,
    Reason.REBALANCE_BAND,
    Reason.MIN_NOTIONAL,
    Reason.REBALANCE_COOLDOWN,
)
BIT = {reason: 1 << place for place, reason in reversed(list(enumerate(REASONS)))}
CAPPED_BIT = 1 << REASONS.index(Reason.RISK_CAP_SYMBOL) - 1


def reasons_of(mask: int) -> tuple[Reason, ...]:
    """Give the reasons of a bit mask as a record lists them."""
    found = [reason for place, reason in enumerate(REASONS) if mask >> place & 1]
    return tuple(dict.fromkeys(found))


class Terms(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Holds what a plan says of its symbols, one element per symbol, parts per million.

    Attributes:
        config: How a signal becomes a weight.
        bar_interval_ms: Length of a bar.
        symbol_cap_ppm: Shape (s,), float64; infinite where a symbol has no bound of its own.
        plan_cap_ppm: Bound of every weight.
        allowed: Shape (s,), bool: whether the symbol may hold a position.
        notional_least: A change of weight times equity below this is not traded, in ppm times
            hundredths of account currency.
        notional_worth: What is left is worth holding above this, in the same unit.
        cooldown_ms: How long after a rebalance the next one waits.
    """

    config: PolicyConfig
    bar_interval_ms: int
    symbol_cap_ppm: Floats
    plan_cap_ppm: int
    allowed: Flags
    notional_least: int
    notional_worth: int
    cooldown_ms: int

    @property
    def cap_ppm(self) -> Floats:
        """Give the tightest bound of each symbol, shape (s,); 0 where it is not allowed."""
        bound = np.minimum(self.symbol_cap_ppm, min(self.config.w_max_ppm, self.plan_cap_ppm))
        return np.where(self.allowed, bound, 0.0)


def terms_of(plan: Plan, symbols: tuple[str, ...]) -> Terms:
    """Give the terms of some symbols of a plan, in their order."""
    return column_terms(plan.policy_config, plan.risk_limits, symbols, plan.bar_interval_ms)


def column_terms(
    config: PolicyConfig, limits: RiskLimits, symbols: tuple[str, ...], bar_interval_ms: int
) -> Terms:
    """Give the terms of some symbols under a config and limits, in the symbols' order."""
    caps = [limits.symbol_cap_ppm(symbol) for symbol in symbols]
    allowlist = config.symbol_allowlist
    notional = _scaled(config.min_trade_notional)
    # Data time stays below 2**44: what is longer than that never ends.
    cooldown_ms = min(config.rebalance_cooldown_bars * bar_interval_ms, 2**44)
    return Terms(
        config=config,
        bar_interval_ms=bar_interval_ms,
        symbol_cap_ppm=np.array([np.inf if cap is None else float(cap) for cap in caps]),
        plan_cap_ppm=limits.max_weight_ppm,
        allowed=np.array([not allowlist or symbol in allowlist for symbol in symbols]),
        notional_least=-(-notional.numerator // notional.denominator),
        notional_worth=notional.numerator // notional.denominator,
        cooldown_ms=cooldown_ms,
    )


def _scaled(notional: Decimal) -> Fraction:
    return Fraction(notional) * (PPM_ONE * EQUITY_SCALE)


class Asked(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Holds what is asked of policy on some bars; arrays of shape (t, s).

    Attributes:
        trigger: int8, what the trigger permits, as `TRIGGER_CODES` numbers it.
        known: bool, whether a trigger of the plan stands behind it.
        strength_bps: int64, magnitude of the signal, [0, 10000].
        usable: bool, whether anybody had a usable answer.
        vol_hat_ppm: int64, volatility; not positive where it is unknown.
    """

    trigger: NDArray[np.int8]
    known: Flags
    strength_bps: Ints
    usable: Flags
    vol_hat_ppm: Ints


class WantedColumns(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Holds what signals ask for; int64 arrays of shape (t, s), as `Wanted` names them.

    Attributes:
        signal_deadbanded_ppm: Signal strength after the dead band.
        vol_scale_ppm: Volatility scale.
        target_weight_raw_ppm: The weight that is asked for.
        reasons: Bit masks.
    """

    signal_deadbanded_ppm: Ints
    vol_scale_ppm: Ints
    target_weight_raw_ppm: Ints
    reasons: Ints


def direction_of(trigger: NDArray[np.int8]) -> Ints:
    """Give the permitted direction of each trigger code: 1, -1 or 0."""
    return np.where(trigger == EXIT_ONLY, 0, trigger).astype(np.int64)


def add_reason(reasons: Ints, rows: Flags, bit: int) -> None:
    """Set a bit in the masks of some rows, in place."""
    if np.count_nonzero(rows):
        reasons |= rows * bit


def divide_columns(numerator: Ints, denominator: Ints | int) -> Ints:
    """Divide integers and round once, half to even, as `divide_half_even` does."""
    quotient = numerator // denominator
    twice = 2 * (numerator - quotient * denominator)
    # What is left is beyond a half, or is one half and the quotient is odd.
    rounded: Ints = quotient + (twice + (quotient & 1) > denominator)
    return rounded


def share_columns(part: Ints, whole: Ints | int) -> Ints:
    """Give shares in parts per million, rounded half to even, by float64: as `divide_columns`.

    Args:
        part: Whole numbers, from 0 to the whole.
        whole: Whole numbers, from 1 to `VOL_MAX_PPM`.

    No product leaves 2**53. A quotient is at most a million, so it is off by some 1e-10, and
    one that is no tie lies at least 1e-9 away from a tie.
    """
    return np.rint(part * float(PPM_ONE) / whole).astype(np.int64)


def wanted_columns(terms: Terms, asked: Asked) -> WantedColumns:
    """Compute the weights that signals and volatilities ask for; see `wanted_weight`."""
    config = terms.config
    direction = direction_of(asked.trigger)
    directed = direction != 0
    excess_bps = np.maximum(asked.strength_bps * asked.usable - config.tau_bps, 0)
    span_bps = BPS_ONE - config.tau_bps
    beyond_ppm = VOL_MAX_PPM if config.vol_target_ppm <= VOL_MAX_PPM else 0
    beyond = asked.vol_hat_ppm > beyond_ppm
    # What is beyond is as good as unknown until the scalar core has been asked.
    vol_ppm = np.maximum(asked.vol_hat_ppm * ~beyond, 0)
    scale_bottom = np.maximum(vol_ppm, 1)
    scale_top = np.minimum(vol_ppm, min(config.vol_target_ppm, VOL_MAX_PPM))

    numerator = excess_bps * scale_top * PPM_ONE
    denominator = span_bps * scale_bottom
    asks = directed & (numerator > 0)
    raised = asks & (numerator < config.w_min_ppm * denominator)
    bounded = asks & (numerator > config.w_max_ppm * denominator)
    magnitude = divide_columns(numerator, denominator) * asks
    np.putmask(magnitude, bounded, config.w_max_ppm)
    np.putmask(magnitude, raised, config.w_min_ppm)
    reasons = np.zeros(directed.shape, dtype=np.int64)
    below = directed & asked.usable & (excess_bps == 0)
    add_reason(reasons, below, BIT[Reason.SIGNAL_BELOW_TAU])
    add_reason(reasons, directed & (scale_top == 0), BIT[Reason.VOL_INVALID])
    add_reason(reasons, raised, BIT[Reason.WEIGHT_MIN_RAISED])
    add_reason(reasons, bounded & ~raised, BIT[Reason.WEIGHT_MAX_CAPPED])
    wanted = WantedColumns(
        signal_deadbanded_ppm=share_columns(excess_bps, span_bps),
        vol_scale_ppm=share_columns(scale_top, scale_bottom),
        target_weight_raw_ppm=direction * magnitude,
        reasons=reasons,
    )
    if beyond.any():
        _ask_again(terms, asked, wanted, beyond)
    return wanted


def _ask_again(terms: Terms, asked: Asked, wanted: WantedColumns, rows: Flags) -> None:
    """Have the scalar core say what rows beyond 64 bits ask for."""
    for row in zip(*np.nonzero(rows), strict=True):
        inputs = PolicyInputs(
            symbol="",
            ts_ms=0,
            bar_interval_ms=terms.bar_interval_ms,
            trigger_state=TRIGGER_STATES[int(asked.trigger[row])],
            triggers_known=True,
            signal_strength_bps=int(asked.strength_bps[row]) if asked.usable[row] else None,
            vol_hat_ppm=int(asked.vol_hat_ppm[row]),
            current_weight_ppm=0,
            equity=Decimal(1),
            exit_intent=None,
            emergency_only=False,
            overrides=None,
            config=terms.config,
            limits=RiskLimits(),
            state=STATE_INITIAL,
        )
        found = wanted_weight(inputs)
        wanted.signal_deadbanded_ppm[row] = found.signal_deadbanded_ppm
        wanted.vol_scale_ppm[row] = found.vol_scale_ppm
        wanted.target_weight_raw_ppm[row] = found.target_weight_raw_ppm
        wanted.reasons[row] = sum(BIT[reason] for reason in found.reasons)
