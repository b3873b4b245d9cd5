"""Proves the life of a bar and of a plan, through the handler, with fakes behind it."""

import asyncio
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
    row_of,
)
from tests.fakes import PolicyHost, model_input_of, raises
from tests.strategist import ledger_rows, noted, recorded

from detent.contracts.binding import PROXY_BINDING, Head, ModelBinding
from detent.contracts.calls.policy import (
    ClosePlanRequest,
    DecideTargetWeightsRequest,
    DecideTargetWeightsResponse,
    GetPlanRequest,
    OpenPlanRequest,
    ReportLocalAnswersRequest,
)
from detent.contracts.decision import Decision, DecisionKind, DecisionRow, LocalAnswer
from detent.contracts.errors import (
    BarFromFuture,
    BindingMismatch,
    DeadlineExceeded,
    InvalidField,
    LedgerUnavailable,
    PlanClosed,
    PlanConflict,
    PlanNotFound,
)
from detent.contracts.plan import Plan, PlanStatus, TriggerState, VolUnit
from detent.contracts.reasons import ErrorReason, Reason
from detent.rpc.call import RESERVE_SHARE, Call

PLAN = plan_of("plan", (SYMBOL, OTHER_SYMBOL))


@pytest.fixture(name="opened")
async def _opened(host: PolicyHost) -> PolicyHost:
    await open_plan(host, PLAN, host.binding)
    return host


async def open_plan(host: PolicyHost, plan: Plan, binding: ModelBinding) -> None:
    query = OpenPlanRequest(binding_hash=binding.binding_hash, plan=plan, model_binding=binding)
    await host.handler.open_plan(query, call_of())


async def close_plan(host: PolicyHost, plan: Plan = PLAN) -> None:
    query = ClosePlanRequest(binding_hash=host.binding.binding_hash, plan_id=plan.plan_id)
    await host.handler.close_plan(query, call_of())


async def ask(
    host: PolicyHost,
    *rows: DecisionRow,
    bar: int = 0,
    kind: DecisionKind = DecisionKind.BAR,
    plan: Plan = PLAN,
    call: Call | None = None,
    timeout_s: float = 5.0,
    **changes: Any,
) -> DecideTargetWeightsResponse:
    query = DecideTargetWeightsRequest(
        binding_hash=host.binding.binding_hash,
        plan_id=plan.plan_id,
        ts_ms=START_MS + bar * HOUR_MS,
        kind=kind,
        rows=rows or (row_of(),),
    )
    query = structs.replace(query, **changes)
    return await host.handler.decide_target_weights(query, call or call_of(timeout_s))


async def decide(host: PolicyHost, *rows: DecisionRow, **options: Any) -> Decision:
    result = (await ask(host, *rows, **options)).results[0]
    assert result.decision is not None, result.refusal
    return result.decision


async def refusal(host: PolicyHost, *rows: DecisionRow, **options: Any) -> Any:
    result = (await ask(host, *rows, **options)).results[0]
    assert result.decision is None
    return result.refusal


# One bar


@pytest.mark.proves("R218")
@pytest.mark.parametrize(
    "changes",
    [
        {"trigger_state": TriggerState.SHORT_ALLOWED},
        {"active_trigger_ids": ()},
        {"exit_intent": emergency()},
        {"close": "101"},
    ],
    ids=str,
)
async def test_another_question_under_the_same_key_is_refused(
    opened: PolicyHost, changes: dict[str, Any]
) -> None:
    first = await decide(opened)

    refused = await refusal(opened, row_of(**changes))

    assert refused.reason is ErrorReason.DECISION_CONFLICT
    assert {"field", "found", "expected"} <= set(refused.metadata)
    assert await decide(opened) == first
    assert len(recorded(opened.ledger_file, "plan")) == 1


@pytest.mark.proves("R218")
async def test_equal_values_in_other_words_are_the_same_question(opened: PolicyHost) -> None:
    assert await decide(opened, row_of(close="100")) == await decide(opened, row_of(close="100.00"))


async def test_a_bar_older_than_the_last_is_refused_and_the_others_are_decided(
    opened: PolicyHost,
) -> None:
    await decide(opened, bar=5)

    answer = await ask(opened, row_of(), row_of(OTHER_SYMBOL), bar=4)

    old, new = answer.results
    assert old.refusal is not None
    assert old.refusal.reason is ErrorReason.BAR_OUT_OF_ORDER
    assert str(START_MS + 5 * HOUR_MS) in old.refusal.message
    assert new.decision is not None
    (event,) = noted(opened.ledger_file, "plan")
    assert (event["reason"], event["ts_ms"]) == ("BAR_OUT_OF_ORDER", START_MS + 4 * HOUR_MS)


