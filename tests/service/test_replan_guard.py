"""Proves which replans are made, which change nothing, and which come too early."""

from pathlib import Path

import pytest
from msgspec import structs
from tests.builders import START_MS, call_of, policy_config
from tests.fakes import PolicyHost
from tests.service.policy_calls import PLAN, decide, open_plan
from tests.service.replan_calls import get, looser, next_of, question, replace, replans

from detent.contracts.binding import PROXY_BINDING, ModelBinding, SignalSource
from detent.contracts.calls.replanning import RecordReplanSkipsRequest
from detent.contracts.errors import BindingMismatch, PlanClosed, PlanNotFound
from detent.contracts.json_codec import to_json
from detent.contracts.plan import RiskLimits
from detent.contracts.replanning import ReplanOutcome, ReplanSkip, ReplanSkipReason

QUARTER_MS = 900_000
TIGHTER = RiskLimits(max_weight_ppm=100_000)


@pytest.fixture(name="opened")
async def _opened(host: PolicyHost) -> PolicyHost:
    await open_plan(host, PLAN, host.binding)
    return host


@pytest.mark.proves("R136", "R137", "R202")
async def test_rolling_back_changes_one_field_and_takes_effect_on_the_next_bar(
    opened: PolicyHost,
) -> None:
    assert (await decide(opened)).signal_source is SignalSource.MODEL
    turned = structs.replace(opened.binding, signal_source=SignalSource.PROXY)
    # The one field of the whole request that says something else; the name must be new.
    asked = question(opened, next_of(PLAN, "next"), model_binding=turned, bar=0)
    stayed = question(opened, next_of(PLAN, "next"), bar=0)
    asked = structs.replace(asked, new_binding_hash=turned.binding_hash)
    differing = {name for name in to_json(asked) if to_json(asked)[name] != to_json(stayed)[name]}
    assert differing == {"model_binding", "new_binding_hash"}
    binding_fields = {
        name for name, value in to_json(turned).items() if to_json(opened.binding)[name] != value
    }
    assert binding_fields == {"signal_source"}

    await opened.handler.replace_plan(asked, call_of())

    old, new = await get(opened, "plan"), await get(opened, "next")
    assert to_json(new.plan) == to_json(old.plan) | {"plan_id": "next"}
    for name in ("policy_config", "triggers", "risk_limits"):
        assert to_json(new.plan)[name] == to_json(old.plan)[name]
    assert new.policy_config_hash == old.policy_config_hash
    decision = await decide(
        opened, bar=1, plan=next_of(PLAN, "next"), binding_hash=new.binding_hash
    )
    assert decision.signal_source is SignalSource.PROXY
    assert decision.fallback_reason is None
    (row,) = replans(opened)
    assert row["outcome"] == "replaced"
    assert '"changed":["binding","arms"]' in row["canonical"]


REWRITTEN = {
    "named": next_of(PLAN, "next"),
    "reordered": next_of(PLAN, "next", symbols=PLAN.symbols[::-1]),
    "rebuilt": next_of(PLAN, "next", policy_config=policy_config()),
}


@pytest.mark.proves("R234")
@pytest.mark.parametrize("name", REWRITTEN)
async def test_a_replan_that_changes_nothing_material_is_suppressed_and_kept(
    opened: PolicyHost, name: str
) -> None:
    await decide(opened)

    answer = await replace(opened, REWRITTEN[name], note="other words", bar=1)

    assert (answer.outcome, answer.plan_id) == (ReplanOutcome.SUPPRESSED, "plan")
    assert answer.binding_hash == opened.binding.binding_hash
    with pytest.raises(PlanNotFound):
        await get(opened, "next")
    await decide(opened, bar=1)
    assert [row["outcome"] for row in replans(opened)] == ["suppressed"]
    # Its name is still free.
    new = next_of(PLAN, "next", **looser())
    assert (await replace(opened, new, bar=2)).outcome is ReplanOutcome.REPLACED


@pytest.mark.proves("R234")
async def test_another_binding_is_material(tmp_path: Path, binding: ModelBinding) -> None:
    async with PolicyHost(tmp_path / "ledger.sqlite", binding) as host:
        await open_plan(host, PLAN, PROXY_BINDING)
        answer = await replace(host, next_of(PLAN, "next"), binding_hash=PROXY_BINDING.binding_hash)

    assert answer.outcome is ReplanOutcome.REPLACED


