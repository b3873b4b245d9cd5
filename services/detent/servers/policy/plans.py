"""Keep the open plans of this process and where each of their chains stands."""

import asyncio
import contextlib
import functools
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)

from detent.adapters.sqlite_file import Statement
from detent.adapters.sqlite_ledger import SqliteLedger, Written
from detent.adapters.sqlite_replans import SqliteReplans
from detent.contracts.decision import DecisionKind, DecisionRow
from detent.contracts.errors import PlanClosed, PlanConflict, PlanNotFound
from detent.contracts.plan import Plan, PlanStatus
from detent.contracts.proxy import PROXY_DEFAULT
from detent.contracts.replanning import CarriedState
from detent.contracts.rollout import base_plan_id
from detent.contracts.units import TS_MS_MAX
from detent.core.ledger.ownership import Ownership
from detent.core.ledger.record import BoundPlan, ChainPoint, chain_point_after, chain_start
from detent.core.ledger.summary import summarise
from detent.core.rollout.plan_arms import candidate_plan_id
from detent.core.signals.proxy import BARS_APART_MAX, ProxyAnswer, proxy_answers
from detent.servers.policy.closes import Closes, PastCloses
from detent.servers.policy.stand_downs import StandDowns


def history_since_ts_ms(plan: Plan, ts_ms: int) -> int:
    """Say how far back the proxy of a plan may look at a bar."""
    return ts_ms - PROXY_DEFAULT.closes_needed * plan.bar_interval_ms * BARS_APART_MAX


class SymbolChain:
    """Holds where the chain of one symbol of one plan stands.

    A chain of a plan that replaced another starts from what it took over; no bar before that
    is decided again.
    """

    __slots__ = ("carried", "last_ts_ms", "lock", "point")

    def __init__(self, carried: CarriedState | None = None) -> None:
        """Start at the beginning."""
        self.carried = carried
        self.point: ChainPoint = chain_start(carried)
        self.last_ts_ms = carried.ts_ms if carried is not None else 0
        self.lock = asyncio.Lock()

    def handed_over(self, plan_id: str) -> CarriedState | None:
        """Give what a plan that replaces `plan_id` takes over; None when nothing is recorded."""
        if self.point.sequence == 0:
            return self.carried
        return CarriedState(
            plan_id=plan_id,
            record_hash=self.point.previous_hash,
            ts_ms=self.last_ts_ms,
            state=self.point.state,
        )

    def advance(self, written: Written) -> None:
        """Move past a record that is durable."""
        self.point = chain_point_after(written.record, written.record_hash)
        self.last_ts_ms = written.record.ts_ms


class OpenPlan:
    """Holds one open plan with the chains of its symbols and their closes."""

    def __init__(self, bound: BoundPlan, carried: Mapping[str, CarriedState] | None = None) -> None:
        """Start every chain at its beginning; closes are recalled at the first bar."""
        self.bound = bound
        self.closes: dict[str, Closes] = {}
        # What those have of it that were not asked for yet; one at a time reads the ledger.
        self.past: PastCloses | None = None
        self.recalling = asyncio.Lock()
        begun = carried or {}
        self.chains = {symbol: SymbolChain(begun.get(symbol)) for symbol in bound.plan.symbols}

    @property
    def handed_over(self) -> dict[str, CarriedState]:
        """Give what a plan that replaces this one takes over, by symbol."""
        plan_id = self.bound.plan.plan_id
        found = {symbol: chain.handed_over(plan_id) for symbol, chain in self.chains.items()}
        return {symbol: state for symbol, state in found.items() if state is not None}

    @property
    def begun_ppm(self) -> dict[str, int]:
        """Give the weights that symbols were taken over with."""
        carried = {symbol: chain.carried for symbol, chain in self.chains.items()}
        return {
            symbol: state.state.last_target_weight_ppm
            for symbol, state in carried.items()
            if state is not None
        }

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

    def proxies_soon(
        self, rows: Sequence[DecisionRow], ts_ms: int, kind: DecisionKind
    ) -> Callable[[], list[ProxyAnswer]]:
        """Give what computes the proxy of every row, once, and have it done while others wait.

        It is due in the second turn of the event loop from here: in the first, whatever the
        caller asks of others leaves. Whoever did not wait for anybody computes it when it is
        needed, and does not wait for it either.
        """
        proxies = functools.cache(functools.partial(self._proxies, rows, ts_ms, kind))
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, proxies)
        return proxies

    def _proxies(
        self, rows: Sequence[DecisionRow], ts_ms: int, kind: DecisionKind
    ) -> list[ProxyAnswer]:
        # The bound is that of the recall, so that a restart changes nothing that is computed.
        since_ts_ms = history_since_ts_ms(self.bound.plan, ts_ms)
        closes = [self.closes[row.symbol].since(since_ts_ms) for row in rows]
        # Only a regular bar adds its close to what the proxy sees.
        if kind is DecisionKind.BAR:
            for seen, row in zip(closes, rows, strict=True):
                seen.append(float(row.bar_close))
        return proxy_answers(closes, PROXY_DEFAULT)


