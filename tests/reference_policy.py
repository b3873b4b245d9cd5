"""Decides target weights a second time: whole arrays at once, written from the rules alone.

Nothing here was taken from `core/policy`, nor may it import it: the two agree because both
follow the same text, or one of them is wrong. Sources: FORMULAS 2.1 (steps 1 to 8 and the
execution rule) and 2.2 (the ladder of exits), decisions D8, D9 and D22; the order style is rows
R214 to R217, what keeps new exposure out is rows R327, R328, R348 and R349.
"""

import msgspec
import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

INACTIVE, LONG, SHORT, EXIT_ONLY = range(4)
NO_INTENT, WITH_RULE, WITHOUT_RULE = range(3)
NONE = -1
PPM = 1_000_000
BPS = 10_000


class Cases(msgspec.Struct, frozen=True, kw_only=True):
    """Holds n bars, one array each; NONE stands for what is absent.

    Magnitudes are bounded so that no product leaves 63 bits: volatility below 10^8 ppm,
    equity below 10^10 cents, current weight below 10^8 ppm.
    """

    trigger: Ints
    known: Bools
    strength_bps: Ints
    vol_hat_ppm: Ints
    current_ppm: Ints
    equity_cents: Ints
    intent: Ints
    emergency_only: Bools
    override_cap_ppm: Ints
    stands_down: Bools
    tau_bps: Ints
    vol_target_ppm: Ints
    w_min_ppm: Ints
    w_max_ppm: Ints
    alpha_ppm: Ints
    epsilon_ppm: Ints
    min_notional_cents: Ints
    cooldown_bars: Ints
    min_hold_bars: Ints
    allowed: Bools
    max_weight_ppm: Ints
    symbol_cap_ppm: Ints
    bars_since_rebalance: Ints
    bars_since_entry: Ints
    no_new_long: Bools
    no_new_short: Bools
    latched: Bools
    reduce_ppm: Ints
    risk_off: Bools

    def __len__(self) -> int:
        return len(self.trigger)


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the answer to n bars, in parts per million."""

    raw_ppm: Ints
    policy_ppm: Ints
    capped_ppm: Ints
    final_ppm: Ints
    trades: Bools
    tier: Ints
    preempted: Bools
    latched: Bools


def half_even(numerator: Ints, denominator: Ints | int) -> Ints:
    """Divide and round to the nearest integer, ties to the even one."""
    floor = numerator // denominator
    rest = 2 * (numerator - floor * denominator)
    up = (rest > denominator) | ((rest == denominator) & (floor % 2 == 1))
    return floor + up


def decide(cases: Cases) -> Weights:
    """Decide every bar."""
    direction = np.select([cases.trigger == LONG, cases.trigger == SHORT], [1, -1], 0)
    raw_ppm, wanted, vol_known = _raw(cases, direction)

    held_ppm = direction * np.minimum(np.maximum(direction * cases.current_ppm, 0), cases.w_max_ppm)
    policy_ppm = _smoothed(cases, direction, raw_ppm)
    # No signal, no permission that the plan knows, or a volatility that cannot be had while
    # the signal asks for something: keep what is held, never more.
    unsure = ~cases.known | (cases.strength_bps == NONE) | (~vol_known & wanted)
    policy_ppm = np.where((direction != 0) & unsure, held_ppm, policy_ppm)
    # Between bars nothing moves but an emergency; what has no permission has no place.
    stays = np.where(cases.trigger == EXIT_ONLY, cases.current_ppm, held_ppm)
    policy_ppm = np.where(cases.emergency_only, stays, policy_ppm)

    capped_ppm, is_capped = _capped(cases, policy_ppm)
    capped_ppm, is_limited = _limited(cases, capped_ppm)
    final_ppm = np.where(cases.stands_down, 0, capped_ppm)
    executed, vetoed = _emergency(cases)
    # An exit that has to wait may still not end with more than is held.
    no_more = _no_more_than(final_ppm, cases.current_ppm)
    preempted = (executed | vetoed) & (no_more != final_ppm)
    final_ppm = np.select([executed, vetoed], [np.zeros_like(final_ppm), no_more], final_ppm)
    tier = np.select([executed, cases.stands_down, is_capped | is_limited], [1, 2, 3], 4)
    return Weights(
        raw_ppm=raw_ppm,
        policy_ppm=policy_ppm,
        capped_ppm=capped_ppm,
        final_ppm=final_ppm,
        trades=_trades(cases, final_ppm, executed=executed, is_capped=is_capped),
        tier=tier,
        preempted=preempted,
        latched=cases.risk_off | (cases.latched & ((direction != 0) | cases.emergency_only)),
    )


def _raw(cases: Cases, direction: Ints) -> tuple[Ints, Bools, Bools]:
    """Steps 1 to 5: dead band, volatility, bounds. The ratio is exact until one rounding."""
    strength_bps = np.clip(cases.strength_bps, 0, BPS)
    above_tau = np.maximum(strength_bps - cases.tau_bps, 0)
    vol_known = cases.vol_hat_ppm > 0
    vol_hat = np.where(vol_known, cases.vol_hat_ppm, 1)
    scaled = np.where(vol_known, np.minimum(cases.vol_target_ppm, vol_hat), 0)
    numerator = above_tau * scaled * PPM
    denominator = (BPS - cases.tau_bps) * vol_hat
    magnitude = np.clip(half_even(numerator, denominator), cases.w_min_ppm, cases.w_max_ppm)
    # Rounding must not decide what is out of bounds; the bounds are integers, so it cannot.
    magnitude = np.where(numerator == 0, 0, magnitude)
    return direction * magnitude, above_tau > 0, vol_known


def _smoothed(cases: Cases, direction: Ints, raw_ppm: Ints) -> Ints:
    """Step 6, with the sign clamped to the trigger's and an exit that ends (D8)."""
    keep = PPM - cases.alpha_ppm
    mixed = half_even(keep * cases.current_ppm + cases.alpha_ppm * raw_ppm, PPM)
    mixed = np.where(np.sign(mixed) == -direction, 0, mixed)

    size = np.abs(cases.current_ppm)
    left = np.minimum(half_even(keep * size, PPM), size - 1)
    dust = (left <= cases.epsilon_ppm) | (
        left * cases.equity_cents <= cases.min_notional_cents * PPM
    )
    decayed = np.where((size == 0) | dust, 0, np.sign(cases.current_ppm) * left)
    return np.select(
        [cases.trigger == INACTIVE, cases.trigger == EXIT_ONLY],
        [np.zeros_like(mixed), decayed],
        mixed,
    )


