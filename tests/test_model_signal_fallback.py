"""Proves that whatever goes wrong with the model costs accuracy and never a decision."""

import asyncio
import os
import random
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from tests.builders import (
    HOUR_MS,
    OTHER_SYMBOL,
    START_MS,
    SYMBOL,
    plan_of,
    row_of,
)
from tests.conftest import Artifacts, client_of
from tests.fakes import (
    ACTIVE,
    PolicyHost,
)
from tests.spoilt_artifacts import (
    fallbacks_counted,
    flip_model_byte,
    ports_of,
    refusals_said,
    remove,
    remove_calibration,
    until_unready,
)
from tests.strategist import Strategist, feed, fresh_plan_id, ledger_rows, recorded
from tests.wrong_answers import BAD_FEATURES, BAD_SIGNALS

from detent.contracts.binding import PROXY_BINDING, ModelBinding, SignalSource
from detent.contracts.decision import Decision
from detent.contracts.errors import ServiceUnavailable
from detent.contracts.reasons import Reason
from detent.core.rollout.gates import (
    ACTIVE_ACK,
)
from detent.rpc.channel import RECONNECT_MS_MAX
from detent.servers.policy.main import kill_switch_env
from detent_cli.stack import Stack, StackOptions
from detent_client import ClientOptions, DetentClient

# Long enough for a busy machine, short enough to show that nobody waits for a dead service.
DEADLINE_S = 1.0
# What is stopped takes all of it, on every bar.
STOPPED_DEADLINE_S = 0.5
# What the scheduler of a busy machine may add to a deadline.
SLACK_S = 0.5
T = Callable[[Any, Any], Awaitable[Any]]


# Real processes, really gone


@pytest.mark.proves("R99", "R100", "R102", "R306", "R321")
async def test_a_killed_inference_process_costs_no_bar_and_comes_back(
    stack: Stack, client: DetentClient, artifacts: Artifacts
) -> None:
    strategist = await Strategist.open(client, artifacts.bars, artifacts.stable_binding)

    before = [await timely(strategist, index) for index in range(100, 105)]
    stack.kill("inference")
    without = [await timely(strategist, index) for index in range(105, 115)]
    stack.start("inference")
    await reconnected()
    after = [await strategist.decide(index) for index in range(115, 120)]

    assert_model(*before, *after)
    assert_proxy(Reason.INFERENCE_UNAVAILABLE, *without)
    assert_every_bar_recorded(stack, strategist, range(100, 120))


@pytest.mark.proves("R99", "R100", "R102", "R306", "R321")
async def test_a_killed_feature_process_costs_no_bar_and_comes_back(
    stack: Stack, client: DetentClient, artifacts: Artifacts
) -> None:
    strategist = await Strategist.open(client, artifacts.bars, artifacts.stable_binding)

    before = await strategist.decide(100)
    stack.kill("feature")
    without = [await timely(strategist, index) for index in range(101, 106)]
    stack.start("feature")
    await reconnected()
    unfed = await strategist.decide(106)
    await feed(client, artifacts.bars)
    after = await strategist.decide(107)

    assert_model(before, after)
    assert_proxy(Reason.FEATURES_UNAVAILABLE, *without)
    assert_proxy(Reason.SYMBOL_UNKNOWN, unfed)
    assert_every_bar_recorded(stack, strategist, range(100, 108))


@pytest.mark.proves("R99", "R102", "R321")
@pytest.mark.parametrize(
    ("name", "reason"),
    [("inference", Reason.INFERENCE_DEADLINE), ("feature", Reason.FEATURES_UNAVAILABLE)],
)
async def test_a_stopped_process_is_answered_for_within_the_deadline(
    stack: Stack, client: DetentClient, artifacts: Artifacts, name: str, reason: Reason
) -> None:
    """A stopped process still accepts connections: only the deadline tells."""
    strategist = await Strategist.open(client, artifacts.bars, artifacts.stable_binding)
    assert_model(await strategist.decide(100))

    with stopped(stack.pid(name)):
        decisions = [
            await timely(strategist, index, deadline_s=STOPPED_DEADLINE_S)
            for index in range(101, 106)
        ]
    after = await strategist.decide(106)

    # On a busy machine an answer may miss the deadline by a hair; then it is recorded as it
    # is here, and the client has held by itself.
    answered = [d for d in decisions if d.fallback_reason is not Reason.CLIENT_NO_SERVICE]
    assert answered
    assert_proxy(reason, *answered)
    assert_model(after)
    reasons = [row["fallback_reason"] for row in recorded(stack.ledger_file, strategist.plan_id)]
    assert reasons == [None, *[reason] * 5, None]