async def test_an_older_bar_that_was_decided_still_has_its_answer(opened: PolicyHost) -> None:
    first = await decide(opened, bar=0)
    await decide(opened, bar=3)

    assert await decide(opened, bar=0) == first


async def test_a_bar_from_the_future_is_refused_for_all_rows(opened: PolicyHost) -> None:
    opened.now_ms = START_MS + HOUR_MS

    with pytest.raises(BarFromFuture) as refused:
        await ask(opened, bar=2)

    assert refused.value.metadata == {
        "ts_ms": str(START_MS + 2 * HOUR_MS),
        "now_ms": str(START_MS + HOUR_MS),
    }
    await decide(opened, bar=1)


async def test_a_symbol_that_the_plan_does_not_name_is_refused_and_the_others_are_decided(
    opened: PolicyHost,
) -> None:
    answer = await ask(opened, row_of("AUDUSD"), row_of(OTHER_SYMBOL))

    stranger, known = answer.results
    assert stranger.refusal is not None
    assert stranger.refusal.reason is ErrorReason.SYMBOL_NOT_IN_PLAN
    assert stranger.refusal.metadata == {"symbol": "AUDUSD", "plan_id": "plan"}
    assert known.decision is not None


@pytest.mark.proves("R208")
async def test_a_volatility_in_another_unit_is_refused(opened: PolicyHost) -> None:
    refused = await refusal(opened, row_of(vol_unit=VolUnit.ANNUALISED))

    assert refused.reason is ErrorReason.INVALID_FIELD
    assert refused.metadata["found"] == "annualised"
    assert "per_bar" in refused.metadata["expected"]


async def test_an_emergency_call_needs_an_intent(opened: PolicyHost) -> None:
    refused = await refusal(opened, kind=DecisionKind.EMERGENCY)

    assert refused.reason is ErrorReason.INVALID_FIELD
    assert refused.metadata["field"] == "exit_intent"


@pytest.mark.proves("R101")
async def test_every_symbol_of_every_bar_is_asked_about_in_one_call(opened: PolicyHost) -> None:
    for bar in range(5):
        await ask(opened, row_of(), row_of(OTHER_SYMBOL), bar=bar)

    assert [query.symbols for query in opened.features.asked] == [(SYMBOL, OTHER_SYMBOL)] * 5
    assert [len(query.rows) for query in opened.inference.asked] == [2] * 5
    assert len(recorded(opened.ledger_file, "plan")) == 10


async def test_only_rows_that_are_new_are_asked_about(opened: PolicyHost) -> None:
    await decide(opened)

    await ask(opened, row_of(), row_of(OTHER_SYMBOL))

    assert opened.inference.asked[-1].rows[0].symbol == OTHER_SYMBOL
    assert len(opened.inference.asked[-1].rows) == 1


async def test_the_same_bar_asked_by_many_at_once_is_decided_once(opened: PolicyHost) -> None:
    decisions = await asyncio.gather(*(decide(opened) for _ in range(20)))

    assert len({decision.record_hash for decision in decisions}) == 1
    assert len(recorded(opened.ledger_file, "plan")) == 1
    assert len(opened.inference.asked) == 1


# Time


async def test_a_caller_that_leaves_does_not_take_its_record_along(opened: PolicyHost) -> None:
    going = asyncio.Event()
    opened.inference.behavior = waits_for(going, opened)
    asked = asyncio.create_task(ask(opened))
    await asyncio.sleep(0.02)
    asked.cancel()
    going.set()
    await opened.handler.settle()

    assert asked.cancelled()
    assert len(recorded(opened.ledger_file, "plan")) == 1
    assert (await decide(opened)).fallback_reason is None


def waits_for(going: asyncio.Event, host: PolicyHost) -> Any:
    async def behavior(query: Any, call: Any) -> Any:
        await going.wait()
        return await host.inference.answers(query, call)

    return behavior


async def test_an_answer_that_comes_too_late_is_recorded_noted_and_not_given(
    opened: PolicyHost,
) -> None:
    clock = Clock()
    opened.inference.behavior = clock.passing(10.0, opened)
    call = structs.replace(call_of(), deadline_s=5.0, clock=clock)

    with pytest.raises(DeadlineExceeded, match="too late"):
        await ask(opened, call=call)

    (record,) = recorded(opened.ledger_file, "plan")
    (late,) = ledger_rows(opened.ledger_file, "SELECT * FROM late_answers")
    assert late["record_hash"] == record["record_hash"]
    assert (late["plan_id"], late["symbol"], late["ts_ms"]) == ("plan", SYMBOL, START_MS)
    # Asked again in time, the bar has its answer.
    assert (await decide(opened)).record_hash == record["record_hash"]


