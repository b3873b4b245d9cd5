"""Time the pure decision: policy alone, policy with its record, and what the ledger is given.

A way is one line in `WAYS`: what it is called, and what decides a bar of every symbol once.
"""

import time
from collections.abc import Callable

import msgspec
import numpy as np
from tests.builders import START_MS, plan_of, row_of

from detent.contracts.binding import PROXY_BINDING
from detent.contracts.canonical import sha256_hex
from detent.contracts.decision import DecisionKind, DecisionRow
from detent.contracts.plan import TriggerState
from detent.core.ledger.record import (
    CHAIN_START,
    BoundPlan,
    bind_plan,
    policy_inputs,
    record_decision,
    triggers_known,
)
from detent.core.policy.column_steps import Walk, moves_of
from detent.core.policy.columns import (
    EQUITY_SCALE,
    TRIGGER_CODES,
    Asked,
    terms_of,
    wanted_columns,
)
from detent.core.policy.decide import decide_weight
from detent.core.signals.choice import choose_signal
from detent.core.signals.proxy import ProxyAnswer
from detent.core.signals.strength import signal_strength_bps

SYMBOLS = tuple(f"S{number:04d}" for number in range(1_000))
TRIGGERS = (*[TriggerState.LONG_ALLOWED] * 3, TriggerState.SHORT_ALLOWED, TriggerState.EXIT_ONLY)


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """Holds a bar of every symbol: the plan, the rows, the probability of each."""

    bound: BoundPlan
    rows: tuple[DecisionRow, ...]
    proxies: tuple[ProxyAnswer, ...]


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what one row costs, nanoseconds: the best turn, and the median one."""

    min_ns: int
    p50_ns: int


Decide = Callable[[], object]


def bar_of_all() -> Bar:
    """Give a bar on which most symbols may enter, some are held, and some leave."""
    rows = tuple(
        row_of(
            symbol,
            close=f"{100 + number % 37}.25",
            trigger_state=TRIGGERS[number % len(TRIGGERS)],
            weight_ppm=(0, 40_000, -30_000)[number % 3],
            vol_hat_ppm=90_000 + 217 * number,
        )
        for number, symbol in enumerate(SYMBOLS)
    )
    proxies = tuple(
        ProxyAnswer(p_hat_bps=(37 * number) % 10_001, reason=None) for number in range(len(rows))
    )
    return Bar(
        bound=bind_plan(plan_of("bench", SYMBOLS), PROXY_BINDING), rows=rows, proxies=proxies
    )


def _policy(bar: Bar) -> Decide:
    """Decide weights; what policy is given has been put together before."""
    plan, binding = bar.bound.plan, bar.bound.binding
    inputs = [
        policy_inputs(
            plan=plan,
            ts_ms=START_MS,
            kind=DecisionKind.BAR,
            row=row,
            signal=choose_signal(
                binding=binding, trigger_state=row.trigger_state, proxy=proxy, model=None
            ),
            state=CHAIN_START.state,
        )
        for row, proxy in zip(bar.rows, bar.proxies, strict=True)
    ]
    return lambda: [decide_weight(one) for one in inputs]


def _record(bar: Bar) -> Decide:
    """Choose the signal, decide the weight, write the record."""
    return lambda: [
        record_decision(
            bound=bar.bound,
            ts_ms=START_MS,
            kind=DecisionKind.BAR,
            row=row,
            proxy=proxy,
            model=None,
            point=CHAIN_START,
        )
        for row, proxy in zip(bar.rows, bar.proxies, strict=True)
    ]


def _text(bar: Bar) -> Decide:
    """The same, with the record's canonical text and its hash."""
    record = _record(bar)
    return lambda: [sha256_hex(one.canonical) for one in record()]  # type: ignore[attr-defined]


def _columns(bar: Bar) -> Decide:
    """Decide the weights and orders of all rows with arrays; no record is made of them."""
    plan = bar.bound.plan
    strengths = [
        signal_strength_bps(proxy.p_hat_bps, row.trigger_state)
        for row, proxy in zip(bar.rows, bar.proxies, strict=True)
    ]
    terms = terms_of(plan, plan.symbols)
    known = np.array([[triggers_known(plan, row) for row in bar.rows]])
    triggers = [[TRIGGER_CODES[row.trigger_state] for row in bar.rows]]
    asked = Asked(
        trigger=np.array(triggers, dtype=np.int8),
        known=known,
        strength_bps=np.array([strengths], dtype=np.int64),
        usable=np.ones_like(known),
        vol_hat_ppm=np.array([[row.vol_hat_ppm or 0 for row in bar.rows]], dtype=np.int64),
    )
    held = [row.position.current_weight_ppm for row in bar.rows]
    current_ppm = np.array(held, dtype=np.float64)
    equity_cents = int(bar.rows[0].position.equity * EQUITY_SCALE)
    walk = Walk(terms)

    def decide() -> object:
        moves = moves_of(terms, asked, wanted_columns(terms, asked))
        return walk.step(
            moves, 0, ts_ms=START_MS, current_ppm=current_ppm, equity_cents=equity_cents
        )

    return decide


WAYS: tuple[tuple[str, Callable[[Bar], Decide]], ...] = (
    ("policy on arrays: weights and orders", _columns),
    ("policy alone (decide_weight)", _policy),
    ("signal, policy, record (record_decision)", _record),
    ("the same, with its text and hash", _text),
)


def measure_decisions(turns: int) -> dict[str, Pace]:
    """Let the ways take turns over the same bar of 1,000 symbols."""
    bar = bar_of_all()
    decides = {name: make(bar) for name, make in WAYS}
    spent_ns: dict[str, list[int]] = {name: [] for name in decides}
    for _ in range(turns + 1):
        for name, decide in decides.items():
            begun_ns = time.perf_counter_ns()
            decide()
            spent_ns[name].append((time.perf_counter_ns() - begun_ns) // len(SYMBOLS))
    # The first turn fills caches and compiles codecs.
    measured = {name: sorted(times[1:]) for name, times in spent_ns.items()}
    return {
        name: Pace(min_ns=times[0], p50_ns=times[len(times) // 2])
        for name, times in measured.items()
    }