class Plans:
    """Keeps the open plans and stand-downs; what it holds is always what the ledger says."""

    def __init__(self, ledger: SqliteLedger, ownership: Ownership | None = None) -> None:
        """Start empty; `restore` reads the ledger."""
        self._ledger = ledger
        self.replans = SqliteReplans(ledger.file)
        self.stand_downs = StandDowns(ledger)
        self.ownership = ownership or Ownership()
        self._open: dict[str, OpenPlan] = {}
        self._owners: dict[tuple[str, str], str] = {}
        self._opening = asyncio.Lock()

    async def restore(self) -> None:
        """Take up every open plan where its last durable record left it, and what stands down.

        Raises:
            NotOwner: An open plan is another replica's now: their count has changed.
        """
        await self.stand_downs.restore()
        for bound in await self._ledger.open_plans():
            plan_id = bound.plan.plan_id
            self.ownership.check_owner(plan_id)
            opened = OpenPlan(bound, await self.replans.carried(plan_id))
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
        self.ownership.check_owner(plan_id)
        async with self._opening:
            known = await self._ledger.find_plan(plan_id)
            if known is not None:
                _check_same(known[0], bound, known[1])
                return
            self._check_free(bound.plan)
            opened = OpenPlan(bound)
            await self._ledger.add_plan_event(bound, PlanStatus.OPEN)
            self._keep(opened)

    async def arms_of(self, plan_id: str) -> tuple[tuple[BoundPlan, PlanStatus], ...]:
        """Give the plans that a name was opened for, stable before candidate, open or closed.

        Raises:
            NotOwner: Another replica owns them.
        """
        self.ownership.check_owner(plan_id)
        base = base_plan_id(plan_id)
        found = [await self._ledger.find_plan(name) for name in (base, candidate_plan_id(base))]
        return tuple(one for one in found if one is not None)

    async def arms_open(self, plan_id: str) -> list[OpenPlan]:
        """Give those of them that are open; raises `PlanNotFound` or `PlanClosed` for none."""
        base = base_plan_id(plan_id)
        names = (base, candidate_plan_id(base))
        found = [self._open[name] for name in names if name in self._open]
        return found or [await self.get_open(plan_id)]

    async def open_all(self, bounds: Sequence[BoundPlan]) -> None:
        """Open several plans, all or none.

        Whoever calls it keeps everybody else from `changing`, and has seen that no name is
        known.

        Raises:
            PlanConflict: A symbol of the book is taken by another plan.
        """
        for bound in bounds:
            self._check_free(bound.plan)
        await self._ledger.add_plans(bounds)
        for bound in bounds:
            self._keep(OpenPlan(bound))

    async def close(self, opened: OpenPlan) -> None:
        """Close a plan after the decisions under way."""
        plan = opened.bound.plan
        async with self._opening, opened.locked(plan.symbols):
            if plan.plan_id not in self._open:
                return
            await self._ledger.add_plan_event(
                opened.bound, PlanStatus.CLOSED, summary=await self._summary(opened)
            )
            self._drop(opened)

    @contextlib.asynccontextmanager
    async def changing(self) -> AsyncIterator[None]:
        """Keep plans from being opened, closed and replaced by anybody else meanwhile."""
        async with self._opening:
            yield

    async def replace(
        self,
        replaced: Sequence[OpenPlan],
        bounds: Sequence[BoundPlan],
        noting: Callable[[Mapping[str, CarriedState]], Statement],
    ) -> None:
        """Close plans after the decisions under way and open others in their place, at once.

        Whoever calls it keeps everybody else from `changing`.

        Args:
            replaced: The plan that is replaced, or both arms of a rollout.
            bounds: The plan that replaces it, or both arms of one.
            noting: Gives the statement that notes it, from what is handed over.

        Raises:
            PlanConflict: A new name, or a symbol of the book, is taken by another plan.
            PlanOwnerMismatch: The new name is another replica's.
        """
        names = {opened.bound.plan.plan_id for opened in replaced}
        for bound in bounds:
            await self._check_new(bound.plan, names)
        kept = {symbol for bound in bounds for symbol in bound.plan.symbols}
        carried: dict[str, CarriedState] = {}
        async with contextlib.AsyncExitStack() as held:
            for opened in replaced:
                await held.enter_async_context(opened.locked(opened.bound.plan.symbols))
                handed = opened.handed_over
                carried |= {symbol: state for symbol, state in handed.items() if symbol in kept}
            closed = [(opened.bound, await self._summary(opened)) for opened in replaced]
            await self._ledger.replace_plans(closed, bounds, noting(carried))
            for opened in replaced:
                self._drop(opened)
            for bound in bounds:
                self._keep(OpenPlan(bound, carried))

    async def _check_new(self, plan: Plan, replaced: Collection[str]) -> None:
        """Refuse a plan that cannot replace others: its name, its owner, its symbols."""
        self.ownership.check_successor(plan.plan_id)
        known = await self._ledger.find_plan(plan.plan_id)
        if known is not None:
            raise PlanConflict(
                f"plan {plan.plan_id!r} is known; a replan needs a plan id that was never used",
                plan_id=plan.plan_id,
                found=known[1],
                expected="a plan id that was never used",
            )
        self._check_free(plan, replaced=replaced)

    async def _summary(self, opened: OpenPlan) -> bytes:
        plan_id = opened.bound.plan.plan_id
        rows = await self._ledger.run_rows(plan_id)
        return summarise(plan_id, rows, opened.begun_ppm).canonical

    def _check_free(self, plan: Plan, *, replaced: Collection[str] = ()) -> None:
        """Refuse a plan on a symbol that another open plan of its book has."""
        for symbol in plan.symbols:
            owner = self._owners.get((plan.book, symbol))
            if owner is not None and owner not in replaced:
                raise PlanConflict(
                    f"book {plan.book!r} has an open plan {owner!r} on {symbol}",
                    plan_id=plan.plan_id,
                    found=owner,
                    expected="no open plan on the same book and symbol",
                )

    async def find(self, plan_id: str) -> tuple[BoundPlan, PlanStatus]:
        """Give a plan, open or closed; raises `PlanNotFound` or `NotOwner`."""
        self.ownership.check_owner(plan_id)
        opened = self._open.get(plan_id)
        if opened is not None:
            return opened.bound, PlanStatus.OPEN
        known = await self._ledger.find_plan(plan_id)
        if known is None:
            other = candidate_plan_id(plan_id)
            is_candidates = await self._ledger.find_plan(other) is not None
            hint = f": its symbols are all the candidate's, in {other!r}" if is_candidates else ""
            raise PlanNotFound(f"no plan is named {plan_id!r}{hint}", plan_id=plan_id)
        return known

    async def get_open(self, plan_id: str) -> OpenPlan:
        """Give an open plan; raises `PlanNotFound` or `PlanClosed`."""
        opened = self._open.get(plan_id)
        if opened is None:
            await self.find(plan_id)
            successor_id = await self.replans.successor_id(plan_id)
            named = {} if successor_id is None else {"replaced_by": successor_id}
            raise PlanClosed(f"plan {plan_id!r} is closed", plan_id=plan_id, **named)
        return opened

    async def recall(self, opened: OpenPlan, symbols: Sequence[str], *, ts_ms: int) -> None:
        """Recall the closes before a symbol's first bar in this process, once per symbol.

        The ledger is read for all symbols at once, and again only for an earlier bar: whoever
        asks for thousands of them one by one does not pay for all of them each time.
        """
        if all(symbol in opened.closes for symbol in symbols):
            return
        plan = opened.bound.plan
        since_ts_ms = history_since_ts_ms(plan, ts_ms)
        async with opened.recalling:
            if opened.past is None or since_ts_ms < opened.past.since_ts_ms:
                # No bar of any symbol is later than this; how late its own is, is asked below.
                seen = await self._ledger.closes_between(plan, since_ts_ms, TS_MS_MAX)
                waiting = opened.chains.keys() - opened.closes.keys()
                known = {symbol: bars for symbol, bars in seen.items() if symbol in waiting}
                opened.past = PastCloses(since_ts_ms, known)
            for symbol in symbols:
                if symbol not in opened.closes:
                    # What the plan itself has decided includes the bar of an emergency.
                    is_begun = opened.chains[symbol].point.sequence > 0
                    before_ts_ms = ts_ms + is_begun
                    opened.closes[symbol] = opened.past.take(symbol, before_ts_ms=before_ts_ms)

    def _keep(self, opened: OpenPlan) -> None:
        plan = opened.bound.plan
        self._open[plan.plan_id] = opened
        for symbol in plan.symbols:
            self._owners[plan.book, symbol] = plan.plan_id

    def _drop(self, opened: OpenPlan) -> None:
        plan = opened.bound.plan
        del self._open[plan.plan_id]
        for symbol in plan.symbols:
            self._owners.pop((plan.book, symbol), None)


def _check_same(known: BoundPlan, bound: BoundPlan, status: PlanStatus) -> None:
    """Refuse a name that was used for something else, or up."""
    plan_id = bound.plan.plan_id
    check_open(known, status)
    if known.binding_hash != bound.binding_hash:
        raise PlanConflict(
            f"plan {plan_id!r} is open under another binding; a change needs a new plan id",
            plan_id=plan_id,
            found=bound.binding_hash,
            expected=known.binding_hash,
        )
    if known.plan != bound.plan or known.rollout is not None:
        raise PlanConflict(
            f"plan {plan_id!r} is open with other content; a change needs a new plan id",
            plan_id=plan_id,
            found="other content",
            expected="the content it was opened with",
        )


def check_open(known: BoundPlan, status: PlanStatus) -> None:
    """Refuse a name that was used up; raises `PlanConflict`."""
    if status is PlanStatus.CLOSED:
        plan_id = known.plan.plan_id
        raise PlanConflict(
            f"plan {plan_id!r} was closed; a change needs a new plan id",
            plan_id=plan_id,
            found="closed",
            expected="a plan id that was never used",
        )
