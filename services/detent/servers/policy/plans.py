"""Keep the open plans of this process and where each of their chains stands."""

import asyncio
import contextlib
from array import array
from collections.abc import AsyncIterator, Iterable, Sequence

from detent.adapters.sqlite_ledger import SqliteLedger, Written
from detent.contracts.decision import DecisionKind
from detent.contracts.errors import PlanClosed, PlanConflict, PlanNotFound
from detent.contracts.plan import Plan, PlanStatus
from detent.contracts.proxy import PROXY_DEFAULT
from detent.core.ledger.ownership import Ownership
from detent.core.ledger.record import CHAIN_START, BoundPlan, ChainPoint
from detent.core.ledger.summary import summarise
from detent.core.signals.proxy import BARS_APART_MAX
from detent.servers.policy.closes import Closes
from detent.servers.policy.stand_downs import StandDowns


def history_since_ts_ms(plan: Plan, ts_ms: int) -> int:
    """Say how far back the proxy of a plan may look at a bar."""
    return ts_ms - PROXY_DEFAULT.closes_needed * plan.bar_interval_ms * BARS_APART_MAX


class SymbolChain:
    """Holds where the chain of one symbol of one plan stands."""

    __slots__ = ("last_ts_ms", "lock", "point")

    def __init__(self) -> None:
        """Start at the beginning."""
        self.point: ChainPoint = CHAIN_START
        self.last_ts_ms = 0
        self.lock = asyncio.Lock()

    def advance(self, written: Written) -> None:
        """Move past a record that is durable."""
        self.point = ChainPoint(
            sequence=written.record.sequence + 1,
            previous_hash=written.record_hash,
            state=written.record.state_after,
        )
        self.last_ts_ms = written.record.ts_ms


class OpenPlan:
    """Holds one open plan with the chains of its symbols and their closes."""

    def __init__(self, bound: BoundPlan) -> None:
        """Start every chain at its beginning; closes are recalled at the first bar."""
        self.bound = bound
        self.closes: dict[str, Closes] = {}
        self.chains = {symbol: SymbolChain() for symbol in bound.plan.symbols}

    @contextlib.asynccontextmanager
    async def locked(self, symbols: Iterable[str]) -> AsyncIterator[None]:
        """Hold the chains of some symbols, in one order for all, so that none deadlock."""
        held: list[asyncio.Lock] = []
        try:
            for symbol in sorted(symbols):
                lock = self.chains[symbol].lock
                await lock.acquire()
                held.append(lock)
            yield
        finally:
            for lock in held:
                lock.release()

    def advance(self, written: Sequence[Written]) -> None:
        """Move past records that are durable; a regular bar adds its close."""
        for item in written:
            symbol = item.record.row.symbol
            self.chains[symbol].advance(item)
            if item.record.kind is DecisionKind.BAR:
                self.closes[symbol].add(item.record.ts_ms, float(item.record.row.bar_close))

    def closes_at(self, symbols: Iterable[str], ts_ms: int) -> "list[array[float]]":
        """Give the closes before a bar that the proxy may look back on, per symbol.

        The bound is that of the recall, so that a restart changes nothing that is computed.
        """
        since_ts_ms = history_since_ts_ms(self.bound.plan, ts_ms)
        return [self.closes[symbol].since(since_ts_ms) for symbol in symbols]


