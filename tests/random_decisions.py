"""Draws plans of every kind and whole courses of bars for them, and records what is decided."""

import asyncio
import random
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from msgspec import structs
from tests.builders import HORIZON, HOUR_MS, START_MS, TRIGGER, emergency, model_binding, plan_of
from tests.trades import calm
from tests.unit.core.rollout.test_book_gates import book

from detent.adapters.sqlite_ledger import SqliteLedger, Written
from detent.contracts.binding import PROXY_BINDING, SignalSource
from detent.contracts.caller_feature import CallerFeature
from detent.contracts.canonical import sha256_hex
from detent.contracts.decision import DecisionKind, DecisionRow
from detent.contracts.learning import (
    OPENABLE_GATES,
    LearningBook,
    LearningBudget,
    LearningConditions,
    LearningOverride,
    LearningShorts,
    LearningTags,
    OverrideEffect,
)
from detent.contracts.plan import (
    ExitIntent,
    ExitKind,
    HorizonAlpha,
    L2Limits,
    MissingL2,
    Plan,
    PlanStatus,
    PolicyConfig,
    PositionState,
    RiskLimits,
    RiskOverrides,
    StandDown,
    StandDownSource,
    SymbolCap,
    TriggerState,
    VolUnit,
)
from detent.contracts.reasons import Reason
from detent.core.ledger.record import (
    CHAIN_START,
    BoundPlan,
    ChainPoint,
    bind_plan,
    carried_from,
    chain_point_after,
    chain_start,
    record_decision,
)
from detent.core.signals.choice import ModelOutcome, refused
from detent.core.signals.proxy import FLAT, WARMING_UP, ProxyAnswer

SYMBOLS_PER_PLAN = 4
FALLBACKS = (
    Reason.KILL_SWITCH_ENV,
    Reason.FEATURES_STALE,
    Reason.INFERENCE_DEADLINE,
    Reason.OUTPUT_INVALID,
)
ENTRIES = (TriggerState.LONG_ALLOWED, TriggerState.SHORT_ALLOWED)
COMMIT_ROWS = 1_000
REPLACED_EVERY = 5


def draw_plan(
    chance: random.Random, plan_id: str, *, symbol_count: int = SYMBOLS_PER_PLAN
) -> BoundPlan:
    """Draw a plan for profit or for learning, under the proxy or a model."""
    symbols = tuple(f"{plan_id.upper()}-S{number}" for number in range(symbol_count))
    return _drawn(chance, plan_id, symbols)


def _drawn(chance: random.Random, plan_id: str, symbols: Sequence[str]) -> BoundPlan:
    changes: dict[str, Any] = {
        "policy_config": _config(chance, symbols),
        "risk_limits": RiskLimits(
            max_weight_ppm=chance.choice([1_000_000, 90_000, chance.randrange(1_000_000)]),
            symbol_caps=tuple(
                SymbolCap(symbol=symbol, max_weight_ppm=chance.randrange(200_000))
                for symbol in symbols[: chance.randrange(3)]
            ),
        ),
        "l2_limits": chance.choice([None, *(L2Limits(missing_l2=one) for one in MissingL2)]),
    }
    if chance.random() < 0.3:
        changes |= {"book": f"learning/{plan_id}", "learning": _learning(chance)}
    plan = plan_of(plan_id, symbols, **changes)
    return bind_plan(plan, PROXY_BINDING if chance.random() < 0.4 else model_binding())


def _config(chance: random.Random, symbols: Sequence[str]) -> PolicyConfig:
    w_max_ppm = chance.choice([250_000, chance.randrange(1, 1_000_000)])
    alpha = HorizonAlpha(horizon_id=HORIZON, alpha_ppm=chance.choice([300_000, 1, 1_000_000]))
    return PolicyConfig(
        horizon_id=HORIZON,
        tau_bps=chance.choice([0, 1_000, 9_999]),
        vol_target_ppm=chance.choice([150_000, 1, chance.randrange(1, 5_000_000)]),
        vol_unit=chance.choice(list(VolUnit)),
        w_min_ppm=min(w_max_ppm, chance.choice([0, 20_000])),
        w_max_ppm=w_max_ppm,
        alpha_by_horizon=(alpha,) if chance.random() < 0.7 else (),
        epsilon_w_ppm=chance.choice([0, 5_000, 50_000]),
        min_trade_notional=Decimal(chance.choice([0, 1_000, 250_050])).scaleb(-2),
        rebalance_cooldown_bars=chance.randrange(4),
        min_hold_bars=chance.randrange(4),
        symbol_allowlist=tuple(symbols[1:]) if chance.random() < 0.2 else (),
    )


