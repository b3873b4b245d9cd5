"""Plays the strategist over the wire: one plan, its position, bar after bar."""

import itertools
import sqlite3
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.builders import SYMBOL, plan_of, row_of

from detent.contracts.binding import ModelBinding
from detent.contracts.calls.feature import MarketEvent
from detent.contracts.decision import Decision, DecisionKind, DecisionRow
from detent.contracts.market import Bar
from detent.contracts.plan import OrderStyle, TriggerState
from detent_client import DetentClient, OpenedPlan

Bars = Mapping[str, Sequence[Bar]]
_NUMBERS = itertools.count()


def fresh_plan_id(word: str = "plan") -> str:
    """Give a name that no plan of this run has."""
    return f"{word}-{next(_NUMBERS)}"


class Strategist:
    """Owns one plan on one symbol and does what its decisions say."""

    def __init__(self, client: DetentClient, bars: Sequence[Bar], opened: OpenedPlan) -> None:
        self.client = client
        self.bars = bars
        self.opened = opened
        self.weight_ppm = 0

    @classmethod
    async def open(
        cls, client: DetentClient, bars: Bars, binding: ModelBinding, **plan: Any
    ) -> "Strategist":
        """Open a plan of its own under a binding."""
        opened = await client.open_plan(plan_of(fresh_plan_id(), **plan), binding)
        return cls(client, bars[opened.plan.symbols[0]], opened)

    @property
    def plan_id(self) -> str:
        return self.opened.plan.plan_id

    def row(self, index: int, **changes: Any) -> DecisionRow:
        """Give the row of the bar with this index as it would be asked now."""
        changes.setdefault("weight_ppm", self.weight_ppm)
        symbol = self.opened.plan.symbols[0]
        return row_of(symbol, close=self.bars[index].close, **changes)

    async def decide(
        self,
        index: int,
        trigger_state: TriggerState = TriggerState.LONG_ALLOWED,
        *,
        kind: DecisionKind = DecisionKind.BAR,
        deadline_s: float = 5.0,
        **changes: Any,
    ) -> Decision:
        """Decide the bar with this index and hold what the decision trades."""
        row = self.row(index, trigger_state=trigger_state, **changes)
        decision = await self.client.decide(
            self.opened,
            ts_ms=self.bars[index].ts_ms,
            row=row,
            kind=kind,
            deadline_s=deadline_s,
        )
        if decision.order_style is not OrderStyle.NONE:
            self.weight_ppm = decision.target_weight_final_ppm
        return decision


async def feed(client: DetentClient, bars: Bars) -> None:
    """Give the feature service every bar; what it has already is recognised."""
    events = [MarketEvent(bar=bar) for series in bars.values() for bar in series]
    answer = await client.ingest(events, deadline_s=10.0)
    assert answer.refused_count == 0, answer.refusals


def ledger_rows(ledger_file: Path, sql: str, *values: object) -> list[dict[str, Any]]:
    """Read the ledger as an auditor would: from outside, without being able to write."""
    with sqlite3.connect(f"file:{ledger_file}?mode=ro", uri=True) as db:
        db.row_factory = sqlite3.Row
        rows = [dict(row) for row in db.execute(sql, values)]
    db.close()
    return rows


def recorded(ledger_file: Path, plan_id: str) -> list[dict[str, Any]]:
    """Give the columns of every record of a plan, in order."""
    sql = "SELECT * FROM bar_decisions WHERE plan_id = ? ORDER BY id"
    return ledger_rows(ledger_file, sql, plan_id)


def noted(ledger_file: Path, plan_id: str) -> list[dict[str, Any]]:
    """Give the refusals that name a plan, in order."""
    sql = "SELECT * FROM block_events WHERE plan_id = ? ORDER BY id"
    return ledger_rows(ledger_file, sql, plan_id)


def close_of(bars: Bars, index: int, symbol: str = SYMBOL) -> Decimal:
    """Give the close of one bar."""
    return bars[symbol][index].close