class Plans:
    """Keeps the open plans and stand-downs; what it holds is always what the ledger says."""

    def __init__(self, ledger: SqliteLedger, ownership: Ownership | None = None) -> None:
        """Start empty; `restore` reads the ledger."""
        self._ledger = ledger
        self.stand_downs = StandDowns(ledger)
        self._ownership = ownership or Ownership()
        self._open: dict[str, OpenPlan] = {}
        self._owners: dict[tuple[str, str], str] = {}
        self._opening = asyncio.Lock()

    async def restore(self) -> None:
        """Take up every open plan where its last durable record left it, and what stands down."""
        await self.stand_downs.restore()
        """Take up every open plan where its last durable record left it.

        Raises:
            NotOwner: An open plan is another replica's now: their count has changed.
        """
        for bound in await self._ledger.open_plans():
            self._ownership.check_owner(bound.plan.plan_id)
            opened = OpenPlan(bound)
            for written in await self._ledger.last_records(bound.plan):
                opened.chains[written.record.row.symbol].advance(written)
            self._keep(opened)

    async def open(self, bound: BoundPlan) -> None:
        """Open a plan, once.

        Raises:
            PlanConflict: The name, or a symbol of the book, is taken by another plan.
            NotOwner: Another replica owns the plan.
        """
        plan_id = bound.plan.plan_id
        self._ownership.check_owner(plan_id)
        async with self._opening:
            known = await self._ledger.find_plan(plan_id)
            if known is not None:
                _check_same(known[0], bound, known[1])
                return
            for symbol in bound.plan.symbols:
                owner = self._owners.get((bound.plan.book, symbol))
                if owner is not None:
                    raise PlanConflict(
                        f"book {bound.plan.book!r} has an open plan {owner!r} on {symbol}",
                        plan_id=plan_id,
                        found=owner,
                        expected="no open plan on the same book and symbol",
                    )
            opened = OpenPlan(bound)
            await self._ledger.add_plan_event(bound, PlanStatus.OPEN)
            self._keep(opened)

    async def close(self, opened: OpenPlan) -> None:
        """Close a plan after the decisions under way."""
        plan = opened.bound.plan
        async with self._opening, opened.locked(plan.symbols):
            if plan.plan_id not in self._open:
                return
            summary = summarise(plan.plan_id, await self._ledger.run_rows(plan.plan_id))
            await self._ledger.add_plan_event(
                opened.bound, PlanStatus.CLOSED, summary=summary.canonical
            )
            del self._open[plan.plan_id]
            for symbol in plan.symbols:
                self._owners.pop((plan.book, symbol), None)

    async def find(self, plan_id: str) -> tuple[BoundPlan, PlanStatus]:
        """Give a plan, open or closed; raises `PlanNotFound` or `NotOwner`."""
        self._ownership.check_owner(plan_id)
        opened = self._open.get(plan_id)
        if opened is not None:
            return opened.bound, PlanStatus.OPEN
        known = await self._ledger.find_plan(plan_id)
        if known is None:
            raise PlanNotFound(f"no plan is named {plan_id!r}", plan_id=plan_id)
        return known

    async def get_open(self, plan_id: str) -> OpenPlan:
        """Give an open plan; raises `PlanNotFound` or `PlanClosed`."""
        opened = self._open.get(plan_id)
        if opened is None:
            await self.find(plan_id)
            raise PlanClosed(f"plan {plan_id!r} is closed", plan_id=plan_id)
        return opened

    async def recall(self, opened: OpenPlan, symbols: Iterable[str], *, ts_ms: int) -> None:
        """Recall the closes before a symbol's first bar in this process, once per symbol."""
        unknown = [symbol for symbol in symbols if symbol not in opened.closes]
        if not unknown:
            return
        plan = opened.bound.plan
        seen = await self._ledger.closes_between(plan, history_since_ts_ms(plan, ts_ms), ts_ms)
        for symbol in unknown:
            opened.closes[symbol] = Closes(seen.get(symbol, {}).items())

    def _keep(self, opened: OpenPlan) -> None:
        plan = opened.bound.plan
        self._open[plan.plan_id] = opened
        for symbol in plan.symbols:
            self._owners[plan.book, symbol] = plan.plan_id


def _check_same(known: BoundPlan, bound: BoundPlan, status: PlanStatus) -> None:
    """Refuse a name that was used for something else, or up."""
    plan_id = bound.plan.plan_id
    if status is PlanStatus.CLOSED:
        raise PlanConflict(
            f"plan {plan_id!r} was closed; a change needs a new plan id",
            plan_id=plan_id,
            found="closed",
            expected="a plan id that was never used",
        )
    if known.binding_hash != bound.binding_hash:
        raise PlanConflict(
            f"plan {plan_id!r} is open under another binding; a change needs a new plan id",
            plan_id=plan_id,
            found=bound.binding_hash,
            expected=known.binding_hash,
        )
    if known.plan != bound.plan:
        raise PlanConflict(
            f"plan {plan_id!r} is open with other content; a change needs a new plan id",
            plan_id=plan_id,
            found="other content",
            expected="the content it was opened with",
        )