def _capped(cases: Cases, weight_ppm: Ints) -> tuple[Ints, Bools]:
    """Step 7: every limit, in any order, for the smallest wins; a forbidden symbol gets 0."""
    size = np.abs(weight_ppm)
    limits = [
        cases.w_max_ppm,
        np.where(cases.symbol_cap_ppm == NONE, PPM * BPS, cases.symbol_cap_ppm),
        cases.max_weight_ppm,
        np.where(cases.override_cap_ppm == NONE, PPM * BPS, cases.override_cap_ppm),
        np.where(cases.allowed, PPM * BPS, 0),
    ]
    limit = np.minimum.reduce(limits)
    return np.sign(weight_ppm) * np.minimum(size, limit), (size > limit) | ~cases.allowed


def _no_more_than(weight_ppm: Ints, held_ppm: Ints) -> Ints:
    """Give the part of a weight that is held already: between nothing and what is held."""
    return np.clip(weight_ppm, np.minimum(held_ppm, 0), np.maximum(held_ppm, 0))


def _limited(cases: Cases, weight_ppm: Ints) -> tuple[Ints, Bools]:
    """What lets nothing new in, then a share given up, then everything (rows R327, R349)."""
    held = cases.current_ppm
    before = weight_ppm
    shut = np.where(weight_ppm > 0, cases.no_new_long, cases.no_new_short) | cases.latched
    weight_ppm = np.where(shut, _no_more_than(weight_ppm, held), weight_ppm)
    cut = weight_ppm != before

    reduces = cases.reduce_ppm != NONE
    size = np.abs(held)
    left = np.minimum(half_even((PPM - cases.reduce_ppm) * size, PPM), size - 1)
    dust = (left <= cases.epsilon_ppm) | (
        left * cases.equity_cents <= cases.min_notional_cents * PPM
    )
    left = np.where(dust, 0, np.maximum(left, 0)) * np.sign(held)
    weight_ppm = np.where(reduces, _no_more_than(weight_ppm, left), weight_ppm)
    weight_ppm = np.where(cases.risk_off, 0, weight_ppm)
    return weight_ppm, cut | reduces | cases.risk_off


def _emergency(cases: Cases) -> tuple[Bools, Bools]:
    """Rows R225 to R230 and R346: a rule must be named, and an entry must have aged."""
    asked = cases.intent != NO_INTENT
    holds = (cases.current_ppm != 0) & (cases.bars_since_entry != NONE)
    same_bar = holds & (cases.bars_since_entry == 0)
    too_young = holds & (cases.bars_since_entry < cases.min_hold_bars)
    vetoed = asked & ((cases.intent == WITHOUT_RULE) | same_bar | too_young)
    return asked & ~vetoed, vetoed


def _trades(cases: Cases, final_ppm: Ints, *, executed: Bools, is_capped: Bools) -> Bools:
    """Rows R214 to R216 and D8: what must get out waits for nothing."""
    delta = final_ppm - cases.current_ppm
    leaves = (cases.trigger == INACTIVE) | (cases.trigger == EXIT_ONLY)
    exempt = leaves | cases.stands_down | executed | ~cases.allowed
    exempt |= cases.risk_off | (cases.reduce_ppm != NONE)
    in_band = np.abs(delta) <= cases.epsilon_ppm
    too_small = np.abs(delta) * cases.equity_cents < cases.min_notional_cents * PPM
    cooling = (cases.bars_since_rebalance != NONE) & (
        cases.bars_since_rebalance < cases.cooldown_bars
    )
    # A limit that was tightened does not wait for a cooldown to be kept.
    tightened = is_capped & (np.abs(final_ppm) < np.abs(cases.current_ppm))
    withheld = in_band | too_small | (cooling & ~tightened)
    return (delta != 0) & (exempt | ~withheld)