async def reconnected() -> None:
    """Give a channel that found nobody the time after which it tries again."""
    await asyncio.sleep(2 * RECONNECT_MS_MAX / 1000)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.proves("R71", "R99", "R100", "R113")
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        pytest.param(remove, Reason.ARTIFACT_DIR_MISSING, id="gone"),
        pytest.param(flip_model_byte, Reason.MANIFEST_INVALID, id="flipped"),
        pytest.param(remove_calibration, Reason.CALIBRATION_MISSING, id="uncalibrated"),
    ],
)
async def test_an_artifact_that_cannot_be_served_is_a_fallback_with_its_own_reason(  # noqa: PLR0917
    stack: Stack,
    client: DetentClient,
    artifacts: Artifacts,
    tmp_path: Path,
    spoil: Callable[[Path], None],
    reason: Reason,
) -> None:
    copy = tmp_path / "copies" / artifacts.stable.name
    shutil.copytree(artifacts.stable, copy)
    spoil(copy)
    options = structs.replace(stack._options, artifact_dir=copy, ports=ports_of(stack))
    strategist = await Strategist.open(client, artifacts.bars, artifacts.stable_binding)
    said, counted = refusals_said(stack), fallbacks_counted(stack, reason)

    stack.kill("inference")
    spoilt = Stack(options)
    spoilt.start("inference", wait=False)
    try:
        await until_unready(stack, strategist.opened.binding_hash)
        await reconnected()
        decision = await timely(strategist, 100)
    finally:
        spoilt.kill("inference")
        stack.start("inference")
    await reconnected()
    after = await strategist.decide(101)

    assert_proxy(reason, decision)
    assert_model(after)
    # One refusal in the log of the process that does not serve it, and one count.
    assert refusals_said(stack) == said + 1
    assert fallbacks_counted(stack, reason) == counted + 1


@pytest.mark.proves("R99", "R113")
async def test_symbols_without_features_have_reasons_of_their_own(
    client: DetentClient, artifacts: Artifacts
) -> None:
    bars = dict(artifacts.bars) | {"AUDUSD": artifacts.bars[SYMBOL]}
    unknown = await Strategist.open(client, bars, artifacts.stable_binding, symbols=("AUDUSD",))
    cold = await Strategist.open(client, artifacts.bars, artifacts.stable_binding)

    assert_proxy(Reason.SYMBOL_UNKNOWN, await unknown.decide(100))
    assert_proxy(Reason.FEATURES_WARMING_UP, await cold.decide(5))
    assert_model(await cold.decide(100))


# Every way in which a dependency can answer wrongly: `tests/wrong_answers.py`


@pytest.mark.proves("R94", "R99", "R100", "R102", "R113", "R319")
@pytest.mark.parametrize(
    ("port", "case"),
    [("features", case) for case in BAD_FEATURES] + [("inference", case) for case in BAD_SIGNALS],
)
async def test_every_wrong_answer_of_a_dependency_gives_the_proxys_decision(
    host: PolicyHost, host_client: DetentClient, port: str, case: str
) -> None:
    """Not one bit of a failed answer reaches the weight: a proxy plan decides the same."""
    behavior_of, reason = (BAD_FEATURES if port == "features" else BAD_SIGNALS)[case]
    bound = await host_client.open_plan(plan_of(fresh_plan_id()), host.binding)
    proxied = await host_client.open_plan(plan_of(fresh_plan_id()), PROXY_BINDING)
    getattr(host, port).behavior = behavior_of(host)
    row = row_of(weight_ppm=50_000)
    # What hangs takes the whole deadline, so it gets a short one.
    deadline_s = 0.4 if case == "hangs" else 5.0

    started_s = time.monotonic()
    decision = await host_client.decide(bound, ts_ms=START_MS, row=row, deadline_s=deadline_s)
    elapsed_s = time.monotonic() - started_s
    by_proxy = await host_client.decide(proxied, ts_ms=START_MS, row=row)

    assert elapsed_s < deadline_s + SLACK_S
    (record,) = recorded(host.ledger_file, bound.plan.plan_id)
    assert record["fallback_reason"] == reason
    assert record["signal_source"] == "proxy"
    assert record["p_hat_raw_bps"] is record["p_hat_calibrated_bps"] is None
    if decision.fallback_reason is not Reason.CLIENT_NO_SERVICE:
        assert_proxy(reason, decision)
        assert decision.record_hash == record["record_hash"]
    assert decision.target_weight_final_ppm == by_proxy.target_weight_final_ppm
    assert decision.reasons == by_proxy.reasons


