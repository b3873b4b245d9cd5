"""Proves stand-down through the handler and over the wire: set, obeyed, recorded, kept, lifted."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.builders import HOUR_MS, OTHER_SYMBOL, START_MS, SYMBOL, call_of, plan_of, row_of
from tests.fakes import PolicyHost
from tests.service.policy_calls import PLAN, ask, close_plan, decide, open_plan, waits_for
from tests.strategist import ledger_rows, recorded

from detent.contracts.calls.ledger import ReplayDecisionRequest
from detent.contracts.calls.policy import SetStandDownRequest, SetStandDownResponse
from detent.contracts.errors import InvalidField, LedgerUnavailable, Overloaded
from detent.contracts.plan import OrderStyle, RiskOverrides, StandDown, StandDownSource
from detent.contracts.reasons import Reason
from detent.servers.policy import stand_downs
from detent.servers.policy.ledger_handler import LedgerHandler
from detent_client import DetentClient

BOOK = PLAN.book
OPS, JUDGE, ENGINE = StandDownSource.OPS, StandDownSource.JUDGE, StandDownSource.RISK_ENGINE


@pytest.fixture(name="opened")
async def _opened(host: PolicyHost) -> PolicyHost:
    await open_plan(host, PLAN, host.binding)
    host.inference.p_hat_bps = 10_000
    return host


def standing(bars: int = 10, source: StandDownSource = OPS, reason: str = "news") -> StandDown:
    return StandDown(until_ts_ms=START_MS + bars * HOUR_MS, reason=reason, source=source)


async def set_on(
    host: PolicyHost,
    stand_down: StandDown | None,
    *,
    book: str = BOOK,
    symbols: Sequence[str] = (),
    lift: StandDownSource | None = None,
) -> SetStandDownResponse:
    query = SetStandDownRequest(book=book, symbols=tuple(symbols), stand_down=stand_down, lift=lift)
    return await host.handler.set_stand_down(query, call_of())


async def final_ppm(host: PolicyHost, bar: int, symbol: str = SYMBOL, **changes: Any) -> int:
    decision = await decide(host, row_of(symbol, weight_ppm=100_000, **changes), bar=bar)
    return decision.target_weight_final_ppm


@pytest.mark.proves("R220", "R221")
@pytest.mark.parametrize("source", list(StandDownSource))
async def test_a_book_is_flat_until_the_instant_and_every_bar_says_why(
    opened: PolicyHost, source: StandDownSource
) -> None:
    assert await final_ppm(opened, 0) > 100_000
    await set_on(opened, standing(3, source, "exchange halt"))

    for bar in (1, 2):
        decision = await decide(opened, row_of(weight_ppm=50_000), bar=bar)
        assert (decision.target_weight_final_ppm, decision.order_style) == (0, OrderStyle.TAKER)
        assert Reason.STAND_DOWN in decision.reasons
    assert await final_ppm(opened, 3) > 100_000, "the instant itself is free again"

    columns = ("stand_down_until_ts_ms", "stand_down_reason", "stand_down_source")
    told = [tuple(row[name] for name in columns) for row in recorded(opened.ledger_file, "plan")]
    said = (START_MS + 3 * HOUR_MS, "exchange halt", source.value)
    assert told == [(None,) * 3, said, said, (None,) * 3]


@pytest.mark.proves("R221")
async def test_the_record_says_which_of_several_was_in_force(opened: PolicyHost) -> None:
    """The one that ends last; the row's own counts like the others."""
    await set_on(opened, standing(5, JUDGE, "review"))
    await set_on(opened, standing(8, ENGINE, "drawdown"), symbols=(SYMBOL,))
    asked = RiskOverrides(stand_down=standing(6, OPS, "by hand"))

    for bar, symbol, source in (
        (1, SYMBOL, "risk_engine"),
        (1, OTHER_SYMBOL, "ops"),
        (5, OTHER_SYMBOL, "ops"),
        (6, SYMBOL, "risk_engine"),
        (6, OTHER_SYMBOL, None),
    ):
        final = await final_ppm(opened, bar, symbol, risk_overrides=asked)
        last = recorded(opened.ledger_file, "plan")[-1]
        assert last["stand_down_source"] == source
        assert (final == 0) == (source is not None)


