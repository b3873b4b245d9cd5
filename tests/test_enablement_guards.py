"""The fifteen guard tests T1 to T15 of ADR-065, over the wire and at the start of policy."""

import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.builders import HOUR_MS, START_MS, plan_of, row_of
from tests.conftest import Artifacts
from tests.fakes import FakeFeatures, FakeInference, raises

from detent.contracts.binding import PROXY_BINDING, ModelBinding, SignalSource
from detent.contracts.decision import Decision
from detent.contracts.errors import GuardRefused, InternalError
from detent.contracts.reasons import Reason
from detent.core.rollout.gates import ACTIVE_ACK
from detent.core.rollout.ladder import Mode
from detent.rpc.serve import Server, ServerOptions
from detent.rpc.tracing import no_tracer
from detent.servers.policy.main import Policy
from detent.servers.policy.routes import FixedRoutes
from detent.servers.policy.settings import PolicySettings
from detent_client import ClientOptions, DetentClient, OpenedPlan

ACTIVE = {"infer_enabled": True, "active_enabled": True, "active_ack": ACTIVE_ACK}
SHADOW = {"infer_enabled": True, "shadow_mode": True}
BARS = 12


class Running:
    """Is a policy as its process composes it, with fakes behind it, and a client of it."""

    def __init__(self, policy: Policy, client: DetentClient, inference: FakeInference) -> None:
        self.policy, self.client, self.inference = policy, client, inference

    async def decide(self, opened: OpenedPlan, bar: int) -> Decision:
        row = row_of(close=str(100 + bar * bar % 17), weight_ppm=30_000)
        return await self.client.decide(opened, ts_ms=START_MS + bar * HOUR_MS, row=row)

    async def decisions(self, plan_id: str, binding: ModelBinding) -> list[Decision]:
        opened = await self.client.open_plan(plan_of(plan_id), binding)
        return [await self.decide(opened, bar) for bar in range(BARS)]


def composed(
    artifacts_dir: Path,
    folder: Path,
    binding: ModelBinding,
    *,
    inference: FakeInference | None = None,
    **settings: Any,
) -> Policy:
    folder.mkdir(exist_ok=True)
    return Policy(
        PolicySettings(
            artifacts_dir=artifacts_dir, ledger_file=folder / "ledger.sqlite", **settings
        ),
        routes=FixedRoutes(FakeFeatures(binding), inference or FakeInference(binding)),
        tracer=no_tracer(),
        now_ms=lambda: START_MS + 1_000 * HOUR_MS,
    )


@contextlib.asynccontextmanager
async def running(
    artifacts_dir: Path, folder: Path, binding: ModelBinding, **settings: Any
) -> AsyncIterator[Running]:
    inference = FakeInference(binding)
    policy = composed(artifacts_dir, folder, binding, inference=inference, **settings)
    options = ServerOptions(listen="127.0.0.1:0", reflection=False, drain_grace_s=1.0)
    server = Server(options, policy.services, no_tracer())
    await policy.start()
    target = await server.start()
    journal_file = folder / "journal.jsonl"
    client = DetentClient(
        ClientOptions(journal_file=journal_file, policy_target=target, deadline_s=10.0)
    )
    try:
        yield Running(policy, client, inference)
    finally:
        await client.close()
        await server.drain()
        await policy.close()


def refused(artifacts_dir: Path, folder: Path, binding: ModelBinding, **settings: Any) -> str:
    with pytest.raises(GuardRefused) as caught:
        composed(artifacts_dir, folder, binding, **settings)
    return caught.value.guard


def weights(decisions: list[Decision]) -> list[tuple[int, int, int]]:
    return [
        (one.p_hat_bps, one.signal_strength_bps, one.target_weight_final_ppm) for one in decisions
    ]


def spoilt(artifacts: Artifacts, folder: Path) -> Path:
    """Give a folder whose one artifact has a byte that its manifest does not know."""
    copy = folder / "spoilt" / artifacts.stable.name
    shutil.copytree(artifacts.stable, copy)
    with (copy / "manifest.json").open("ab") as manifest:
        manifest.write(b" ")
    return copy.parent


@pytest.fixture(name="where")
def _where(artifacts: Artifacts) -> Path:
    return artifacts.stable.parent


pytestmark = pytest.mark.proves("R96")


@pytest.mark.proves("R90")
def test_t1_both_flags_are_needed(where: Path, tmp_path: Path, binding: ModelBinding) -> None:
    for missing, guard in (("infer_enabled", "G3"), ("active_enabled", "G2")):
        settings = ACTIVE | {missing: False}
        assert refused(where, tmp_path / missing, binding, **settings) == guard


@pytest.mark.proves("R92")
def test_t2_a_missing_ack_is_refused(where: Path, tmp_path: Path, binding: ModelBinding) -> None:
    assert refused(where, tmp_path, binding, **(ACTIVE | {"active_ack": ""})) == "G4"


@pytest.mark.proves("R92")
@pytest.mark.parametrize("ack", ["yes", f"{ACTIVE_ACK} ", ACTIVE_ACK.lower()])
def test_t3_a_wrong_ack_is_refused(
    where: Path, tmp_path: Path, binding: ModelBinding, ack: str
) -> None:
    assert refused(where, tmp_path, binding, **(ACTIVE | {"active_ack": ack})) == "G4"