def _learning(chance: random.Random) -> LearningBook:
    budget = LearningBudget(
        position_ppm=chance.choice([2_500, 60_000]),
        exposure_ppm=chance.choice([20_000, 200_000]),
        trades_per_day=chance.choice([2, 12]),
        hold_ms=chance.choice([1, 3]) * HOUR_MS,
        shorts=chance.choice(list(LearningShorts)),
    )
    variant = chance.choice([None, "b"])
    return LearningBook(
        tags=LearningTags(experiment_id="wider-stops", experiment_variant=variant), budget=budget
    )


class Course:
    """Plays one plan bar by bar; what it holds is what the bar before asked for, or drifts."""

    def __init__(self, chance: random.Random, bound: BoundPlan) -> None:
        self.bound = bound
        self._chance = chance
        self._plan: Plan = bound.plan
        self._points = dict.fromkeys(self._plan.symbols, CHAIN_START)
        self._last: dict[str, Written] = {}
        self._held_ppm = dict.fromkeys(self._plan.symbols, 0)
        self._bar = -1

    def replaced(self) -> "Course":
        """Give the course of another plan of the same symbols, which goes on from here."""
        bound = _drawn(self._chance, f"{self._plan.plan_id}-again", self._plan.symbols)
        other = Course(self._chance, bound)
        for symbol, written in self._last.items():
            carried = carried_from(written.record, written.record_hash)
            other._points[symbol] = chain_start(carried)
        other._held_ppm = dict(self._held_ppm)
        other._bar = self._bar
        return other

    def rest(self) -> None:
        """Let a bar pass that nobody decides."""
        self._bar += 1

    def bar(self) -> Iterator[Written]:
        """Decide the next bar of every symbol, and now and then an emergency on it."""
        self._bar += 1
        for symbol in self._plan.symbols:
            yield self._decided(symbol, DecisionKind.BAR)
            if self._chance.random() < 0.05:
                yield self._decided(symbol, DecisionKind.EMERGENCY)

    def _decided(self, symbol: str, kind: DecisionKind) -> Written:
        ts_ms = START_MS + self._bar * HOUR_MS
        point: ChainPoint = self._points[symbol]
        chance = self._chance
        record = record_decision(
            bound=self.bound,
            ts_ms=ts_ms,
            kind=kind,
            row=self._row(symbol, ts_ms, kind),
            proxy=chance.choice([WARMING_UP, FLAT, *[_proxy(chance) for _ in range(4)]]),
            model=self._model(kind),
            point=point,
            standing=_stand_down(chance, ts_ms) if chance.random() < 0.1 else None,
        )
        text = record.canonical
        record_hash = sha256_hex(text)
        self._points[symbol] = chain_point_after(record, record_hash)
        self._held_ppm[symbol] = chance.choice(
            [
                record.outcome.target_weight_final_ppm,
                record.outcome.target_weight_final_ppm,
                self._held_ppm[symbol],
                chance.randint(-300_000, 300_000),
            ]
        )
        written = Written(record=record, canonical=text, record_hash=record_hash)
        self._last[symbol] = written
        return written

    def _model(self, kind: DecisionKind) -> ModelOutcome | None:
        chance = self._chance
        if self.bound.binding.signal_source is SignalSource.PROXY or kind is DecisionKind.EMERGENCY:
            return None
        features_hash = f"{chance.getrandbits(256):064x}"
        if chance.random() < 0.25:
            return refused(chance.choice(FALLBACKS), chance.choice([None, features_hash]))
        return ModelOutcome(
            features_hash=features_hash,
            p_hat_raw_bps=chance.randint(0, 10_000),
            p_hat_bps=chance.randint(0, 10_000),
        )

    def _row(self, symbol: str, ts_ms: int, kind: DecisionKind) -> DecisionRow:
        chance = self._chance
        intents = _intents(chance, kind)
        known = chance.choice([(), *[(TRIGGER,)] * 8, ("a-stranger",)])
        return DecisionRow(
            symbol=symbol,
            bar_close=Decimal(chance.randrange(1, 10**9)).scaleb(-chance.randrange(9)),
            trigger_state=chance.choice([*TriggerState, *ENTRIES, *ENTRIES]),
            active_trigger_ids=known,
            exit_intent=intents[0] if intents else None,
            further_exit_intents=intents[1:],
            position=PositionState(
                current_weight_ppm=self._held_ppm[symbol],
                equity=Decimal(chance.choice([1_234_567_89, 100_000_000, 99_999])).scaleb(-2),
            ),
            vol_hat_ppm=chance.choice([None, 0, 90_000, 150_000, chance.randrange(1, 10**7)]),
            vol_unit=self._plan.policy_config.vol_unit,
            risk_overrides=_overrides(chance, ts_ms),
            caller_features=_caller_features(chance),
            learning=self._conditions(ts_ms),
            l2_snapshot=_book(chance, symbol, ts_ms) if chance.random() < 0.6 else None,
        )

    def _conditions(self, ts_ms: int) -> LearningConditions | None:
        chance = self._chance
        if self._plan.learning is None or chance.random() < 0.1:
            return None
        found = calm(
            exposure_elsewhere_ppm=chance.choice([0, 19_000, 500_000]),
            trades_today=chance.choice([0, 0, 1, 20]),
        )
        if chance.random() < 0.4:
            odd = {"spread_bps": 200, "daily_loss_ppm": 9_000, "data_gap_count": 1}
            name = chance.choice(list(odd))
            found = structs.replace(found, **{name: odd[name]})
        if chance.random() < 0.2:
            found = structs.replace(found, override=_override(chance, ts_ms))
        return found