async def test_a_stand_down_covers_its_scope_and_no_more(opened: PolicyHost) -> None:
    other = plan_of("elsewhere", (SYMBOL,))
    await open_plan(opened, other, opened.binding)
    await set_on(opened, standing(), symbols=(SYMBOL,))

    assert await final_ppm(opened, 0) == 0
    assert await final_ppm(opened, 0, OTHER_SYMBOL) > 0
    assert (await decide(opened, row_of(), plan=other)).target_weight_final_ppm > 0


async def test_a_source_replaces_and_lifts_its_own_and_no_other(opened: PolicyHost) -> None:
    await set_on(opened, standing(9, ENGINE))
    await set_on(opened, standing(9, OPS))
    await set_on(opened, standing(1, OPS))

    lifted = await set_on(opened, None, lift=OPS)
    assert (lifted.changed_count, lifted.known_count) == (1, 0)
    assert await final_ppm(opened, 2) == 0, "the risk engine's stands"
    await set_on(opened, None, lift=ENGINE)
    assert await final_ppm(opened, 3) > 0


async def test_asking_twice_changes_nothing_and_says_so(opened: PolicyHost) -> None:
    symbols = (SYMBOL, OTHER_SYMBOL)
    counts = []
    for scope in ((SYMBOL,), symbols, symbols):
        answer = await set_on(opened, standing(), symbols=scope)
        counts.append((answer.changed_count, answer.known_count))
    for _ in range(2):
        answer = await set_on(opened, None, symbols=symbols, lift=OPS)
        counts.append((answer.changed_count, answer.known_count))

    assert counts == [(1, 0), (1, 1), (0, 2), (2, 0), (0, 2)]
    assert len(ledger_rows(opened.ledger_file, "SELECT id FROM stand_downs")) == 4


@pytest.mark.proves("R220")
async def test_a_restart_keeps_what_stands_and_forgets_what_was_lifted(
    tmp_path: Path, host: PolicyHost
) -> None:
    file = tmp_path / "kept.sqlite"
    async with PolicyHost(file, host.binding) as first:
        await open_plan(first, PLAN, first.binding)
        await set_on(first, standing(9, ENGINE), symbols=(SYMBOL,))
        await set_on(first, standing(9), symbols=(OTHER_SYMBOL,))
        await set_on(first, None, symbols=(OTHER_SYMBOL,), lift=OPS)

    async with PolicyHost(file, host.binding) as second:
        assert await final_ppm(second, 0) == 0
        assert await final_ppm(second, 0, OTHER_SYMBOL) > 0
        assert recorded(file, "plan")[0]["stand_down_source"] == "risk_engine"
        again = await set_on(second, standing(9, ENGINE), symbols=(SYMBOL,))
        assert (again.changed_count, again.known_count) == (0, 1)


@pytest.mark.proves("R220")
async def test_a_replan_does_not_lift_a_stand_down(opened: PolicyHost) -> None:
    """It belongs to the book: whoever opens a new plan does not get out of it."""
    await set_on(opened, standing())
    await close_plan(opened)
    again = plan_of("plan-2", PLAN.symbols, book=BOOK)
    await open_plan(opened, again, opened.binding)

    decision = await decide(opened, row_of(weight_ppm=10_000), plan=again)
    assert decision.target_weight_final_ppm == 0


async def test_a_decision_under_way_obeys_what_was_confirmed_meanwhile(
    opened: PolicyHost,
) -> None:
    going = asyncio.Event()
    opened.inference.behavior = waits_for(going, opened)
    under_way = asyncio.create_task(ask(opened, row_of(weight_ppm=100_000)))
    await asyncio.sleep(0.05)

    await set_on(opened, standing())
    going.set()
    result = (await under_way).results[0]

    assert result.decision is not None
    assert result.decision.target_weight_final_ppm == 0


