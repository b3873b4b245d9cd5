"""Proves the life of a plan, through the handler, with fakes behind it."""

import asyncio
from pathlib import Path
from unittest import mock

import pytest
from msgspec import structs
from tests.builders import (
    OTHER_SYMBOL,
    call_of,
    model_binding,
    plan_of,
    row_of,
)
from tests.fakes import PolicyHost
from tests.service.policy_calls import PLAN, ask, close_plan, decide, open_plan, waits_for
from tests.strategist import ledger_rows, recorded

from detent.contracts.binding import PROXY_BINDING, Head, ModelBinding
from detent.contracts.calls.policy import (
    GetPlanRequest,
)
from detent.contracts.decision import DecisionRow
from detent.contracts.errors import (
    InvalidField,
    LedgerUnavailable,
    PlanClosed,
    PlanConflict,
    PlanNotFound,
)
from detent.contracts.plan import Plan, PlanStatus


@pytest.fixture(name="opened")
async def _opened(host: PolicyHost) -> PolicyHost:
    await open_plan(host, PLAN, host.binding)
    return host


@pytest.mark.proves("R185")
async def test_a_plan_is_given_as_it_was_opened(opened: PolicyHost) -> None:
    found = await opened.handler.get_plan(GetPlanRequest(plan_id="plan"), call_of())

    assert (found.plan, found.model_binding) == (PLAN, opened.binding)
    assert found.status is PlanStatus.OPEN
    with pytest.raises(PlanNotFound, match="nobody"):
        await opened.handler.get_plan(GetPlanRequest(plan_id="nobody"), call_of())


async def test_a_closed_plan_decides_nothing_and_can_be_closed_again(opened: PolicyHost) -> None:
    await decide(opened)
    for _ in range(2):
        await close_plan(opened)

    with pytest.raises(PlanClosed):
        await ask(opened, bar=1)
    found = await opened.handler.get_plan(GetPlanRequest(plan_id="plan"), call_of())
    assert found.status is PlanStatus.CLOSED


async def test_a_bar_that_queued_behind_the_close_is_not_decided(opened: PolicyHost) -> None:
    """Closed is closed: nothing may be recorded under a plan after its end."""
    going = asyncio.Event()
    opened.inference.behavior = waits_for(going, opened)
    first = asyncio.create_task(ask(opened, bar=0))
    await asyncio.sleep(0.02)
    closing = asyncio.create_task(close_plan(opened))
    await asyncio.sleep(0.02)
    queued = asyncio.create_task(ask(opened, bar=1))
    await asyncio.sleep(0.02)
    going.set()
    await asyncio.gather(first, closing)

    with pytest.raises(PlanClosed):
        await queued
    assert len(recorded(opened.ledger_file, "plan")) == 1


async def test_a_close_that_could_not_be_kept_did_not_happen(opened: PolicyHost) -> None:
    await opened.ledger._file.read("PRAGMA query_only = ON")
    with pytest.raises(LedgerUnavailable):
        await close_plan(opened)
    await opened.ledger._file.read("PRAGMA query_only = OFF")

    await decide(opened)
    await close_plan(opened)
    with pytest.raises(PlanClosed):
        await ask(opened, bar=1)


@pytest.mark.proves("R252")
@pytest.mark.parametrize("head", Head)
async def test_only_a_direction_scales_a_plan(head: Head, tmp_path: Path) -> None:
    """The others advise; the service holds their artifacts and opens no plan on them."""
    binding = model_binding(head=head)
    async with PolicyHost(tmp_path / "ledger.sqlite", binding) as host:
        if head is Head.DIRECTION:
            await open_plan(host, PLAN, binding)
            return
        with pytest.raises(InvalidField) as refused:
            await open_plan(host, PLAN, binding)
        with pytest.raises(PlanNotFound):
            await host.handler.get_plan(GetPlanRequest(plan_id=PLAN.plan_id), call_of())

    assert refused.value.metadata == {
        "field": "model_binding.head",
        "found": str(head),
        "expected": "direction",
    }


async def test_a_book_has_one_open_plan_per_symbol(opened: PolicyHost) -> None:
    other = structs.replace(plan_of("other", (OTHER_SYMBOL, "AUDUSD")), book=PLAN.book)

    with pytest.raises(PlanConflict) as refused:
        await open_plan(opened, other, PROXY_BINDING)
    assert refused.value.metadata["found"] == "plan"
    await close_plan(opened)

    await open_plan(opened, other, PROXY_BINDING)


