"""Plant candidates beside a stable model: good ones, and five ways to be bad.

Models remember from bar to bar, as real ones do, so that a candidate that jumps about is told
from one that does not. Everything else is the market of `market.py`.
"""

import math
from collections.abc import Iterator
from enum import StrEnum

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.rollout.market import (
    LOG_ODDS_SD,
    SHARED_SIGNAL,
    SHARED_SURPRISE,
    Floats,
    correlated,
    normal_quantile,
    said,
    stretch_of,
)
from detent.contracts.reasons import Reason
from detent.core.rollout.paired_rows import Answer, PairedBar, PairedRow

BAR_MS = 900_000
START_MS = 1_700_002_800_000
# What a model keeps from bar to bar.
MEMORY = 0.95
# A sound deployment runs in a median of 1 ms, and now and then has a bad moment; what takes longer
# than `max_inference_latency_ms` is dropped. A ledger has no latency of who decides, so that a
# candidate that is slow is told by what was dropped.
LATENCY_US, LATENCY_SPREAD, BAD_MOMENT, BAD_MOMENT_US = 1_000, 0.3, 1 / 1_000, 30_000
DEADLINE_US = 10_000
# A regime that comes now and then and stays for a while.
REGIME_SHARE, REGIME_BARS = 0.1, 48
# How bad the bad ones are, drawn per run: median time, share of NaN in the regime, noise on the
# probability, growth of the Brier score.
SLOW_US, INVALID_SHARE, NOISE, GROWTH = (7_000, 20_000), (0.1, 0.5), (0.03, 0.06), (0.05, 0.2)


class Kind(StrEnum):
    """Names what a candidate is like."""

    GOOD = "good"
    SIGN_FLIPPED = "sign flipped"
    SLOW = "slow"
    NAN = "NaN in one regime"
    CHURNY = "churny"
    WORSE = "Brier 5% to 20% worse"


BAD = tuple(kind for kind in Kind if kind is not Kind.GOOD)


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """Holds one rollout that was drawn, all arrays of shape (bars, symbols).

    Attributes:
        stable_bps: What the stable model said.
        candidate_bps: What the candidate said.
        stable_us: How long the stable model took, microseconds.
        candidate_us: The same of the candidate.
        invalid: Where the candidate answered NaN.
        up: What came true.
    """

    stable_bps: NDArray[np.int64]
    candidate_bps: NDArray[np.int64]
    stable_us: NDArray[np.int64]
    candidate_us: NDArray[np.int64]
    invalid: NDArray[np.bool_]
    up: NDArray[np.bool_]


def draw_run(kind: Kind, symbols: int, bars: int, chance: np.random.Generator) -> Run:
    """Draw a rollout of one candidate over bars whose outcomes are known one bar later."""
    log_odds = LOG_ODDS_SD * _remembering(symbols, bars, chance)
    truth = said(log_odds)
    surprise = correlated(symbols, bars, SHARED_SURPRISE, chance)
    up = surprise < normal_quantile(truth)
    stable, candidate = _models(kind, log_odds, truth, chance)
    invalid = np.zeros(truth.shape, dtype=np.bool_)
    if kind is Kind.NAN:
        starts = chance.random(bars) < REGIME_SHARE / REGIME_BARS
        in_regime = np.convolve(starts, np.ones(REGIME_BARS))[:bars] > 0.0
        # One that never came would not have been planted.
        in_regime[bars // 2 : bars // 2 + REGIME_BARS] = True
        invalid = in_regime[None, :] & (chance.random(truth.shape) < chance.uniform(*INVALID_SHARE))
    return Run(
        stable_bps=_bps(stable).T,
        candidate_bps=_bps(candidate).T,
        stable_us=_latencies(symbols, bars, LATENCY_US, chance).T,
        candidate_us=_latencies(
            symbols, bars, chance.uniform(*SLOW_US) if kind is Kind.SLOW else LATENCY_US, chance
        ).T,
        invalid=invalid.T,
        up=up.T,
    )


def _models(
    kind: Kind, log_odds: Floats, truth: Floats, chance: np.random.Generator
) -> tuple[Floats, Floats]:
    """Give what both models say."""
    if kind is Kind.SIGN_FLIPPED:
        return truth, 1.0 - truth
    if kind is Kind.CHURNY:
        return truth, _shaken(truth, chance)
    if kind is Kind.WORSE:
        return truth, said(log_odds, stretch_of(chance.uniform(*GROWTH)))
    # A sound candidate is another model of the same skill: the truth lies midway.
    apart = 0.02 * _remembering(len(truth), truth.shape[1], chance)
    return np.clip(truth - apart, 0.0, 1.0), np.clip(truth + apart, 0.0, 1.0)


def _shaken(truth: Floats, chance: np.random.Generator) -> Floats:
    """Give what a model says that is as right on the whole and never says the same twice."""
    found: Floats = np.clip(truth + chance.normal(0.0, chance.uniform(*NOISE), truth.shape), 0, 1)
    return found


def _remembering(symbols: int, bars: int, chance: np.random.Generator) -> Floats:
    """Draw normal numbers that remember over bars and are correlated over symbols."""
    news = correlated(symbols, bars, SHARED_SIGNAL, chance)
    found = np.empty_like(news)
    found[:, 0] = news[:, 0]
    fresh = math.sqrt(1.0 - MEMORY**2)
    for bar in range(1, bars):
        found[:, bar] = MEMORY * found[:, bar - 1] + fresh * news[:, bar]
    return found


def _latencies(
    symbols: int, bars: int, median_us: float, chance: np.random.Generator
) -> NDArray[np.int64]:
    """Draw one time per bar, because its rows share one call."""
    drawn = median_us * np.exp(LATENCY_SPREAD * chance.normal(size=bars))
    drawn = np.where(chance.random(bars) < BAD_MOMENT, BAD_MOMENT_US, drawn)
    return np.broadcast_to(drawn.astype(np.int64), (symbols, bars))


def _bps(p: Floats) -> NDArray[np.int64]:
    return np.rint(10_000 * p).astype(np.int64)


def bars_of(run: Run) -> Iterator[PairedBar]:
    """Give the bars of a run as a ledger has them, every outcome with its bar."""
    names = [f"S{place:03d}" for place in range(run.up.shape[1])]
    columns = (
        run.candidate_bps.tolist(),
        run.candidate_us.tolist(),
        run.invalid.tolist(),
        run.stable_bps.tolist(),
        run.stable_us.tolist(),
        run.up.tolist(),
    )
    for bar, (p, us, invalid, stable, stable_us, up) in enumerate(zip(*columns, strict=True)):
        rows = tuple(
            PairedRow(
                symbol=name,
                candidate=_answer(p[place], us[place], invalid=invalid[place]),
                stable=_answer(stable[place], stable_us[place], measured=True),
                label=up[place],
            )
            for place, name in enumerate(names)
        )
        yield PairedBar(ts_ms=START_MS + bar * BAR_MS, rows=rows)


def _answer(
    p_bps: int, latency_us: int, *, invalid: bool = False, measured: bool = False
) -> Answer:
    if latency_us > DEADLINE_US:
        return Answer(p_bps=None, reason=Reason.INFERENCE_DEADLINE)
    if invalid:
        return Answer(p_bps=None, reason=Reason.OUTPUT_INVALID)
    return Answer(p_bps=p_bps, latency_us=latency_us if measured else None)
