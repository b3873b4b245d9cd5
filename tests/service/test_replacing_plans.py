"""Proves how a plan is replaced: in one step, with its state, or not at all."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from tests.builders import (
    HOUR_MS,
    OTHER_SYMBOL,
    START_MS,
    SYMBOL,
    call_of,
    emergency,
    model_binding,
    plan_of,
    policy_config,
    row_of,
)
from tests.fakes import PolicyHost
from tests.integration.ledger_audit import assert_chains_whole, read_records
from tests.ledger_fold import fold
from tests.reference_policy import Weights
from tests.reference_policy import decide as decide_again
from tests.service.policy_calls import PLAN, ask, close_plan, decide, open_plan, refusal, waits_for
from tests.service.replan_calls import (
    get,
    looser,
    next_of,
    question,
    record_text,
    replace,
    replans,
)
from tests.strategist import ledger_rows, recorded

from detent.contracts.binding import ModelBinding
from detent.contracts.calls.ledger import ReplayDecisionRequest
from detent.contracts.calls.policy import ClosePlanRequest
from detent.contracts.calls.replanning import (
    ReplacePlanRequest,
)
from detent.contracts.decision import DecisionKind, DecisionRow
from detent.contracts.errors import (
    BarFromFuture,
    BindingMismatch,
    HorizonMismatch,
    InvalidField,
    LedgerUnavailable,
    PlanClosed,
    PlanConflict,
    PlanNotFound,
    PlanOwnerMismatch,
)
from detent.contracts.json_codec import to_json
from detent.contracts.plan import (
    ExitIntent,
    ExitKind,
    PlanStatus,
    TriggerState,
)
from detent.contracts.reasons import ErrorReason, Reason
from detent.contracts.replanning import (
    ReplanOutcome,
)
from detent.core.ledger.ownership import Ownership, fitting_plan_id, owner_of
from detent.servers.policy.ledger_handler import LedgerHandler
from detent.servers.policy.plans import Plans

RISK_OFF = ExitIntent(kind=ExitKind.RISK_OFF, exit_rule_id="breadth")


@pytest.fixture(name="opened")
async def _opened(host: PolicyHost) -> PolicyHost:
    await open_plan(host, PLAN, host.binding)
    return host


async def test_what_replaced_a_plan_is_named_whole_however_long_its_name_is(
    opened: PolicyHost,
) -> None:
    """A strategist that lost the answer asks for that name next."""
    name = "n" * 128
    await replace(opened, next_of(PLAN, name, **looser()))

    with pytest.raises(PlanClosed) as refused:
        await ask(opened)
    arrived = PlanClosed.restore(refused.value.message, refused.value.metadata)
    assert (await get(opened, arrived.metadata["replaced_by"])).plan.plan_id == name


@pytest.mark.proves("R187")
async def test_the_new_plan_decides_and_the_old_one_does_not(opened: PolicyHost) -> None:
    new = next_of(PLAN, "next", **looser())
    await decide(opened)

    answer = await replace(opened, new)

    assert (answer.outcome, answer.plan_id) == (ReplanOutcome.REPLACED, "next")
    assert answer.policy_config_hash == new.policy_config.policy_config_hash
    assert [arm.symbols for arm in answer.arms] == [PLAN.symbols]
    assert (await get(opened, "plan")).status is PlanStatus.CLOSED
    assert (await get(opened, "next")).plan == new
    with pytest.raises(PlanClosed) as refused:
        await ask(opened, bar=1)
    assert refused.value.metadata == {"plan_id": "plan", "replaced_by": "next"}
    await decide(opened, bar=1, plan=new)
    assert len(ledger_rows(opened.ledger_file, "SELECT 1 FROM results_summary")) == 1
    assert (await opened.ledger.verify("")).breaks == ()


async def test_what_policy_remembers_is_carried_over_and_nothing_restarts(
    opened: PolicyHost,
) -> None:
    """Entry, cooldown, latch and trade set go on: replanning is no way around any of them."""
    await decide(opened, bar=0)
    await decide(opened, row_of(weight_ppm=75_000, exit_intent=RISK_OFF), bar=1)
    before = recorded(opened.ledger_file, "plan")[-1]
    new = next_of(PLAN, "next", **looser())
    await replace(opened, new, bar=1)

    decision = await decide(opened, bar=2, plan=new)

    carried = record_text(opened, decision.record_hash)["carried"]
    assert carried["plan_id"] == "plan"
    assert carried["record_hash"] == before["record_hash"]
    assert carried["ts_ms"] == START_MS + HOUR_MS
    assert carried["state"]["latched_ts_ms"] == START_MS + HOUR_MS
    assert Reason.RISK_OFF_LATCHED in decision.reasons
    assert decision.target_weight_final_ppm == 0
    assert decision.trade_set_id == f"next/{SYMBOL}/1"
    later = await decide(opened, row_of(trigger_state=TriggerState.INACTIVE), bar=3, plan=new)
    assert "carried" not in record_text(opened, later.record_hash)


@pytest.mark.parametrize("bars_held", [3, 4])
async def test_the_minimum_hold_counts_from_the_entry_under_the_old_plan(
    opened: PolicyHost, bars_held: int
) -> None:
    entered = await decide(opened)
    held = entered.target_weight_final_ppm
    assert held > 0
    new = next_of(PLAN, "next", **looser())
    await replace(opened, new)

    decision = await decide(
        opened,
        row_of(weight_ppm=held, exit_intent=emergency()),
        bar=bars_held,
        kind=DecisionKind.EMERGENCY,
        plan=new,
    )

    vetoed = Reason.EMERGENCY_EXIT_VETO_MIN_HOLD in decision.reasons
    assert vetoed is (bars_held == 3)
    assert (decision.target_weight_final_ppm == 0) is (bars_held == 4)


async def test_the_cooldown_goes_on(opened: PolicyHost) -> None:
    held = (await decide(opened)).target_weight_final_ppm
    new = next_of(PLAN, "next", **looser())
    await replace(opened, new)

    decision = await decide(opened, row_of(weight_ppm=held), bar=1, plan=new)

    assert Reason.REBALANCE_COOLDOWN in decision.reasons


async def test_a_bar_that_the_old_plan_decided_is_not_decided_again(opened: PolicyHost) -> None:
    await decide(opened, bar=1)
    new = next_of(PLAN, "next", **looser())
    await replace(opened, new, bar=1)

    for bar in (0, 1):
        refused = await refusal(opened, bar=bar, plan=new)
        assert refused.reason is ErrorReason.BAR_OUT_OF_ORDER
    row = row_of(exit_intent=emergency())
    await decide(opened, row, bar=1, kind=DecisionKind.EMERGENCY, plan=new)
    # After that as little as before, and after a second replacement too.
    assert (await refusal(opened, bar=1, plan=new)).reason is ErrorReason.BAR_OUT_OF_ORDER
    last = next_of(PLAN, "last", **looser(600))
    await replace(opened, last, "next", bar=2)
    assert (await refusal(opened, bar=1, plan=last)).reason is ErrorReason.BAR_OUT_OF_ORDER
    await decide(opened, bar=2, plan=last)
    # The other symbol has no record yet: its first bar is free.
    await decide(opened, row_of(OTHER_SYMBOL), bar=0, plan=last)


async def test_a_bar_under_way_is_decided_before_and_a_later_one_under_the_new_plan(
    opened: PolicyHost,
) -> None:
    going = asyncio.Event()
    opened.inference.behavior = waits_for(going, opened)
    first = asyncio.create_task(ask(opened, bar=0))
    await asyncio.sleep(0.02)
    new = next_of(PLAN, "next", **looser())
    replacing = asyncio.create_task(replace(opened, new))
    await asyncio.sleep(0.02)
    queued = asyncio.create_task(ask(opened, bar=1))
    await asyncio.sleep(0.02)
    going.set()
    await asyncio.gather(first, replacing)

    with pytest.raises(PlanClosed):
        await queued
    assert len(recorded(opened.ledger_file, "plan")) == 1
    carried = record_text(opened, (await decide(opened, bar=1, plan=new)).record_hash)["carried"]
    assert carried["record_hash"] == recorded(opened.ledger_file, "plan")[0]["record_hash"]


@pytest.mark.parametrize("decided_before_restart", [False, True])
async def test_a_restart_takes_up_the_new_plan_with_what_it_carries(
    tmp_path: Path, binding: ModelBinding, *, decided_before_restart: bool
) -> None:
    """Also over two replacements, the first of which decided nothing."""
    file, new = tmp_path / "ledger.sqlite", next_of(PLAN, "last", **looser(600))
    async with PolicyHost(file, binding) as host:
        await open_plan(host, PLAN, binding)
        await decide(host, row_of(weight_ppm=5, exit_intent=RISK_OFF))
        await replace(host, next_of(PLAN, "next", **looser()))
        await replace(host, new, "next", bar=1)
        if decided_before_restart:
            await decide(host, bar=1, plan=new)
    async with PolicyHost(file, binding) as host:
        assert list(host.plans._open) == ["last"]
        chain = host.plans._open["last"].chains[SYMBOL]
        assert chain.carried is not None
        assert chain.carried.plan_id == "plan"
        decision = await decide(host, bar=2, plan=new)
        assert (await refusal(host, bar=0, plan=new)).reason is ErrorReason.BAR_OUT_OF_ORDER
        found = await host.ledger.verify("")

    assert Reason.RISK_OFF_LATCHED in decision.reasons
    assert found.breaks == ()


@pytest.mark.parametrize("after", range(4))
async def test_a_crash_between_the_halves_leaves_the_old_plan_alone(
    tmp_path: Path, binding: ModelBinding, after: int
) -> None:
    """Whatever statement it falls after: never both plans, never neither."""
    file, new = tmp_path / "ledger.sqlite", next_of(PLAN, "next", **looser())
    async with PolicyHost(file, binding) as host:
        await open_plan(host, PLAN, binding)
        await decide(host)
        write = host.ledger.file.write

        async def torn(statements: Any, **options: Any) -> None:
            broken = [*statements[:after], ("INSERT INTO no_such_table VALUES (?)", [(1,)])]
            assert len(statements) == 4
            await write(broken, **options)

        host.ledger.file.write = torn  # type: ignore[method-assign]
        with pytest.raises(LedgerUnavailable):
            await replace(host, new)
        host.ledger.file.write = write  # type: ignore[method-assign]
        await decide(host, bar=1)
        with pytest.raises(PlanNotFound):
            await get(host, "next")
    async with PolicyHost(file, binding) as host:
        assert list(host.plans._open) == ["plan"]
        await decide(host, bar=2)
        assert replans(host) == []
        assert (await replace(host, new)).outcome is ReplanOutcome.REPLACED


async def test_a_caller_that_leaves_leaves_ledger_and_memory_alike(opened: PolicyHost) -> None:
    work = asyncio.create_task(replace(opened, next_of(PLAN, "next", **looser())))
    await asyncio.sleep(0)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    await opened.handler.settle()

    events = ledger_rows(opened.ledger_file, "SELECT event, plan_id FROM plan_log ORDER BY id")
    kept = {row["plan_id"] for row in events if row["event"] == "opened"}
    kept -= {row["plan_id"] for row in events if row["event"] == "closed"}
    assert set(opened.plans._open) == kept == {"next"}


async def test_what_is_wrong_with_a_replan_is_refused_and_changes_nothing(
    opened: PolicyHost,
) -> None:
    new = next_of(PLAN, "next", **looser())
    other = plan_of("other", (SYMBOL, "AUDUSD"), book="another")
    third = structs.replace(plan_of("third", ("NZDUSD",)), book=PLAN.book)
    await open_plan(opened, third, opened.binding)
    await open_plan(opened, plan_of("gone"), opened.binding)
    await close_plan(opened, plan_of("gone"))
    strange = model_binding(model_version_hash="9" * 64)
    wrong: list[tuple[type[Exception], ReplacePlanRequest]] = [
        (BindingMismatch, question(opened, new, binding_hash="0" * 64)),
        (BindingMismatch, question(opened, new, new_binding_hash="0" * 64)),
        (
            BindingMismatch,
            question(opened, new, model_binding=strange, new_binding_hash=strange.binding_hash),
        ),
        (InvalidField, question(opened, other)),
        (PlanNotFound, question(opened, new, "nobody")),
        (PlanClosed, question(opened, structs.replace(new, book="book-gone"), "gone")),
        (PlanConflict, question(opened, next_of(new, "third"))),
        (PlanConflict, question(opened, next_of(new, "gone"))),
        (PlanConflict, question(opened, next_of(new, "next", symbols=(SYMBOL, "NZDUSD")))),
        (BarFromFuture, question(opened, new, ts_ms=opened.now_ms + 1_001)),
        (
            HorizonMismatch,
            question(opened, next_of(PLAN, "n", policy_config=policy_config(horizon_id="h8"))),
        ),
    ]

    for kind, query in wrong:
        with pytest.raises(kind):
            await opened.handler.replace_plan(query, call_of())
    with pytest.raises(InvalidField, match="another name"):
        question(opened, PLAN)
    assert replans(opened) == []
    assert (await get(opened, "plan")).status is PlanStatus.OPEN


async def test_symbols_may_come_and_go_and_what_goes_is_free(opened: PolicyHost) -> None:
    await decide(opened, row_of(OTHER_SYMBOL))
    new = next_of(PLAN, "next", symbols=(SYMBOL, "AUDUSD"))
    await replace(opened, new)

    freed = structs.replace(plan_of("freed", (OTHER_SYMBOL,)), book=PLAN.book)
    await open_plan(opened, freed, opened.binding)
    decision = await decide(opened, row_of(OTHER_SYMBOL), bar=1, plan=freed)

    assert "carried" not in record_text(opened, decision.record_hash)
    await decide(opened, row_of("AUDUSD"), bar=0, plan=new)


async def test_a_summary_counts_the_turnover_from_what_was_taken_over(opened: PolicyHost) -> None:
    held = (await decide(opened)).target_weight_final_ppm
    new = next_of(PLAN, "next", **looser())
    await replace(opened, new)
    rows = [row_of(weight_ppm=held), row_of(trigger_state=TriggerState.INACTIVE)]
    final = [
        (await decide(opened, row, bar=bar, plan=new)).target_weight_final_ppm
        for bar, row in enumerate(rows, 1)
    ]
    closing = ClosePlanRequest(binding_hash=opened.binding.binding_hash, plan_id="next")
    await opened.handler.close_plan(closing, call_of())

    found = ledger_rows(opened.ledger_file, "SELECT canonical FROM results_summary ORDER BY id")
    first, second = (json.loads(row["canonical"])["turnover_ppm"] for row in found)
    assert first == held
    assert second == abs(final[0] - held) + abs(final[1] - final[0])


@pytest.mark.proves("R51")
async def test_records_over_replacements_replay_and_fold_from_the_text_alone(
    opened: PolicyHost,
) -> None:
    """A second implementation, which reads only the ledger's text, agrees on every bar."""
    plans, weight, plan = {"plan": to_json(PLAN)}, 0, PLAN
    rows: list[dict[str, Any]] = [
        {},
        {"exit_intent": RISK_OFF},
        {},
        {"trigger_state": TriggerState.EXIT_ONLY},
        {},
        {"exit_intent": emergency()},
        {},
    ]
    for bar, changes in enumerate(rows * 3):
        row: DecisionRow = row_of(weight_ppm=weight, **changes)
        decision = await decide(opened, row, bar=bar, plan=plan)
        weight = decision.target_weight_final_ppm
        if bar % 2:
            new = next_of(PLAN, f"plan-{bar}", **looser(400 + bar))
            await replace(opened, new, plan.plan_id, bar=bar)
            plans[new.plan_id], plan = to_json(new), new
    records = read_records(opened.ledger_file)

    found = fold(records, plans, set())

    expected = decide_again(found.cases)
    for name in Weights.__struct_fields__:
        assert (getattr(found.found, name) == getattr(expected, name)).all(), name
    assert found.found.latched.any()
    assert_chains_whole(records)
    ledger = LedgerHandler(ledger=opened.ledger)
    for record in records:
        query = ReplayDecisionRequest(record_hash=record["record_hash"])
        replayed = await ledger.replay_decision(query, call_of())
        assert replayed.replayed_json == replayed.recorded_json


async def test_a_name_of_another_replica_is_refused_and_says_what_fits(
    tmp_path: Path, binding: ModelBinding
) -> None:
    targets = ("a:1", "b:1", "c:1")
    owner = owner_of("plan", 3)
    foreign = next(f"n{i}" for i in range(99) if owner_of(f"n{i}", 3) != owner)
    fitting = fitting_plan_id(foreign, owner=owner, replica_count=3)
    async with PolicyHost(tmp_path / "ledger.sqlite", binding) as host:
        ownership = Ownership(replica_index=owner, replica_count=3, replica_targets=targets)
        host.plans.ownership = ownership
        await open_plan(host, PLAN, binding)
        with pytest.raises(PlanOwnerMismatch) as refused:
            await replace(host, next_of(PLAN, foreign, **looser()))
        await decide(host)
        answer = await replace(host, next_of(PLAN, fitting, **looser()))

    assert refused.value.metadata == {
        "plan_id": foreign,
        "owner": str(owner),
        "replica_count": "3",
    }
    assert answer.plan_id == fitting
    assert isinstance(host.plans, Plans)
