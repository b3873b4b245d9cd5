"""Runs a policy over a control database with two models, each served elsewhere."""

import asyncio
import time
from pathlib import Path
from typing import Any, Self

from msgspec import structs
from tests.builders import HOUR_MS, START_MS, model_binding, plan_of, row_of
from tests.fakes import FakeFeatures, FakeInference, PolicyHost

from detent.adapters.control_database import ControlDatabase
from detent.adapters.kill_reader import KillSwitchReader
from detent.adapters.kill_store import KillStore
from detent.adapters.rollout_store import RolloutStore
from detent.contracts.calls.rollout import (
    RollBackRequest,
    SetCanaryPercentRequest,
    StartRolloutRequest,
)
from detent.contracts.decision import Decision
from detent.contracts.rollout import RampCaps, RampStep, Rollout
from detent.core.rollout.kill_state import KillState, is_stale
from detent.servers.policy.kill_switches import KillSwitches, SharedKills
from detent.servers.policy.rollouts import Rollouts, SharedRollouts
from detent.servers.policy.routes import FixedRoutes
from detent_client import ClientOptions, DetentClient
from detent_client.opened_plan import OpenedPlan

STABLE = model_binding()
CANDIDATE = model_binding(model_id="direction_test_v1.1.0", model_version_hash="f" * 64)
BY = {"actor": "ops", "reason": "drill"}
# No step lasts: what is tested of holds says so.
RAMP = (
    RampStep(canary_bps=5_000, hold_ms=0, caps=RampCaps(max_weight_ppm=100_000)),
    RampStep(canary_bps=10_000, hold_ms=0),
)
SYMBOLS = tuple(f"SYM{number}" for number in range(12))
PLAN = plan_of("plan", SYMBOLS)
STABLE_BPS, CANDIDATE_BPS = 9_000, 8_000


class RolloutHost:
    """Owns one replica of policy; several may share a control database."""

    def __init__(self, folder: Path, *, url: str = "", name: str = "one") -> None:
        self.database = ControlDatabase(url or f"sqlite:///{folder}/control.sqlite")
        reader = KillSwitchReader(self.database, name)
        self.reader = reader
        self.stable = FakeInference(STABLE, p_hat_bps=STABLE_BPS)
        self.candidate = FakeInference(CANDIDATE, p_hat_bps=CANDIDATE_BPS)
        self.host = PolicyHost(
            folder / f"ledger-{name}.sqlite",
            STABLE,
            inference=self.stable,
            kills=KillSwitches(
                shared=SharedKills(KillStore(self.database), reader), clock=time.monotonic
            ),
            rollouts=Rollouts(
                SharedRollouts(RolloutStore(self.database), reader), clock=time.monotonic
            ),
            also_held=[CANDIDATE],
            routes=FixedRoutes(
                FakeFeatures(STABLE),
                self.stable,
                inference_of={CANDIDATE.binding_hash: self.candidate},
            ),
        )

    async def __aenter__(self) -> Self:
        await self.host.__aenter__()
        async with asyncio.timeout(20.0):
            while is_stale(  # noqa: ASYNC110
                self.host.kills.reading().shared or KillState(), time.monotonic()
            ):
                await asyncio.sleep(0.01)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.host.__aexit__(*error)
        self.reader.stop(5.0)


def start_request(symbols: tuple[str, ...], **changes: Any) -> StartRolloutRequest:
    request = StartRolloutRequest(
        rollout_id="r1",
        book="book-plan",
        symbols=symbols,
        stable_binding=STABLE,
        candidate_binding=CANDIDATE,
        ramp=RAMP,
        **BY,
    )
    return structs.replace(request, **changes)


async def set_percent(
    client: DetentClient, rollout: Rollout, canary_bps: int, **changes: Any
) -> Rollout:
    request = SetCanaryPercentRequest(
        rollout_id=rollout.rollout_id,
        canary_bps=canary_bps,
        seen_revision=rollout.revision,
        **BY,
    )
    return (await client.set_canary_percent(structs.replace(request, **changes))).rollout


async def roll_back(client: DetentClient, rollout_id: str = "r1") -> Rollout:
    return (await client.roll_back(RollBackRequest(rollout_id=rollout_id, **BY))).rollout


def client_of(rig: RolloutHost, folder: Path, name: str = "journal") -> DetentClient:
    return DetentClient(
        ClientOptions(journal_file=folder / f"{name}.jsonl", policy_target=rig.host.target)
    )


async def decide(client: DetentClient, opened: OpenedPlan, bar: int = 0) -> list[Decision]:
    rows = tuple(row_of(symbol) for symbol in opened.plan.symbols)
    results = await client.decide_many(opened, ts_ms=START_MS + bar * HOUR_MS, rows=rows)
    found = [result.decision for result in results]
    assert all(found), results
    return [one for one in found if one is not None]