@pytest.mark.proves("R93")
async def test_t4_the_environments_kill_switch_overrides_everything(
    artifacts: Artifacts, where: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_KILL_SWITCH", "1")
    binding = artifacts.stable_binding
    async with running(where, tmp_path, binding, **ACTIVE) as one:
        decisions = await one.decisions("plan", binding)

    assert one.policy.mode is Mode.OFF
    assert {decision.fallback_reason for decision in decisions} == {Reason.KILL_SWITCH_ENV}
    assert one.inference.asked == []


@pytest.mark.proves("R93")
async def test_t5_the_configurations_kill_switch_overrides_everything(
    artifacts: Artifacts, where: Path, tmp_path: Path
) -> None:
    binding = artifacts.stable_binding
    async with running(where, tmp_path, binding, kill_switch=True, **ACTIVE) as one:
        decisions = await one.decisions("plan", binding)

    assert one.policy.mode is Mode.OFF
    assert {decision.fallback_reason for decision in decisions} == {Reason.KILL_SWITCH_CONFIG}
    assert one.inference.asked == []


@pytest.mark.proves("R93")
async def test_t6_a_kill_in_mid_run_affects_the_next_bar(
    artifacts: Artifacts, where: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binding = artifacts.stable_binding
    async with running(where, tmp_path, binding, **ACTIVE) as one:
        opened = await one.client.open_plan(plan_of("plan"), binding)
        told = [(await one.decide(opened, 0)).fallback_reason]
        monkeypatch.setenv("ML_KILL_SWITCH", "1")
        told.append((await one.decide(opened, 1)).fallback_reason)
        monkeypatch.delenv("ML_KILL_SWITCH")
        told.append((await one.decide(opened, 2)).fallback_reason)

    assert told == [None, Reason.KILL_SWITCH_ENV, None]


@pytest.mark.proves("R62")
async def test_t7_the_default_is_off(artifacts: Artifacts, where: Path, tmp_path: Path) -> None:
    binding = artifacts.stable_binding
    async with running(where, tmp_path, binding) as one:
        decisions = await one.decisions("plan", binding)

    assert one.policy.mode is Mode.OFF
    assert {decision.fallback_reason for decision in decisions} == {Reason.INFER_DISABLED}
    assert one.inference.asked == []


@pytest.mark.proves("R84")
async def test_t8_a_shadow_that_cannot_be_loaded_costs_nothing(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    async with running(
        spoilt(artifacts, tmp_path), tmp_path, artifacts.stable_binding, **SHADOW
    ) as one:
        decisions = await one.decisions("plan", PROXY_BINDING)

    assert one.policy.mode is Mode.OFF
    assert len(decisions) == BARS


def test_t9_an_active_model_that_cannot_be_loaded_is_refused(
    tmp_path: Path, binding: ModelBinding
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()

    assert refused(empty, tmp_path, binding, **ACTIVE) == "G5"


@pytest.mark.proves("R94")
async def test_t10_an_error_of_inference_leaves_what_policy_is_given_as_it_was(
    artifacts: Artifacts, where: Path, tmp_path: Path
) -> None:
    binding = artifacts.stable_binding
    async with running(where, tmp_path, binding, latch_failures=0, **ACTIVE) as one:
        one.inference.behavior = raises(InternalError("broken"))
        broken = await one.decisions("broken", binding)
        proxy = await one.decisions("proxy", PROXY_BINDING)

    assert {decision.fallback_reason for decision in broken} == {Reason.INFERENCE_ERROR}
    assert weights(broken) == weights(proxy)


@pytest.mark.proves("R312")
async def test_t11_a_shadow_does_not_affect_decisions(
    artifacts: Artifacts, where: Path, tmp_path: Path
) -> None:
    told = {}
    for name, settings in (("off", {}), ("shadow", SHADOW)):
        async with running(where, tmp_path / name, artifacts.stable_binding, **settings) as one:
            told[name] = await one.decisions("plan", PROXY_BINDING)
            assert one.policy.mode == name

    assert [one.record_hash for one in told["off"]] == [one.record_hash for one in told["shadow"]]


@pytest.mark.proves("R80", "R312")
async def test_t12_no_missing_key_ever_changes_a_decision(
    artifacts: Artifacts, where: Path, tmp_path: Path
) -> None:
    """The two sets of keys that start without being active decide as the proxy does."""
    binding = artifacts.stable_binding
    for name, settings in (("off", {}), ("shadow", SHADOW)):
        async with running(where, tmp_path / name, binding, **settings) as one:
            keyed = await one.decisions("keyed", binding)
            proxy = await one.decisions("proxy", PROXY_BINDING)

        assert {decision.signal_source for decision in keyed} == {SignalSource.PROXY}
        assert weights(keyed) == weights(proxy)


@pytest.mark.proves("R91")
@pytest.mark.parametrize("environment", ["", "paper", "LIVE"])
def test_t13_an_allow_list_refuses_whom_it_does_not_name(
    where: Path, tmp_path: Path, binding: ModelBinding, environment: str
) -> None:
    settings = ACTIVE | {"active_allowed_envs": ("live",), "DETENT_ENV": environment}

    assert refused(where, tmp_path, binding, **settings) == "G6"


@pytest.mark.proves("R91")
async def test_t14_an_empty_allow_list_allows_and_production_asks_for_one(
    artifacts: Artifacts, where: Path, tmp_path: Path
) -> None:
    binding = artifacts.stable_binding
    async with running(where, tmp_path, binding, **ACTIVE) as one:
        decisions = await one.decisions("plan", binding)

    assert one.policy.mode is Mode.ACTIVE
    assert {decision.signal_source for decision in decisions} == {SignalSource.MODEL}
    production = ACTIVE | {"profile": "production"}
    assert refused(where, tmp_path / "p", binding, **production) == "G-PROD-1"


def test_t15_a_manifest_that_does_not_hold_is_refused(
    artifacts: Artifacts, tmp_path: Path, binding: ModelBinding
) -> None:
    assert refused(spoilt(artifacts, tmp_path), tmp_path, binding, **ACTIVE) == "G7"
