"""Proves kill switches over the wire: scopes, order, changes while a bar is decided, the latch."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec import structs
from tests.builders import OTHER_SYMBOL, SYMBOL, row_of
from tests.fakes import ACTIVE, PolicyHost, raises
from tests.service.policy_calls import PLAN, ask, decide, open_plan, waits_for

from detent.adapters.control_database import ControlDatabase
from detent.adapters.kill_file import KillFile
from detent.adapters.kill_reader import KillSwitchReader
from detent.adapters.kill_store import KillStore
from detent.contracts.binding import ModelBinding, SignalSource
from detent.contracts.calls.rollout import SetKillSwitchRequest, SharedKillState
from detent.contracts.errors import InternalError, KillEpochStale, ServiceUnavailable
from detent.contracts.kill_switch import KillPosition, KillScope, KillSource
from detent.contracts.reasons import Reason
from detent.core.rollout.kill_state import KillState, is_stale
from detent.core.rollout.latch import LatchLimits
from detent.servers.policy.kill_switches import KillSwitches, SharedKills
from detent_client import ClientOptions, DetentClient

OFF, RELEASED = KillPosition.OFF, KillPosition.RELEASED
BOTH = (row_of(SYMBOL), row_of(OTHER_SYMBOL))


def switches(folder: Path, *, name: str = "one", limits: LatchLimits | None = None) -> KillSwitches:
    database = ControlDatabase(f"sqlite:///{folder}/control.sqlite")
    return KillSwitches(
        file=KillFile(folder / "kill", clock=time.monotonic),
        shared=SharedKills(KillStore(database), KillSwitchReader(database, name)),
        limits=limits,
        clock=time.monotonic,
    )


async def until_read(kills: KillSwitches) -> None:
    async with asyncio.timeout(20.0):
        while is_stale(kills.reading().shared or KillState(), time.monotonic()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.fixture(name="host")
async def _host(tmp_path: Path, binding: ModelBinding) -> AsyncIterator[PolicyHost]:
    kills = switches(tmp_path, limits=LatchLimits(failures=3))
    async with PolicyHost(tmp_path / "ledger.sqlite", binding, kills=kills) as host:
        await open_plan(host, PLAN, binding)
        await until_read(kills)
        yield host


@pytest.fixture(name="operator")
async def _operator(host: PolicyHost, tmp_path: Path) -> AsyncIterator[DetentClient]:
    options = ClientOptions(journal_file=tmp_path / "journal.jsonl", policy_target=host.target)
    async with DetentClient(options) as client:
        yield client


def asked(
    scope: KillScope = KillScope.GLOBAL, key: str = "", *, epoch: int | None = None
) -> SetKillSwitchRequest:
    position = OFF if epoch is None else RELEASED
    return SetKillSwitchRequest(
        scope=scope, key=key, position=position, seen_epoch=epoch, actor="ops", reason="drill"
    )


async def sources(host: PolicyHost, bar: int) -> list[tuple[SignalSource, Reason | None]]:
    results = (await ask(host, *BOTH, bar=bar)).results
    assert all(result.decision is not None for result in results)
    return [
        (one.decision.signal_source, one.decision.fallback_reason)  # type: ignore[union-attr]
        for one in results
    ]


MODEL = (SignalSource.MODEL, None)
KILLED = (SignalSource.PROXY, Reason.KILL_SWITCH_STATE)


@pytest.mark.proves("R93")
@pytest.mark.parametrize(
    ("scope", "key", "expected"),
    [
        (KillScope.GLOBAL, "", [KILLED, KILLED]),
        (KillScope.MODEL, "direction_test_v1.0.0", [KILLED, KILLED]),
        (KillScope.PLAN, PLAN.plan_id, [KILLED, KILLED]),
        (KillScope.SYMBOL, OTHER_SYMBOL, [MODEL, KILLED]),
        (KillScope.MODEL, "direction_test_v1.0.1", [MODEL, MODEL]),
        (KillScope.PLAN, "another", [MODEL, MODEL]),
    ],
)
async def test_a_switch_holds_from_its_answer_on_in_its_scope_until_it_is_released(
    host: PolicyHost,
    operator: DetentClient,
    scope: KillScope,
    key: str,
    expected: list[tuple[SignalSource, Reason | None]],
) -> None:
    assert await sources(host, 0) == [MODEL, MODEL]
    answer = await operator.set_kill_switch(asked(scope, key))
    assert await sources(host, 1) == expected

    with pytest.raises(KillEpochStale):
        await operator.set_kill_switch(asked(scope, key, epoch=answer.kill_switch.epoch + 1))
    assert await sources(host, 2) == expected
    await operator.set_kill_switch(asked(scope, key, epoch=answer.kill_switch.epoch))
    assert await sources(host, 3) == [MODEL, MODEL]


async def test_a_symbol_that_is_off_is_not_asked_for(
    host: PolicyHost, operator: DetentClient
) -> None:
    await operator.set_kill_switch(asked(KillScope.SYMBOL, SYMBOL))
    await sources(host, 0)

    assert [query.symbols for query in host.features.asked] == [(OTHER_SYMBOL,)]
    assert host.inference.asked[0].columns.symbols == (OTHER_SYMBOL,)


@pytest.mark.proves("R93")
async def test_a_model_that_was_switched_off_while_it_was_asked_is_not_used(
    host: PolicyHost, operator: DetentClient
) -> None:
    going = asyncio.Event()
    host.inference.behavior = waits_for(going, host)
    deciding = asyncio.create_task(sources(host, 0))
    while not host.inference.asked:  # noqa: ASYNC110  The bar is on its way.
        await asyncio.sleep(0.005)
    await operator.set_kill_switch(asked())
    going.set()

    assert await deciding == [KILLED, KILLED]


async def test_the_file_works_without_any_service_and_has_its_own_reason(
    host: PolicyHost, tmp_path: Path, operator: DetentClient
) -> None:
    (tmp_path / "kill").write_text(f"symbol:{SYMBOL}  # feed is odd\n")
    await asyncio.sleep(0.25)
    by_file = (SignalSource.PROXY, Reason.KILL_SWITCH_FILE)
    assert await sources(host, 0) == [by_file, MODEL]
    known = await operator.get_kill_switches()
    assert [(one.source, one.key) for one in known.local_kills] == [(KillSource.FILE, SYMBOL)]
    (tmp_path / "kill").write_text("what?")
    await asyncio.sleep(0.25)
    assert await sources(host, 1) == [by_file, by_file]
    (tmp_path / "kill").unlink()
    await asyncio.sleep(0.25)

    assert await sources(host, 2) == [MODEL, MODEL]


@pytest.mark.proves("R344")
async def test_switches_come_before_everything_else_in_their_order(
    tmp_path: Path, binding: ModelBinding
) -> None:
    """Each one in turn is the first that is shut; nobody behind a shut gate is asked."""
    env = {"is_on": True}
    shut = structs.replace(ACTIVE, kill_switch=True, infer_enabled=False)
    kills = switches(tmp_path)
    host = PolicyHost(
        tmp_path / "ledger.sqlite",
        binding,
        enablement=shut,
        kill_switch_env=lambda: env["is_on"],
        kills=kills,
    )
    (tmp_path / "kill").touch()
    async with host:
        await open_plan(host, PLAN, binding)
        reasons = [(await sources(host, 0))[0][1]]
        env["is_on"] = False
        reasons.append((await sources(host, 1))[0][1])
        structs.force_setattr(
            host.model_path, "enablement", structs.replace(shut, kill_switch=False)
        )
        reasons.append((await sources(host, 2))[0][1])
        (tmp_path / "kill").unlink()
        await asyncio.sleep(0.25)
        await until_read(kills)
        done = await kills.change(KillScope.GLOBAL, position=OFF, actor="ops", reason="drill")
        reasons.append((await sources(host, 3))[0][1])
        await kills.change(
            KillScope.GLOBAL,
            position=RELEASED,
            seen_epoch=done.kill_switch.epoch,
            actor="ops",
            reason="drill",
        )
        reasons.append((await sources(host, 4))[0][1])

        assert reasons == [
            Reason.KILL_SWITCH_ENV,
            Reason.KILL_SWITCH_CONFIG,
            Reason.KILL_SWITCH_FILE,
            Reason.KILL_SWITCH_STATE,
            Reason.INFER_DISABLED,
        ]
        assert (host.features.asked, host.inference.asked) == ([], [])


async def test_a_model_that_fails_again_and_again_is_latched_until_a_person_releases_it(
    host: PolicyHost, operator: DetentClient
) -> None:
    host.inference.behavior = raises(InternalError("broken"))
    for bar in range(3):
        await sources(host, bar)
    host.inference.behavior = host.inference.answers
    assert await sources(host, 3) == [KILLED, KILLED], "off here before it is off everywhere"
    async with asyncio.timeout(10.0):
        while not (known := await operator.get_kill_switches()).kill_switches:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    switch = known.kill_switches[0]

    assert (switch.scope, switch.key) == (KillScope.MODEL, "direction_test_v1.0.0")
    assert switch.actor == "automatic:failures"
    assert "3 failures" in switch.reason
    # A month of bars later it is as off as before.
    for bar in range(10, 720, 71):
        assert await sources(host, bar) == [KILLED, KILLED]
    await asyncio.sleep(0.3)
    release = asked(switch.scope, switch.key, epoch=switch.epoch)
    await operator.set_kill_switch(release)
    assert await sources(host, 800) == [MODEL, MODEL]


async def test_without_a_control_database_nothing_is_stale_and_nothing_can_be_set(
    tmp_path: Path, binding: ModelBinding
) -> None:
    options = ClientOptions(journal_file=tmp_path / "journal.jsonl", attempts_max=1)
    async with PolicyHost(tmp_path / "ledger.sqlite", binding) as host:
        await open_plan(host, PLAN, binding)
        async with DetentClient(structs.replace(options, policy_target=host.target)) as client:
            assert (await client.get_kill_switches()).shared_state is SharedKillState.NONE
            with pytest.raises(ServiceUnavailable, match="DETENT_POLICY_CONTROL_URL"):
                await client.set_kill_switch(asked())

        assert (await decide(host, row_of())).signal_source is SignalSource.MODEL
