"""Proves the life of a bar, through the handler, with fakes behind it."""

import asyncio
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
    plan_of,
    row_of,
)
from tests.fakes import PolicyHost, model_input_of, raises
from tests.service.policy_calls import PLAN, ask, decide, open_plan, refusal, waits_for
from tests.strategist import ledger_rows, noted, recorded

from detent.contracts.calls.inference import InferSignalsRequest
from detent.contracts.calls.policy import (
    ReportLocalAnswersRequest,
)
from detent.contracts.decision import DecisionKind, LocalAnswer
from detent.contracts.errors import (
    BarFromFuture,
    BindingMismatch,
    DeadlineExceeded,
    InvalidField,
)
from detent.contracts.plan import ExitIntent, ExitKind, Trigger, TriggerState, VolUnit
from detent.contracts.reasons import ErrorReason, Reason
from detent.rpc.call import RESERVE_SHARE, Call


@pytest.fixture(name="opened")
async def _opened(host: PolicyHost) -> PolicyHost:
    await open_plan(host, PLAN, host.binding)
    return host


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


@pytest.mark.proves("R218")
async def test_triggers_and_exits_in_another_order_are_the_same_question(
    host: PolicyHost,
) -> None:
    """A strategist that keeps them in sets lists them otherwise after its restart."""
    triggers = tuple(Trigger(trigger_id=name, parameters_hash="3" * 64) for name in ("a", "b"))
    plan = plan_of("ordered", triggers=triggers)
    await open_plan(host, plan, host.binding)
    off = ExitIntent(kind=ExitKind.RISK_OFF, exit_rule_id="breadth")
    first = await decide(
        host,
        row_of(active_trigger_ids=("a", "b"), exit_intent=off, further_exit_intents=(emergency(),)),
        plan=plan,
    )
    other = row_of(
        active_trigger_ids=("b", "a"), exit_intent=emergency(), further_exit_intents=(off,)
    )

    assert await decide(host, other, plan=plan) == first
    for changes in ({"active_trigger_ids": ("a",)}, {"further_exit_intents": ()}):
        refused = await refusal(host, structs.replace(other, **changes), plan=plan)
        assert refused.reason is ErrorReason.DECISION_CONFLICT


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


def symbols_of(query: InferSignalsRequest) -> tuple[str, ...]:
    assert query.columns is not None
    return query.columns.symbols


@pytest.mark.proves("R101")
async def test_every_symbol_of_every_bar_is_asked_about_in_one_call(opened: PolicyHost) -> None:
    for bar in range(5):
        await ask(opened, row_of(), row_of(OTHER_SYMBOL), bar=bar)

    assert [query.symbols for query in opened.features.asked] == [(SYMBOL, OTHER_SYMBOL)] * 5
    assert [symbols_of(query) for query in opened.inference.asked] == [(SYMBOL, OTHER_SYMBOL)] * 5
    assert len(recorded(opened.ledger_file, "plan")) == 10


async def test_only_rows_that_are_new_are_asked_about(opened: PolicyHost) -> None:
    await decide(opened)

    await ask(opened, row_of(), row_of(OTHER_SYMBOL))

    assert symbols_of(opened.inference.asked[-1]) == (OTHER_SYMBOL,)


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


@pytest.mark.proves("R38", "R73")
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        pytest.param({"values": b"\x00" * 44}, Reason.FEATURES_MISSING, id="other values"),
        pytest.param({"features_hash": "0" * 64}, Reason.FEATURES_MISSING, id="another hash"),
        pytest.param({"snapshot_hashes": ("e" * 64,)}, Reason.FEATURES_MISSING, id="snapshot"),
        pytest.param({"values": b"\x00" * 40}, Reason.FEATURE_VERSION_MISMATCH, id="narrower"),
    ],
)
async def test_an_input_that_is_not_what_it_is_hashed_for_never_reaches_the_model(
    host: PolicyHost, spoil: dict[str, Any], reason: Reason
) -> None:
    """Its row falls back, under the hash that was claimed; the others are asked about."""
    plan = plan_of("three", (SYMBOL, OTHER_SYMBOL, "AUDUSD"))
    await open_plan(host, plan, host.binding)

    async def behavior(query: Any, call: Any) -> Any:
        answer = await host.features.answers(query, call)
        first = answer.rows[0]
        changed = structs.replace(first.model_input, **spoil)
        rows = (structs.replace(first, model_input=changed), *answer.rows[1:])
        return structs.replace(answer, rows=rows)

    host.features.behavior = behavior
    await ask(host, *[row_of(symbol) for symbol in plan.symbols], plan=plan)

    found = {record["symbol"]: record for record in recorded(host.ledger_file, "three")}
    claimed = {"features_hash": model_input_of(SYMBOL, START_MS).features_hash} | spoil
    assert symbols_of(host.inference.asked[-1]) == plan.symbols[1:]
    assert [found[symbol]["fallback_reason"] for symbol in plan.symbols] == [reason, None, None]
    assert found[SYMBOL]["features_hash"] == claimed["features_hash"]


# What a client did by itself


async def test_of_local_answers_under_one_key_one_is_new_and_the_first_is_kept(
    opened: PolicyHost,
) -> None:
    """Whether they come in one report or in reports at once; what is counted is what is kept."""
    first, second = (
        LocalAnswer(
            ts_ms=START_MS,
            kind=DecisionKind.BAR,
            row=row_of(weight_ppm=held_ppm),
            target_weight_final_ppm=0,
            reason=Reason.CLIENT_NO_SERVICE,
        )
        for held_ppm in (1, 2)
    )

    async def reported(*answers: LocalAnswer) -> tuple[int, int]:
        query = ReportLocalAnswersRequest(
            binding_hash=opened.binding.binding_hash, plan_id="plan", answers=answers
        )
        taken = await opened.handler.report_local_answers(query, call_of())
        return taken.accepted_count, taken.known_count

    later = structs.replace(first, ts_ms=START_MS + HOUR_MS)
    assert await reported(first, second) == (1, 1)
    assert sorted(await asyncio.gather(*[reported(later) for _ in range(3)])) == [
        (0, 1),
        (0, 1),
        (1, 0),
    ]
    rows = ledger_rows(opened.ledger_file, "SELECT canonical FROM local_answers ORDER BY id")
    assert ['"current_weight_ppm":1' in row["canonical"] for row in rows] == [True, True]


def test_a_local_answer_is_of_a_bar() -> None:
    with pytest.raises(InvalidField, match="ts_ms"):
        LocalAnswer(
            ts_ms=0,
            kind=DecisionKind.BAR,
            row=row_of(),
            target_weight_final_ppm=0,
            reason=Reason.CLIENT_NO_SERVICE,
        )


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
