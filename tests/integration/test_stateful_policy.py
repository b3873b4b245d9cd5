"""Plays whole books of symbols through the real services, and decides each bar a second time.

Five plans with different rules, a served model, positions that fill, half fill or drift, every
kind of exit, limits, books and stand-downs. What is asked on a bar depends on what was answered
on the one before. Afterwards the ledger's own text is folded into cases for the reference.
"""

import asyncio
import random
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from msgspec import structs
from tests.builders import HORIZON, bar_series, emergency, plan_of, policy_config, row_of
from tests.conftest import Artifacts
from tests.integration.ledger_audit import assert_chains_whole, read_records
from tests.ledger_fold import Fold, Key, fold
from tests.reference_policy import Weights, decide
from tests.strategist import Bars, feed, fresh_plan_id, recorded
from tests.unit.core.policy.test_reference_agreement import assert_never
from tests.unit.core.rollout.test_book_gates import book

from detent.contracts.calls.policy import SetStandDownRequest
from detent.contracts.decision import Decision, DecisionKind, DecisionRow
from detent.contracts.json_codec import to_json
from detent.contracts.plan import (
    ExitIntent,
    ExitKind,
    HorizonAlpha,
    L2Limits,
    MissingL2,
    OrderStyle,
    Plan,
    PositionState,
    RiskLimits,
    RiskOverrides,
    StandDown,
    StandDownSource,
    SymbolCap,
    TriggerState,
)
from detent.contracts.units import BPS_HALF
from detent_cli.stack import Stack
from detent_client import DetentClient, OpenedPlan

EXITS = (TriggerState.EXIT_ONLY, TriggerState.INACTIVE)
ENTRIES = (TriggerState.LONG_ALLOWED, TriggerState.SHORT_ALLOWED)
RISK_OFF = ExitIntent(kind=ExitKind.RISK_OFF, exit_rule_id="breadth")
# So many bars an exit may take: .9 of what is held is left on each, down to 2,000 ppm.
EXIT_BARS_MAX = 60
# Before this bar the served features are warming up, and the proxy too.
FIRST_BAR = 30


def plan_changes(symbols: Sequence[str]) -> list[dict[str, Any]]:
    """Give the rules of five plans, that of each with something that the others lack."""
    block, allow = (L2Limits(missing_l2=missing) for missing in (MissingL2.BLOCK, MissingL2.ALLOW))
    slow = HorizonAlpha(horizon_id=HORIZON, alpha_ppm=100_000)
    # What is not smoothed turns a position around in one bar.
    swift = HorizonAlpha(horizon_id=HORIZON, alpha_ppm=1_000_000)
    capped = RiskLimits(
        max_weight_ppm=120_000,
        symbol_caps=(SymbolCap(symbol=symbols[0], max_weight_ppm=30_000),),
    )
    return [
        {"policy_config": policy_config(alpha_by_horizon=(swift,), tau_bps=0)},
        {"policy_config": policy_config(alpha_by_horizon=(slow,), epsilon_w_ppm=2_000)},
        {"policy_config": policy_config(rebalance_cooldown_bars=0), "l2_limits": block},
        {"policy_config": policy_config(min_hold_bars=1), "risk_limits": capped},
        {
            "policy_config": policy_config(
                symbol_allowlist=tuple(symbols[1:]), min_trade_notional=Decimal("2500.50")
            ),
            "l2_limits": allow,
        },
    ]