async def test_a_repetition_is_answered_as_before_and_counted_once(opened: PolicyHost) -> None:
    same, new = next_of(PLAN, "next"), next_of(PLAN, "next", **looser())
    first = [await replace(opened, same) for _ in range(2)]
    second = [await replace(opened, new, bar=1) for _ in range(2)]
    early = [await replace(opened, next_of(new, "b", **looser(400)), "next", bar=1)] * 2

    assert first[0] == first[1]
    assert second[0] == second[1]
    assert [answer.outcome for answer in early] == [ReplanOutcome.SKIPPED] * 2
    assert [row["outcome"] for row in replans(opened)] == ["suppressed", "replaced", "skipped"]
    with pytest.raises(PlanClosed, match="closed"):
        await replace(opened, same)


@pytest.mark.proves("R355")
async def test_a_replan_that_comes_too_early_is_skipped_and_says_when(opened: PolicyHost) -> None:
    await replace(opened, next_of(PLAN, "a", **looser()))
    at = START_MS + QUARTER_MS

    early = await replace(opened, next_of(PLAN, "b", **looser(400)), "a", ts_ms=at - 1)
    back = await replace(opened, next_of(PLAN, "b", **looser(400)), "a", bar=-1)
    due = await replace(opened, next_of(PLAN, "b", **looser(400)), "a", ts_ms=at)

    for answer in (early, back):
        assert (answer.outcome, answer.plan_id) == (ReplanOutcome.SKIPPED, "a")
        assert answer.skip_reason is ReplanSkipReason.COOLDOWN_NOT_EXPIRED
        assert answer.not_before_ts_ms == at
    assert due.outcome is ReplanOutcome.REPLACED
    found = [(row["outcome"], row["reason"]) for row in replans(opened)]
    skipped = ("skipped", "cooldown_not_expired")
    assert found == [("replaced", ""), skipped, skipped, ("replaced", "")]


@pytest.mark.proves("R355", "R139")
async def test_going_back_to_the_proxy_and_tightening_never_wait(opened: PolicyHost) -> None:
    """In the very instant of the last replan, and before it, and under a name once skipped."""
    await replace(opened, next_of(PLAN, "a", **looser()))
    now = next_of(PLAN, "a", **looser())
    skipped = await replace(opened, next_of(PLAN, "b", **looser(400)), "a")
    assert skipped.outcome is ReplanOutcome.SKIPPED

    tighter = await replace(opened, next_of(now, "b", risk_limits=TIGHTER), "a")
    turned = structs.replace(opened.binding, signal_source=SignalSource.PROXY)
    rolled_back = await replace(
        opened,
        next_of(now, "c", risk_limits=TIGHTER),
        "b",
        bar=-1,
        model_binding=turned,
        new_binding_hash=turned.binding_hash,
    )

    assert tighter.outcome is rolled_back.outcome is ReplanOutcome.REPLACED
    # The control: back to the model is no tightening.
    again = await replace(
        opened,
        next_of(now, "d", risk_limits=TIGHTER),
        "c",
        bar=-1,
        binding_hash=turned.binding_hash,
    )
    assert again.outcome is ReplanOutcome.SKIPPED


async def test_skips_of_a_strategist_are_kept_once(opened: PolicyHost) -> None:
    skips = tuple(
        ReplanSkip(ts_ms=START_MS + index, reason=reason)
        for index, reason in enumerate(ReplanSkipReason)
    )
    query = RecordReplanSkipsRequest(
        binding_hash=opened.binding.binding_hash, plan_id="plan", skips=skips[:2]
    )
    first = await opened.handler.record_replan_skips(query, call_of())
    again = structs.replace(query, skips=skips)
    second = await opened.handler.record_replan_skips(again, call_of())

    assert (first.accepted_count, first.known_count) == (2, 0)
    assert (second.accepted_count, second.known_count) == (1, 2)
    assert [row["reason"] for row in replans(opened)] == [str(one) for one in ReplanSkipReason]
    wrong = structs.replace(query, binding_hash="0" * 64)
    with pytest.raises(BindingMismatch):
        await opened.handler.record_replan_skips(wrong, call_of())