@pytest.mark.proves("R51", "R221")
async def test_a_bar_under_stand_down_replays_to_the_same_bytes(opened: PolicyHost) -> None:
    """Also after it was lifted: the record itself says what was in force."""
    await set_on(opened, standing())
    decision = await decide(opened, row_of(weight_ppm=100_000))
    await set_on(opened, None, lift=OPS)

    ledger = LedgerHandler(ledger=opened.ledger)
    query = ReplayDecisionRequest(record_hash=decision.record_hash)
    replayed = await ledger.replay_decision(query, call_of())
    assert replayed.replayed_json == replayed.recorded_json
    assert '"stand_down":{' in replayed.recorded_json


async def test_what_could_not_be_written_is_not_in_force(
    opened: PolicyHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    await set_on(opened, standing(1), symbols=(OTHER_SYMBOL,))

    async def fails(_changes: object) -> None:
        raise LedgerUnavailable("the disk is full", cause="full")

    monkeypatch.setattr(opened.ledger, "add_stand_downs", fails)
    for scope in ((), (OTHER_SYMBOL,)):
        with pytest.raises(LedgerUnavailable):
            await set_on(opened, standing(), symbols=scope)

    assert await final_ppm(opened, 1) > 0
    assert await final_ppm(opened, 0, OTHER_SYMBOL) == 0, "what stood before stands"


@pytest.mark.parametrize("lifts", [False, True])
async def test_a_caller_that_leaves_before_the_disk_says_no_changes_nothing(
    opened: PolicyHost, monkeypatch: pytest.MonkeyPatch, *, lifts: bool
) -> None:
    """Else what nobody wrote would be in force until a restart, and known to who asks again."""
    if lifts:
        await set_on(opened, standing())
    going = asyncio.Event()

    async def fails(_changes: object) -> None:
        await going.wait()
        raise LedgerUnavailable("the disk is full", cause="full")

    change = (None, OPS) if lifts else (standing(), None)
    with monkeypatch.context() as broken:
        broken.setattr(opened.ledger, "add_stand_downs", fails)
        asking = asyncio.create_task(set_on(opened, change[0], lift=change[1]))
        await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        going.set()
        await opened.handler.settle()

    assert (await final_ppm(opened, 0) == 0) is lifts
    assert (await set_on(opened, change[0], lift=change[1])).changed_count == 1


async def test_there_is_a_bound_on_what_a_process_keeps(
    opened: PolicyHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stand_downs, "SCOPES_MAX", 2)
    await set_on(opened, standing(), symbols=(SYMBOL, OTHER_SYMBOL))

    with pytest.raises(Overloaded, match="2 stand-downs are kept"):
        await set_on(opened, standing())
    assert (await set_on(opened, standing(3), symbols=(SYMBOL,))).changed_count == 1
    await set_on(opened, None, symbols=(SYMBOL,), lift=OPS)
    assert (await set_on(opened, standing())).changed_count == 1


@pytest.mark.proves("R220")
async def test_a_stand_down_travels_over_the_wire(
    opened: PolicyHost, host_client: DetentClient
) -> None:
    answer = await host_client.set_stand_down(SetStandDownRequest(book=BOOK, stand_down=standing()))
    assert (answer.book, answer.changed_count) == (BOOK, 1)
    assert await final_ppm(opened, 0) == 0

    await host_client.set_stand_down(SetStandDownRequest(book=BOOK, lift=OPS))
    assert await final_ppm(opened, 1) > 0


@pytest.mark.proves("R213", "R220")
@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"book": ""}, "book"),
        ({"symbols": ("eurusd",)}, "symbols"),
        ({"symbols": (SYMBOL, SYMBOL)}, "symbols"),
        ({"stand_down": None}, "change"),
        ({"lift": OPS}, "change"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidField) as refused:
        SetStandDownRequest(**({"book": BOOK, "stand_down": standing()} | changes))

    assert refused.value.field == field


@pytest.mark.proves("R220")
@pytest.mark.parametrize(
    "until_ts_ms", [1_700_002_800, 1_700_002_800_000_000, True], ids=["s", "us", "bool"]
)
def test_an_end_that_is_no_instant_is_refused(until_ts_ms: Any) -> None:
    """Seconds, and microseconds, would end long ago or never."""
    with pytest.raises(InvalidField, match="Unix milliseconds"):
        StandDown(until_ts_ms=until_ts_ms, reason="news", source=OPS)