@pytest.mark.proves("R101", "R102", "R247")
async def test_chaos_leaves_no_bar_without_a_record_and_no_fallback_without_a_reason(
    host: PolicyHost, host_client: DetentClient
) -> None:
    symbols = (SYMBOL, OTHER_SYMBOL, "AUDUSD")
    opened = await host_client.open_plan(plan_of(fresh_plan_id(), symbols), host.binding)
    chance = random.Random(7)
    wrong_features = [case for name, case in BAD_FEATURES.items() if name != "hangs"]
    wrong_signals = [case for name, case in BAD_SIGNALS.items() if name != "hangs"]

    for index in range(80):
        sound = chance.random() < 0.3
        host.features.behavior = host.features.answers
        host.inference.behavior = host.inference.answers
        if not sound and chance.random() < 0.4:
            host.features.behavior = chance.choice(wrong_features)[0](host)
        elif not sound:
            host.inference.behavior = chance.choice(wrong_signals)[0](host)
        rows = [row_of(symbol) for symbol in symbols]
        results = await host_client.decide_many(opened, ts_ms=START_MS + index * HOUR_MS, rows=rows)
        assert all(result.decision is not None for result in results)

    records = recorded(host.ledger_file, opened.plan.plan_id)
    assert len(records) == 80 * 3
    sources = {record["signal_source"] for record in records}
    assert sources == {"model", "proxy"}
    for record in records:
        fell_back = record["signal_source"] == "proxy"
        assert (record["fallback_reason"] is not None) == fell_back
        assert (record["p_hat_calibrated_bps"] is None) == fell_back


# The gates that ask nobody


CLOSED = {
    Reason.KILL_SWITCH_CONFIG: {"kill_switch": True},
    Reason.INFER_DISABLED: {"infer_enabled": False},
    Reason.ACTIVE_DISABLED: {"active_enabled": False},
    Reason.BAD_ACK: {"active_ack": "yes"},
    Reason.ENV_NOT_ALLOWED: {"environment": "live", "allowed_environments": ("paper",)},
}


@pytest.mark.proves("R70", "R92")
@pytest.mark.parametrize("reason", CLOSED)
async def test_a_closed_gate_asks_no_dependency_and_decides_as_the_proxy(
    tmp_path: Path, binding: ModelBinding, reason: Reason
) -> None:
    enablement = structs.replace(ACTIVE, **CLOSED[reason])
    async with (
        PolicyHost(tmp_path / "ledger.sqlite", binding, enablement=enablement) as host,
        client_at(host, tmp_path) as client,
    ):
        opened = await client.open_plan(plan_of("p"), binding)
        baseline = await client.open_plan(plan_of("baseline"), PROXY_BINDING)
        for bar in range(70):
            question = {
                "ts_ms": START_MS + bar * HOUR_MS,
                "row": row_of(close=str(100 + bar * bar % 17), weight_ppm=30_000),
            }
            decision = await client.decide(opened, **question)
            expected = await client.decide(baseline, **question)

            assert_proxy(reason, decision)
            assert decision.target_weight_final_ppm == expected.target_weight_final_ppm
            assert (decision.reasons, decision.p_hat_bps) == (
                expected.reasons,
                expected.p_hat_bps,
            )
        assert host.features.asked == host.inference.asked == []