def _proxy(chance: random.Random) -> ProxyAnswer:
    return ProxyAnswer(p_hat_bps=chance.randint(0, 10_000), reason=None)


def _stand_down(chance: random.Random, ts_ms: int) -> StandDown:
    return StandDown(
        until_ts_ms=ts_ms + chance.choice([-1, 0, 1, 5 * HOUR_MS]),
        reason=chance.choice(["breadth", "a person"]),
        source=chance.choice(list(StandDownSource)),
    )


def _overrides(chance: random.Random, ts_ms: int) -> RiskOverrides | None:
    draw = chance.random()
    if draw < 0.05:
        return RiskOverrides(stand_down=_stand_down(chance, ts_ms))
    return RiskOverrides(max_weight_ppm=chance.choice([0, 1, 20_000])) if draw < 0.12 else None


def _override(chance: random.Random, ts_ms: int) -> LearningOverride:
    effect = chance.choice(list(OverrideEffect))
    opened = tuple(chance.sample(sorted(OPENABLE_GATES), 2))
    return LearningOverride(
        effect=effect,
        gates=opened if effect is OverrideEffect.OPEN else (),
        actor="somebody",
        reason="a release was moved",
        issued_ts_ms=ts_ms - HOUR_MS,
        until_ts_ms=ts_ms + chance.choice([0, 1, HOUR_MS]),
    )


def _intents(chance: random.Random, kind: DecisionKind) -> tuple[ExitIntent, ...]:
    found = [
        emergency(chance.choice(["stop_loss", " "])),
        ExitIntent(kind=ExitKind.RISK_OFF, exit_rule_id="breadth"),
        ExitIntent(
            kind=ExitKind.RISK_REDUCE,
            exit_rule_id="trim",
            reduce_ppm=chance.choice([1, 500_000, 999_999]),
        ),
    ]
    low = 1 if kind is DecisionKind.EMERGENCY else 0
    count = max(low, chance.choice([*[0] * 14, 1, 1, 1, 2, 3]))
    return tuple(chance.sample(found, count))


def _caller_features(chance: random.Random) -> tuple[CallerFeature, ...]:
    if chance.random() < 0.7:
        return ()
    names = chance.sample(["grid_level", "held_bars", "net_volume", "session"], 2)
    return tuple(
        CallerFeature(name=name, value=Decimal(chance.randint(-(10**6), 10**6)).scaleb(-3))
        for name in names
    )


def _book(chance: random.Random, symbol: str, ts_ms: int) -> Any:
    return book(
        symbol=symbol,
        ts_ms=ts_ms - chance.choice([0, 0, 1_501]),
        impact_buy_top_n_bps=chance.choice([0, 49, 50, 250]),
        impact_sell_top_n_bps=chance.choice([0, 49, 50, 250]),
        impact_buy_top_n_insufficient_depth=int(chance.random() < 0.1),
    )


def record_courses(path: Path, *, seed: int, plans: int, bars: int) -> int:
    """Play so many plans for so many bars into a new ledger, and count the records."""
    chance = random.Random(seed)
    courses = [Course(chance, draw_plan(chance, f"p{number}")) for number in range(plans)]

    async def replace_some(ledger: SqliteLedger) -> None:
        for number in range(0, plans, REPLACED_EVERY):
            await ledger.add_plan_event(courses[number].bound, PlanStatus.CLOSED)
            courses[number] = courses[number].replaced()
            await ledger.add_plan_event(courses[number].bound, PlanStatus.OPEN)

    async def write() -> int:
        ledger = SqliteLedger(path)
        for course in courses:
            await ledger.add_plan_event(course.bound, PlanStatus.OPEN)
        pending: list[Written] = []
        count = 0
        for bar in range(bars):
            if bar == bars // 2:
                await replace_some(ledger)
            pending += [written for course in courses for written in course.bar()]
            if len(pending) >= COMMIT_ROWS or bar == bars - 1:
                await ledger.add_records(pending)
                count += len(pending)
                pending = []
        await ledger.close()
        return count

    return asyncio.run(write())
