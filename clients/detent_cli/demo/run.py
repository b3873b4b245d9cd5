"""Stream the last bars through the services, kill inference in the middle, bring it back."""

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from opentelemetry.trace import Tracer

from detent.contracts.binding import ModelBinding
from detent.contracts.calls.feature import MarketEvent
from detent.contracts.calls.ledger import VerifyLedgerResponse
from detent.contracts.decision import Decision, DecisionRecord, DecisionRow
from detent.contracts.market import Bar
from detent.contracts.plan import Plan
from detent_cli.demo.strategist import Strategist
from detent_cli.stack import Stack
from detent_client import ClientOptions, DetentClient, OpenedPlan

Say = Callable[[str], None]
DEADLINE_S = 2.0


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """Holds one bar with what was asked and what was answered."""

    bar: Bar
    row: DecisionRow
    decision: Decision
    record: DecisionRecord


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Holds everything that the demo saw."""

    steps: tuple[Step, ...]
    killed_at: int
    restarted_at: int
    verification: VerifyLedgerResponse
    replayed: bool


async def stream_bars(
    stack: Stack,
    *,
    plan: Plan,
    binding: ModelBinding,
    history: Sequence[Bar],
    bars: Sequence[Bar],
    tracer: Tracer,
    say: Say,
    advance: Callable[[], None],
) -> Outcome:
    """Open the plan and decide every bar; inference is dead for the middle tenth."""
    killed_at = len(bars) * 45 // 100
    restarted_at = len(bars) * 55 // 100
    options = ClientOptions(
        journal_file=Path(stack.state_dir) / "journal.jsonl",
        policy_target=stack.targets["policy"],
        feature_target=stack.targets["feature"],
        deadline_s=DEADLINE_S,
    )
    strategist = Strategist(symbol=plan.symbols[0], bar_interval_ms=plan.bar_interval_ms)
    decided: list[tuple[Bar, DecisionRow, Decision]] = []
    async with DetentClient(options, tracer=tracer) as client:
        await client.ingest([MarketEvent(bar=bar) for bar in history])
        opened = await client.open_plan(plan, binding)
        say(f"plan {plan.plan_id} is open under binding {opened.binding_hash[:16]}")
        before = ""
        for number, bar in enumerate(bars):
            if number == killed_at:
                stack.kill("inference")
                say("[bold red]inference was killed with SIGKILL[/]")
            if number == restarted_at:
                stack.start("inference")
                say("[bold green]inference was started again[/]")
            row, decision = await _decided(client, opened, strategist, bar)
            now = decision.fallback_reason or decision.signal_source.value
            if now != before:
                say(f"bar {number:>5}: answered by {decision.signal_source.value} ({now})")
            before = now
            decided.append((bar, row, decision))
            advance()
        verification = await client.verify_ledger(plan.plan_id)
        records = await _records(client, decided)
        replay = await client.replay_decision(decided[-1][2].record_hash)
        await client.close_plan(opened)
    return Outcome(
        steps=tuple(
            Step(bar=bar, row=row, decision=decision, record=record)
            for (bar, row, decision), record in zip(decided, records, strict=True)
        ),
        killed_at=killed_at,
        restarted_at=restarted_at,
        verification=verification,
        replayed=replay.recorded_json == replay.replayed_json,
    )


async def _decided(
    client: DetentClient, opened: OpenedPlan, strategist: Strategist, bar: Bar
) -> tuple[DecisionRow, Decision]:
    await client.ingest([MarketEvent(bar=bar)])
    row = strategist.row(bar)
    decision = await client.decide(opened, ts_ms=bar.ts_ms, row=row)
    strategist.follow(decision)
    return row, decision


async def _records(
    client: DetentClient, decided: Sequence[tuple[Bar, DecisionRow, Decision]]
) -> list[DecisionRecord]:
    """Read every record back: the report shows the ledger, not what the client remembers."""
    return [(await client.get_decision(decision.record_hash)).record for _, _, decision in decided]