@pytest.mark.proves("R113")
async def test_a_real_process_reads_its_switches_from_the_environment(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    """Three policy processes, each off in another way; the first has nothing set at all."""
    cases = {
        Reason.INFER_DISABLED: (False, {}),
        Reason.KILL_SWITCH_ENV: (True, {"ML_KILL_SWITCH": "1"}),
        Reason.KILL_SWITCH_CONFIG: (True, {"DETENT_POLICY_KILL_SWITCH": "true"}),
    }
    stacks = {}
    for reason, (active, environment) in cases.items():
        options = StackOptions(
            artifact_dir=artifacts.stable,
            state_dir=tmp_path / reason,
            active=active,
            environment=environment,
        )
        stacks[reason] = Stack(options)
        stacks[reason].start("policy", wait=False)
    try:
        found = {}
        for reason, stack in stacks.items():
            stack.wait_ready("policy")
            async with client_of(stack, tmp_path / f"{reason}.jsonl") as client:
                strategist = await Strategist.open(client, artifacts.bars, artifacts.stable_binding)
                found[reason] = (await strategist.decide(100)).fallback_reason
    finally:
        for stack in stacks.values():
            stack.stop_all()

    assert found == {reason: reason for reason in cases}


@pytest.mark.proves("R90", "R91", "R92")
@pytest.mark.parametrize(
    ("guard", "environment"),
    [
        ("G2", {"DETENT_POLICY_ACTIVE_ENABLED": "false"}),
        ("G4", {"DETENT_POLICY_ACTIVE_ACK": f"{ACTIVE_ACK} "}),
        ("G6", {"DETENT_ENV": "live", "DETENT_POLICY_ACTIVE_ALLOWED_ENVS": '["paper"]'}),
    ],
)
def test_a_real_process_that_is_half_switched_on_does_not_start(
    artifacts: Artifacts, tmp_path: Path, guard: str, environment: dict[str, str]
) -> None:
    options = StackOptions(
        artifact_dir=artifacts.stable, state_dir=tmp_path, environment=environment
    )
    stack = Stack(options)
    try:
        with pytest.raises(ServiceUnavailable, match=f" in the state folder: {guard}: "):
            stack.start("policy")
    finally:
        stack.stop_all()


async def test_flipping_the_kill_switch_takes_effect_on_the_next_bar(
    tmp_path: Path, binding: ModelBinding, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        PolicyHost(tmp_path / "ledger.sqlite", binding, kill_switch_env=kill_switch_env) as host,
        client_at(host, tmp_path) as client,
    ):
        opened = await client.open_plan(plan_of("p"), binding)
        decisions = []
        values = (None, "1", "1", None, "0", "true", "1 ", "1")
        for index, value in enumerate(values):
            if value is None:
                monkeypatch.delenv("ML_KILL_SWITCH", raising=False)
            else:
                monkeypatch.setenv("ML_KILL_SWITCH", value)
            ts_ms = START_MS + index * HOUR_MS
            decisions.append(await client.decide(opened, ts_ms=ts_ms, row=row_of()))

        assert len(host.inference.asked) == 5
    for value, decision in zip(values, decisions, strict=True):
        if value == "1":
            assert_proxy(Reason.KILL_SWITCH_ENV, decision)
        else:
            assert_model(decision)


# Going back


@pytest.mark.proves("R136", "R137", "R139", "R202")
async def test_rolling_back_takes_one_field_and_one_bar(
    stack: Stack, client: DetentClient, artifacts: Artifacts
) -> None:
    """The same plan under the same binding with one field changed, and no service touched."""
    model = artifacts.stable_binding
    plan = plan_of(fresh_plan_id())
    opened = await client.open_plan(plan, model)
    on_model = Strategist(client, artifacts.bars[SYMBOL], opened)
    assert_model(await on_model.decide(100))
    await client.close_plan(opened)

    rolled_back = await client.open_plan(
        structs.replace(plan, plan_id=fresh_plan_id()),
        structs.replace(model, signal_source=SignalSource.PROXY),
    )
    on_proxy = Strategist(client, artifacts.bars[SYMBOL], rolled_back)
    decision = await on_proxy.decide(101)

    assert decision.signal_source is SignalSource.PROXY
    assert decision.fallback_reason is None, "a proxy plan does not fall back: it is what it is"
    configs = {
        record["policy_config_hash"]
        for name in (plan.plan_id, rolled_back.plan.plan_id)
        for record in policy_hashes(stack, name)
    }
    assert len(configs) == 1


def policy_hashes(stack: Stack, plan_id: str) -> list[dict[str, Any]]:
    return ledger_rows(
        stack.ledger_file,
        "SELECT json_extract(canonical, '$.policy_config_hash') AS policy_config_hash"
        " FROM bar_decisions WHERE plan_id = ?",
        plan_id,
    )


async def timely(strategist: Strategist, index: int, *, deadline_s: float = DEADLINE_S) -> Decision:
    """Decide one bar and hold the answer to its deadline."""
    started_s = time.monotonic()
    decision = await strategist.decide(index, deadline_s=deadline_s)
    elapsed_s = time.monotonic() - started_s
    assert elapsed_s < deadline_s + SLACK_S, f"bar {index} took {elapsed_s:.3f} s"
    return decision


def assert_model(*decisions: Decision) -> None:
    for decision in decisions:
        assert decision.signal_source is SignalSource.MODEL, decision
        assert decision.fallback_reason is None


def assert_proxy(reason: Reason, *decisions: Decision) -> None:
    for decision in decisions:
        assert decision.signal_source is SignalSource.PROXY, decision
        assert decision.fallback_reason is reason
        assert decision.record_hash


def assert_every_bar_recorded(stack: Stack, strategist: Strategist, indices: range) -> None:
    records = recorded(stack.ledger_file, strategist.plan_id)
    assert [record["ts_ms"] for record in records] == [
        strategist.bars[index].ts_ms for index in indices
    ]
    for record in records:
        assert (record["fallback_reason"] is None) == (record["signal_source"] == "model")


def client_at(host: PolicyHost, folder: Path) -> DetentClient:
    return DetentClient(
        ClientOptions(
            journal_file=folder / "journal.jsonl", policy_target=host.target, deadline_s=5.0
        )
    )