class Trader:
    """Plays one symbol: what its trigger says, what it holds, what it fears."""

    def __init__(self, symbol: str, seed: int) -> None:
        self.symbol = symbol
        self.weight_ppm = 0
        self.state = TriggerState.INACTIVE
        self.exit_bars = 0
        self._bars_left = 0
        self._believed: TriggerState | None = None
        self._chance = random.Random(seed)

    def row(self, close: Decimal, ts_ms: int, *, leaves: bool) -> DecisionRow:
        """Give what is asked on the next bar; who leaves does nothing else."""
        self._move_on(leaves=leaves)
        self.exit_bars = self.exit_bars + 1 if self._is_leaving else 0
        assert self.exit_bars <= EXIT_BARS_MAX, f"{self.symbol} never reaches flat"
        return self._asked(close, ts_ms)

    def _move_on(self, *, leaves: bool) -> None:
        self._bars_left -= 1
        if leaves:
            self.state = TriggerState.EXIT_ONLY
        elif self._bars_left <= 0 and not self._is_leaving:
            states = (*ENTRIES, *ENTRIES, *EXITS)
            self.state = self._chance.choice(states)
            self._bars_left = self._chance.randint(1, 9)
        elif self.state in ENTRIES and self._chance.random() < 0.8:
            # A trigger that follows the model: what is still held of the old side is turned.
            self.state = self._believed or self.state

    @property
    def _is_leaving(self) -> bool:
        return self.state is TriggerState.EXIT_ONLY and self.weight_ppm != 0

    def _asked(self, close: Decimal, ts_ms: int) -> DecisionRow:
        chance = self._chance
        intents = self._intents()
        row = row_of(
            self.symbol,
            close=close,
            trigger_state=self.state,
            weight_ppm=self.weight_ppm,
            vol_hat_ppm=chance.choice([None, 0, 90_000, 150_000, 150_000, 400_000]),
            exit_intent=intents[0] if intents else None,
            further_exit_intents=tuple(intents[1:]),
            risk_overrides=self._overrides(ts_ms),
            l2_snapshot=self._book(ts_ms),
        )
        cents = chance.choice([1_234_567_89, 100_000_000, 99_999])
        position = PositionState(
            current_weight_ppm=self.weight_ppm, equity=Decimal(cents).scaleb(-2)
        )
        row = structs.replace(row, position=position)
        if chance.random() < 0.03:
            return structs.replace(row, active_trigger_ids=("a-stranger",))
        return row

    def _intents(self) -> list[ExitIntent]:
        chance = self._chance
        share_ppm = chance.choice([1, 250_000, 500_000, 999_999])
        reduce = ExitIntent(kind=ExitKind.RISK_REDUCE, exit_rule_id="trim", reduce_ppm=share_ppm)
        wanted = (
            (emergency(), 0.03),
            (emergency(" "), 0.01),
            (RISK_OFF, 0.02),
            (reduce, 0.04),
        )
        intents = [intent for intent, share in wanted if chance.random() < share]
        chance.shuffle(intents)
        return intents

    def _overrides(self, ts_ms: int) -> RiskOverrides | None:
        draw = self._chance.random()
        if draw < 0.03:
            until_ts_ms = ts_ms + self._chance.choice([-1, 0, 1])
            stand_down = StandDown(
                until_ts_ms=until_ts_ms, reason="row", source=StandDownSource.JUDGE
            )
            return RiskOverrides(stand_down=stand_down)
        if draw < 0.08:
            return RiskOverrides(max_weight_ppm=self._chance.choice([0, 20_000, 90_000]))
        return None

    def _book(self, ts_ms: int) -> Any:
        chance = self._chance
        if chance.random() < 0.15:
            return None
        return book(
            symbol=self.symbol,
            ts_ms=ts_ms - chance.choice([0, 0, 0, 1_500, 1_501]),
            impact_buy_top_n_bps=chance.choice([0, 3, 49, 50, 250]),
            impact_sell_top_n_bps=chance.choice([0, 3, 49, 50, 250]),
            impact_buy_top_n_insufficient_depth=int(chance.random() < 0.05),
        )

    def fill(self, decision: Decision) -> None:
        """Do what the decision says: a taker gets it all, who rests gets what comes."""
        self._believed = ENTRIES[decision.p_hat_bps < BPS_HALF]
        wanted_ppm, style = decision.target_weight_final_ppm, decision.order_style
        if style is OrderStyle.TAKER:
            self.weight_ppm = wanted_ppm
        elif style is OrderStyle.POST_ONLY:
            tenths = self._chance.choice([0, 5, 10, 10, 10])
            self.weight_ppm += (wanted_ppm - self.weight_ppm) * tenths // 10
        elif self.weight_ppm and self.state in ENTRIES:
            drifted_ppm = self.weight_ppm + self._chance.randint(-900, 900)
            self.weight_ppm = drifted_ppm if drifted_ppm * self.weight_ppm > 0 else self.weight_ppm