async def test_a_restart_takes_up_every_open_plan_where_it_was(
    tmp_path: Path, binding: ModelBinding
) -> None:
    ledger_file = tmp_path / "ledger.sqlite"
    async with PolicyHost(ledger_file, binding) as host:
        await open_plan(host, PLAN, binding)
        await open_plan(host, plan_of("closed"), binding)
        await close_plan(host, plan_of("closed"))
        before = await decide(host)
    async with PolicyHost(ledger_file, binding) as host:
        assert await decide(host) == before
        await decide(host, bar=1)
        with pytest.raises(PlanClosed):
            await ask(host, plan=plan_of("closed"))
        other = structs.replace(plan_of("other"), book=PLAN.book)
        with pytest.raises(PlanConflict):
            await open_plan(host, other, PROXY_BINDING)
        verified = await host.ledger.verify("plan")

    assert (verified.record_count, verified.breaks) == (2, ())


async def test_a_new_plan_of_a_book_sees_the_closes_before_its_bar_and_no_later_ones(
    host: PolicyHost,
) -> None:
    """The proxy is warm from the start, and replanning on an older bar shows it no future."""
    first = plan_of("first")
    await open_plan(host, first, host.binding)
    rows = [row_of(close=str(100 + bar * bar % 23)) for bar in range(90)]
    beliefs = [await belief(host, rows[bar], bar=bar, plan=first) for bar in range(90)]
    await close_plan(host, first)
    second = structs.replace(plan_of("second"), book=first.book)
    await open_plan(host, second, host.binding)

    again = [await belief(host, rows[bar], bar=bar, plan=second) for bar in range(70, 90)]

    assert beliefs[70] != 5_000
    assert again == beliefs[70:]


@pytest.mark.parametrize("is_restarted", [False, True])
async def test_symbols_that_are_asked_one_by_one_read_the_past_once(
    tmp_path: Path, binding: ModelBinding, monkeypatch: pytest.MonkeyPatch, *, is_restarted: bool
) -> None:
    """Read for each, a bar of thousands of symbols would take the ledger minutes."""
    symbols = ("A", "B", "C", "D", "E")
    first = plan_of("first", symbols)
    closes = {
        symbol: [str(100 + bar * bar % prime) for bar in range(90)]
        for symbol, prime in zip(symbols, (19, 23, 29, 31, 37), strict=True)
    }
    asked = {"A": 80, "B": 85, "C": 80, "D": 89, "E": 70}
    async with PolicyHost(tmp_path / "ledger.sqlite", binding) as host:
        await open_plan(host, first, binding)
        expected = {
            symbol: [
                await belief(host, row_of(symbol, close=close), bar=bar, plan=first)
                for bar, close in enumerate(closes[symbol])
            ]
            for symbol in symbols
        }
        await close_plan(host, first)
        second = structs.replace(plan_of("second", symbols), book=first.book)
        await open_plan(host, second, binding)
        if not is_restarted:
            found = await _asked_by_one(host, second, asked, closes, monkeypatch)
    if is_restarted:
        async with PolicyHost(tmp_path / "ledger.sqlite", binding) as host:
            found = await _asked_by_one(host, second, asked, closes, monkeypatch)

    assert found == {symbol: expected[symbol][bar] for symbol, bar in asked.items()}


async def _asked_by_one(
    host: PolicyHost,
    plan: Plan,
    bars: dict[str, int],
    closes: dict[str, list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, int]:
    """Ask for a bar of each symbol, the first two at once; give what the proxy believed."""
    read = mock.AsyncMock(side_effect=host.ledger.closes_between)
    monkeypatch.setattr(host.ledger, "closes_between", read)

    async def asked(symbol: str, bar: int) -> int:
        return await belief(host, row_of(symbol, close=closes[symbol][bar]), bar=bar, plan=plan)

    together = await asyncio.gather(asked("C", bars["C"]), asked("B", bars["B"]))
    others = [await asked(symbol, bars[symbol]) for symbol in ("A", "D", "E")]
    # The last is of a bar before all others, which sees further back.
    assert read.await_count == 2
    return dict(zip(("C", "B", "A", "D", "E"), (*together, *others), strict=True))


async def belief(host: PolicyHost, row: DecisionRow, *, bar: int, plan: Plan) -> int:
    decision = await decide(host, row, bar=bar, plan=plan)
    (record,) = ledger_rows(
        host.ledger_file,
        "SELECT proxy_p_hat_bps FROM bar_decisions WHERE record_hash = ?",
        decision.record_hash,
    )
    return int(record["proxy_p_hat_bps"])
