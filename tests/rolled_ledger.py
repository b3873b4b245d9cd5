"""Writes the bars of a simulated rollout into a real ledger, as policy would, bar by bar."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

from benchmarks.rollout.candidates import BAR_MS, START_MS, Kind, Run, bars_of, draw_run
from msgspec import structs
from numpy.random import default_rng
from tests.builders import model_binding, plan_of, record_of, row_of

from detent.adapters.sqlite_ledger import SqliteLedger, Written
from detent.contracts.canonical import canonical_bytes, sha256_hex
from detent.contracts.decision import DecisionKind
from detent.contracts.json_codec import to_json
from detent.contracts.rollout import Rollout, RolloutArm, RolloutStage
from detent.contracts.shadow import ShadowSignal
from detent.core.ledger.record import CHAIN_START, BoundPlan, ChainPoint, chain_point_after
from detent.core.rollout.paired_rows import Answer
from detent.core.rollout.plan_arms import arm_plans
from detent.core.signals.choice import ModelOutcome

SYMBOLS = tuple(f"S{place:03d}" for place in range(20))
STABLE = model_binding(horizon_bars=1)
CANDIDATE = model_binding(
    model_id="direction_new_v1.1.0", model_version_hash="d" * 64, horizon_bars=1
)
BOOK = "book-rolled"


def rollout_of(**changes: Any) -> Rollout:
    """Give a rollout in which the candidate has all symbols."""
    rollout = Rollout(
        rollout_id="r1",
        book=BOOK,
        symbols=SYMBOLS,
        stable_binding=STABLE,
        candidate_binding=CANDIDATE,
        salt="salt",
        canary_bps=10_000,
        stage=RolloutStage.CANARY,
        since_ms=START_MS,
        revision=1,
    )
    return structs.replace(rollout, **changes)


class RolledLedger:
    """Owns a ledger file to which the bars of one drawn run are written."""

    def __init__(
        self, path: Path, rollout: Rollout, kind: Kind, *, bars: int, seed: int = 1, plan: str = ""
    ) -> None:
        self.path = path
        self.rollout = rollout
        self._run: Run = draw_run(kind, len(SYMBOLS), bars, default_rng(seed))
        self.bars = list(bars_of(self._run))
        self._ledger = SqliteLedger(path)
        self._points: dict[tuple[str, str], ChainPoint] = {}
        self._closes = {symbol: Decimal(100) for symbol in SYMBOLS}
        name = plan or f"plan-{rollout.rollout_id}"
        asked = plan_of(name, SYMBOLS, book=BOOK, bar_interval_ms=BAR_MS)
        self._arms = arm_plans(asked, rollout)
        self._next = 0

    async def open(self) -> None:
        """Open the plans of both arms."""
        await self._ledger.add_plans(self._arms)

    async def close(self) -> None:
        """Close the file."""
        await self._ledger.close()

    async def decide(self, count: int) -> None:
        """Write the next bars: what was decided, and then what was asked beside it."""
        for number in range(self._next, self._next + count):
            shadows: list[ShadowSignal] = []
            written: list[Written] = []
            for bound in self._arms:
                self._decide(number, bound, written, shadows)
            await self._ledger.add_records(written)
            await self._ledger.file.write([_shadow_row(one) for one in shadows])
            rows = {row.symbol: row for row in self.bars[number].rows}
            for symbol, close in self._closes.items():
                factor = Decimal("1.001") if rows[symbol].label else Decimal("0.999")
                self._closes[symbol] = round(close * factor, 8)
        self._next += count

    def _decide(
        self,
        number: int,
        bound: BoundPlan,
        written: list[Written],
        shadows: list[ShadowSignal],
    ) -> None:
        bar = self.bars[number]
        rows = {row.symbol: row for row in bar.rows}
        assert bound.rollout is not None
        candidate_acts = bound.rollout.arm is RolloutArm.CANDIDATE
        for symbol in bound.plan.symbols:
            row = rows[symbol]
            assert row.stable is not None
            acting, beside = row.stable, row.candidate
            if candidate_acts:
                acting, beside = beside, acting
            key = (bound.plan.plan_id, symbol)
            record = record_of(
                bound=bound,
                ts_ms=bar.ts_ms,
                row=row_of(symbol, close=self._closes[symbol]),
                model=_outcome(acting),
                point=self._points.get(key, CHAIN_START),
            )
            text = record.canonical
            record_hash = sha256_hex(text)
            self._points[key] = chain_point_after(record, record_hash)
            written.append(Written(record=record, canonical=text, record_hash=record_hash))
            if bound.shadow_binding is None:
                continue
            signal = ShadowSignal(
                binding_hash=bound.shadow_binding.binding_hash,
                plan_id=bound.plan.plan_id,
                symbol=symbol,
                ts_ms=bar.ts_ms,
                kind=DecisionKind.BAR,
                record_hash=record_hash,
                used_source=record.signal.signal_source,
                used_p_hat_bps=record.signal.p_hat_bps,
                used_reason=record.signal.fallback_reason,
                model_id=bound.shadow_binding.model_id,
                horizon_bars=bound.shadow_binding.horizon_bars,
                features_hash=None,
                p_hat_raw_bps=beside.p_bps,
                p_hat_bps=beside.p_bps,
                reason=beside.reason,
                latency_us=beside.latency_us or 0,
            )
            shadows.append(signal)


def _outcome(answer: Answer) -> ModelOutcome:
    return ModelOutcome(p_hat_raw_bps=answer.p_bps, p_hat_bps=answer.p_bps, reason=answer.reason)


def _shadow_row(one: ShadowSignal) -> tuple[str, list[tuple[object, ...]]]:
    columns = "ts_ms, plan_id, symbol, kind, binding_hash, canonical"
    text = canonical_bytes(one.SCHEMA, to_json(one)).decode("ascii")
    values = (one.ts_ms, one.plan_id, one.symbol, one.kind.value, one.binding_hash, text)
    return f"INSERT INTO shadow_signals ({columns}) VALUES (?, ?, ?, ?, ?, ?)", [values]