class Desk:
    """Plays one plan: its traders, and who stands its book down."""

    def __init__(self, client: DetentClient, opened: OpenedPlan, bars: Bars, seed: int) -> None:
        self.client, self.opened, self.bars = client, opened, bars
        self.plan: Plan = opened.plan
        self.traders = [
            Trader(symbol, seed * 10_000 + number)
            for number, symbol in enumerate(self.plan.symbols)
        ]
        self.standing: set[Key] = set()
        self._until: dict[tuple[str, StandDownSource], int] = {}
        self._chance = random.Random(seed)

    async def play(self, index: int, *, leaves: bool) -> int:
        """Play one bar and, now and then, an emergency on it; give how many were decided."""
        if not leaves:
            await self._stand_down(index)
        ts_ms = self.bars[self.plan.symbols[0]][index].ts_ms
        rows = [
            trader.row(self.bars[trader.symbol][index].close, ts_ms, leaves=leaves)
            for trader in self.traders
        ]
        await self._decide(self.traders, rows, ts_ms, DecisionKind.BAR)
        if self._chance.random() > 0.2 or leaves:
            return len(rows)
        few = self._chance.sample(range(len(rows)), 1 + len(rows) // 4)
        chosen = [self.traders[number] for number in few]
        again = [self._emergency(self.traders[number], rows[number]) for number in few]
        await self._decide(chosen, again, ts_ms, DecisionKind.EMERGENCY)
        return len(rows) + len(again)

    def _emergency(self, trader: Trader, row: DecisionRow) -> DecisionRow:
        position = structs.replace(row.position, current_weight_ppm=trader.weight_ppm)
        intent = self._chance.choice([emergency(), emergency(""), RISK_OFF])
        return structs.replace(row, position=position, exit_intent=intent, further_exit_intents=())

    async def _decide(
        self,
        traders: Sequence[Trader],
        rows: Sequence[DecisionRow],
        ts_ms: int,
        kind: DecisionKind,
    ) -> None:
        results = await self.client.decide_many(
            self.opened, ts_ms=ts_ms, rows=tuple(rows), kind=kind, deadline_s=10.0
        )
        for trader, row, result in zip(traders, rows, results, strict=True):
            decision = result.decision
            assert decision is not None, result.refusal
            assert decision.record_hash, "the client answered by itself"
            if any(
                self._until.get((scope, source), 0) > ts_ms
                for scope in ("", row.symbol)
                for source in StandDownSource
            ):
                self.standing.add((self.plan.plan_id, row.symbol, ts_ms, kind.value))
            trader.fill(decision)

    async def _stand_down(self, index: int) -> None:
        chance = self._chance
        if chance.random() > 0.1:
            return
        scopes = chance.choice([(), tuple(chance.sample(self.plan.symbols, 2))])
        source = chance.choice(list(StandDownSource))
        first_ms = self.bars[self.plan.symbols[0]][index].ts_ms
        until_ts_ms = first_ms + chance.choice([0, 1, 2, 5]) * self.plan.bar_interval_ms
        lifts = chance.random() < 0.3
        request = SetStandDownRequest(
            book=self.plan.book,
            symbols=scopes,
            stand_down=None
            if lifts
            else StandDown(until_ts_ms=until_ts_ms, reason="play", source=source),
            lift=source if lifts else None,
        )
        await self.client.set_stand_down(request)
        for scope in scopes or ("",):
            self._until[scope, source] = 0 if lifts else until_ts_ms


async def played(
    client: DetentClient, artifacts: Artifacts, *, symbols: int, bars: int
) -> tuple[list[Desk], int]:
    """Play five plans of so many symbols each; every position is left at the end."""
    names = [f"P{plan}S{number}" for plan in range(5) for number in range(symbols)]
    # A symbol has the same bars in every test: the feature service of a worker knows it.
    series = {
        name: bar_series(name, seed=sum(name.encode()), count=FIRST_BAR + bars + EXIT_BARS_MAX)
        for name in names
    }
    await feed(client, series)
    desks = []
    for plan in range(5):
        own = names[plan * symbols : (plan + 1) * symbols]
        opened = await client.open_plan(
            plan_of(fresh_plan_id("stateful"), own, **plan_changes(own)[plan]),
            artifacts.stable_binding,
        )
        desks.append(Desk(client, opened, series, seed=plan))
    steps = 0
    for index in range(FIRST_BAR, FIRST_BAR + bars + EXIT_BARS_MAX):
        leaves = index >= FIRST_BAR + bars
        if leaves and not any(trader.weight_ppm for desk in desks for trader in desk.traders):
            break
        steps += sum(await asyncio.gather(*(desk.play(index, leaves=leaves) for desk in desks)))
    assert not any(trader.weight_ppm for desk in desks for trader in desk.traders)
    return desks, steps


def folded(stack: Stack, desks: Sequence[Desk]) -> Fold:
    """Fold what the ledger says of some plans; its chains are whole."""
    plans = {desk.plan.plan_id: to_json(desk.plan) for desk in desks}
    records = [row for row in read_records(stack.ledger_file) if row["plan_id"] in plans]
    assert_chains_whole(records)
    return fold(records, plans, set().union(*(desk.standing for desk in desks)))


def assert_same(found: Fold) -> None:
    """Hold every record to the reference, and to what must never be."""
    expected = decide(found.cases)
    for name in Weights.__struct_fields__:
        differs = getattr(found.found, name) != getattr(expected, name)
        first = int(np.argmax(differs))
        assert not differs.any(), f"{int(differs.sum())} differ in {name}: {found.keys[first]}"
    assert_never(found.cases, found.found)


async def _proved(
    stack: Stack, client: DetentClient, artifacts: Artifacts, *, symbols: int, bars: int
) -> int:
    desks, steps = await played(client, artifacts, symbols=symbols, bars=bars)
    found = folded(stack, desks)
    assert len(found.keys) == steps
    assert_same(found)
    # What was proved did happen: every tier, both outcomes of a trade, a latch, a lost entry,
    # positions that were turned around.
    assert found.turned_count > 2
    assert set(np.unique(found.found.tier)) == {1, 2, 3, 4}
    for flags in (found.found.trades, found.found.latched, found.found.preempted):
        assert 0 < flags.sum() < len(flags)
    sources = {row["signal_source"] for row in recorded(stack.ledger_file, desks[0].plan.plan_id)}
    assert sources == {"model", "proxy"}
    for name in ("no_new_long", "no_new_short", "stands_down", "risk_off", "emergency_only"):
        assert 0 < getattr(found.cases, name).sum() < steps, name
    return steps


@pytest.mark.proves("R51", "R189", "R192", "R193", "R194", "R221", "R327", "R328", "R348", "R349")
async def test_books_played_through_the_services_break_no_promise(
    stack: Stack, client: DetentClient, artifacts: Artifacts
) -> None:
    assert await _proved(stack, client, artifacts, symbols=8, bars=90) > 3_600


@pytest.mark.long
async def test_a_hundred_thousand_steps_through_the_services_break_no_promise(
    stack: Stack, client: DetentClient, artifacts: Artifacts
) -> None:
    assert await _proved(stack, client, artifacts, symbols=60, bars=330) >= 100_000


async def test_the_fold_notices_a_ledger_that_says_something_else(
    stack: Stack, client: DetentClient, artifacts: Artifacts
) -> None:
    """The control: one weight, one order or one bar under stand-down that is not so."""
    desks, _ = await played(client, artifacts, symbols=2, bars=25)
    sound = folded(stack, desks)
    assert_same(sound)

    for name in ("final_ppm", "trades", "preempted", "latched"):
        values = getattr(sound.found, name).copy()
        values[7] = values[7] + 1 if values.dtype != bool else not values[7]
        bent = structs.replace(sound, found=structs.replace(sound.found, **{name: values}))
        with pytest.raises(AssertionError, match=f"1 differ in {name}"):
            assert_same(bent)
    for desk in desks:
        desk.standing ^= {sound.keys[-1]}
    with pytest.raises(AssertionError, match="differ in"):
        assert_same(folded(stack, desks))