class Clock:
    """Is a monotonic clock that stands still until a fake moves it."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    async def used_up(self, _query: Any, call: Call) -> Any:
        """Never answer; once this is given up, all the time that it was given is over."""
        given_s = call.remaining_s()
        try:
            await asyncio.Event().wait()
        finally:
            self.now_s += given_s

    def passing(self, seconds: float, host: PolicyHost) -> Any:
        async def behavior(query: Any, call: Any) -> Any:
            self.now_s += seconds
            return await host.inference.answers(query, call)

        return behavior


async def test_a_call_without_time_left_asks_nobody_and_uses_no_key(opened: PolicyHost) -> None:
    with pytest.raises(DeadlineExceeded, match="too little"):
        await ask(opened, timeout_s=0.0)

    assert opened.features.asked == []
    assert recorded(opened.ledger_file, "plan") == []


async def test_each_dependency_gets_less_than_what_is_left(opened: PolicyHost) -> None:
    budgets: list[float] = []

    def measured(answers: Any) -> Any:
        async def behavior(query: Any, call: Any) -> Any:
            budgets.append(call.remaining_s())
            return await answers(query, call)

        return behavior

    opened.features.behavior = measured(opened.features.answers)
    opened.inference.behavior = measured(opened.inference.answers)

    await ask(opened, timeout_s=1.0)

    for_features, for_inference = budgets
    assert for_inference < for_features <= 1.0 - 0.020


@pytest.mark.proves("R321")
async def test_a_hanging_model_leaves_time_for_the_answer(opened: PolicyHost) -> None:
    """Time is what the model was given and took, all of it, however busy the machine is."""
    clock = Clock()
    opened.inference.behavior = clock.used_up
    call = structs.replace(call_of(), deadline_s=0.1, clock=clock)

    decision = await decide(opened, call=call)

    assert decision.fallback_reason is Reason.INFERENCE_DEADLINE
    assert call.remaining_s() == pytest.approx(RESERVE_SHARE * 0.1)


async def test_a_hanging_model_without_the_reserve_takes_the_answers_time(
    opened: PolicyHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the test above."""
    monkeypatch.setattr("detent.rpc.call.RESERVE_S_MAX", 0.0)
    clock = Clock()
    opened.inference.behavior = clock.used_up

    with pytest.raises(DeadlineExceeded, match="too late"):
        await decide(opened, call=structs.replace(call_of(), deadline_s=0.1, clock=clock))


@pytest.mark.proves("R38", "R100")
async def test_a_failed_inference_still_records_what_the_model_would_have_seen(
    opened: PolicyHost,
) -> None:
    opened.inference.behavior = raises(RuntimeError("boom"))

    decision = await decide(opened)

    (record,) = recorded(opened.ledger_file, "plan")
    assert decision.fallback_reason is Reason.INFERENCE_ERROR
    assert record["features_hash"] == model_input_of(SYMBOL, START_MS).features_hash


# Plans


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


async def belief(host: PolicyHost, row: DecisionRow, *, bar: int, plan: Plan) -> int:
    decision = await decide(host, row, bar=bar, plan=plan)
    (record,) = ledger_rows(
        host.ledger_file,
        "SELECT proxy_p_hat_bps FROM bar_decisions WHERE record_hash = ?",
        decision.record_hash,
    )
    return int(record["proxy_p_hat_bps"])


# What a client did by itself


async def test_local_answers_are_kept_once_in_a_table_of_their_own(opened: PolicyHost) -> None:
    answer = LocalAnswer(
        ts_ms=START_MS,
        kind=DecisionKind.BAR,
        row=row_of(weight_ppm=100),
        target_weight_final_ppm=100,
        reason=Reason.CLIENT_NO_SERVICE,
    )
    query = ReportLocalAnswersRequest(
        binding_hash=opened.binding.binding_hash, plan_id="plan", answers=(answer,)
    )

    counts = []
    for _ in range(3):
        taken = await opened.handler.report_local_answers(query, call_of())
        counts.append((taken.accepted_count, taken.known_count))

    assert counts == [(1, 0), (0, 1), (0, 1)]
    assert len(ledger_rows(opened.ledger_file, "SELECT * FROM local_answers")) == 1
    assert recorded(opened.ledger_file, "plan") == []
    with pytest.raises(BindingMismatch):
        await opened.handler.report_local_answers(
            structs.replace(query, binding_hash="0" * 64), call_of()
        )
