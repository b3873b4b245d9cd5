"""Proves that each plan has one owner among the replicas, and that a client finds it."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from msgspec import structs
from opentelemetry.context import Context
from tests.builders import HOUR_MS, START_MS, plan_of, row_of
from tests.fakes import remote
from tests.integration.ledger_audit import assert_chains_whole, read_records
from tests.integration.test_ledger_durability import Policy, policy_process

from detent.adapters.ledger_auditing import audit
from detent.adapters.ledger_reading import PostgresReader
from detent.contracts.binding import PROXY_BINDING, PROXY_BINDING_HASH
from detent.contracts.calls.policy import OpenPlanRequest, OpenPlanResponse
from detent.contracts.decision import Decision
from detent.contracts.errors import InvalidField, NotOwner, PlanOwnerMismatch
from detent.contracts.plan import RiskLimits
from detent.core.ledger.ownership import Ownership, fitting_plan_id, owner_of
from detent_cli.stack import free_port
from detent_client import ClientOptions, DetentClient, OpenedPlan

REPLICAS = 3
PLANS = tuple(f"plan-{number}" for number in range(9))

# SHA-256 of the name modulo 3: another owner after an upgrade would be a second chain.
PINNED = [2, 0, 2, 2, 1, 0]


class Fleet:
    """Holds the replicas with their addresses and their files."""

    def __init__(self, folder: Path, stack: ExitStack, url: str) -> None:
        self.targets = [f"127.0.0.1:{free_port()}" for _ in range(REPLICAS)]
        self.files = [folder / str(index) / "ledger.sqlite" for index in range(REPLICAS)]
        self.policies: list[Policy] = []
        listed = ",".join(f'"{target}"' for target in self.targets)
        for index, target in enumerate(self.targets):
            (folder / str(index)).mkdir()
            variables = {
                "DETENT_POLICY_LISTEN": target,
                "DETENT_POLICY_REPLICA_INDEX": str(index),
                "DETENT_POLICY_REPLICA_COUNT": str(REPLICAS),
                "DETENT_POLICY_REPLICA_TARGETS": f"[{listed}]",
                "DETENT_POLICY_LEDGER_DATABASE_URL": url,
            }
            process = policy_process(folder / str(index), "full", **variables)
            self.policies.append(stack.enter_context(process))

    def client(self, index: int, journal_file: Path) -> DetentClient:
        options = ClientOptions(
            journal_file=journal_file,
            policy_target=self.targets[index],
            deadline_s=5.0,
            attempts_max=50,
        )
        return DetentClient(options)


@pytest.fixture(name="fleet")
def _fleet(tmp_path: Path, ledger_url: str) -> Iterator[Fleet]:
    with ExitStack() as stack:
        yield Fleet(tmp_path, stack, ledger_url)


async def open_all(client: DetentClient) -> list[OpenedPlan]:
    plans = [plan_of(name) for name in PLANS]
    return [await client.open_plan(plan, PROXY_BINDING) for plan in plans]


async def until_serving(fleet: Fleet, journal_file: Path) -> None:
    async with asyncio.timeout(20.0):
        for index in range(REPLICAS):
            while True:
                try:
                    async with fleet.client(index, journal_file) as client:
                        await client.verify_ledger()
                    break
                except Exception:  # noqa: BLE001  Not yet.
                    await asyncio.sleep(0.05)


async def test_a_client_is_sent_on_to_the_owner_once(fleet: Fleet, tmp_path: Path) -> None:
    journal_file = tmp_path / "journal.jsonl"
    await until_serving(fleet, journal_file)
    async with fleet.client(0, journal_file) as client:
        for opened in await open_all(client):
            decision = await client.decide(opened, ts_ms=START_MS, row=row_of())
            assert decision.record_hash
    async with fleet.client(0, journal_file) as client, client.stream_decisions() as stream:
        # Of a replica that owns a part of them: what is under way of a plan goes on as one.
        for bar in range(1, 9):
            for plan in PLANS:
                opened = OpenedPlan(plan=plan_of(plan), binding_hash=PROXY_BINDING_HASH)
                await stream.ask(opened, ts_ms=START_MS + bar * HOUR_MS, rows=(row_of(),))
        stream.end()
        streamed = [answer async for answer in stream]
    for plan in PLANS:
        answers = [answer for answer in streamed if answer.plan_id == plan]
        assert [one.ts_ms for one in answers] == [START_MS + bar * HOUR_MS for bar in range(1, 9)]
        decided = [result.decision for answer in answers for result in answer.results]
        assert all(decision and decision.record_hash for decision in decided)
        assert not any(answer.error for answer in answers)

    for index, path in enumerate(fleet.files):
        assert owned_by(index)
        assert {row["plan_id"] for row in read_records(path)} == owned_by(index)


async def test_another_replica_names_the_owner(fleet: Fleet, tmp_path: Path) -> None:
    await until_serving(fleet, tmp_path / "journal.jsonl")
    owner = owner_of("plan", REPLICAS)
    query = OpenPlanRequest(
        binding_hash=PROXY_BINDING_HASH, plan=plan_of("plan"), model_binding=PROXY_BINDING
    )
    async with remote(fleet.targets[(owner + 1) % REPLICAS], "PolicyService") as policy:
        with pytest.raises(NotOwner) as refused:
            await policy.call(query, OpenPlanResponse, timeout_s=5.0, trace=Context())

    assert refused.value.metadata == {
        "plan_id": "plan",
        "owner": str(owner),
        "owner_target": fleet.targets[owner],
    }


async def test_a_plan_is_replaced_by_its_owner_under_a_name_that_fits(
    fleet: Fleet, tmp_path: Path
) -> None:
    """Whichever replica is asked first, of either plan; a name that does not fit is refused."""
    journal_file = tmp_path / "journal.jsonl"
    await until_serving(fleet, journal_file)
    owner = owner_of("plan", REPLICAS)
    foreign = next(f"n{i}" for i in range(99) if owner_of(f"n{i}", REPLICAS) == (owner + 1) % 3)
    tighter = RiskLimits(max_weight_ppm=10_000)
    wanted = plan_of("plan", risk_limits=tighter)
    async with fleet.client((owner + 1) % REPLICAS, journal_file) as client:
        opened = await client.open_plan(plan_of("plan"), PROXY_BINDING)
        new = structs.replace(wanted, plan_id=foreign)
        with pytest.raises(PlanOwnerMismatch) as refused:
            await client.replace_plan(opened, new, PROXY_BINDING, ts_ms=START_MS)
        facts = refused.value.metadata
        fitting = fitting_plan_id(
            foreign, owner=int(facts["owner"]), replica_count=int(facts["replica_count"])
        )
        new = structs.replace(wanted, plan_id=fitting)
        answer = await client.replace_plan(opened, new, PROXY_BINDING, ts_ms=START_MS)
        decision = await client.decide(answer.opened, ts_ms=START_MS, row=row_of())

    assert decision.record_hash
    assert {row["plan_id"] for row in read_records(fleet.files[owner])} == {fitting}


def owned_by(index: int) -> set[str]:
    return {name for name in PLANS if owner_of(name, REPLICAS) == index}


def note(answered: dict[tuple[str, int], str], plan_id: str, decision: Decision | None) -> None:
    """Keep an answer of the service's; one bar has one, whoever asked."""
    assert decision is not None
    if decision.record_hash:
        key = (plan_id, decision.ts_ms)
        assert answered.setdefault(key, decision.record_hash) == decision.record_hash


async def assert_one_chain_each(fleet: Fleet, folder: Path, url: str, *, rounds: int) -> None:
    """Restart one replica and kill another in every round, while bars are being decided.

    Every bar is asked twice, by a call and over a stream, of whichever replica is there.
    """
    journal_file = folder / "journal.jsonl"
    await until_serving(fleet, journal_file)
    answered: dict[tuple[str, int], str] = {}
    async with (
        fleet.client(0, journal_file) as client,
        fleet.client(1, folder / "streamed.jsonl") as other,
        other.stream_decisions() as stream,
    ):
        opened = await open_all(client)
        for bar in range(rounds):
            ts_ms = START_MS + bar * HOUR_MS
            asked = [client.decide(plan, ts_ms=ts_ms, row=row_of()) for plan in opened]
            deciding = asyncio.gather(*asked)
            for plan in opened:
                await stream.ask(plan, ts_ms=ts_ms, rows=(row_of(),))
            for index, number in ((1, signal.SIGTERM), (2, signal.SIGKILL)):
                await asyncio.to_thread(fleet.policies[index].kill, number)
                fleet.policies[index].start()
            decisions = dict(zip(PLANS, await deciding, strict=True))
            for _ in PLANS:
                answer = await anext(stream)
                assert answer.error is None, answer.error
                note(answered, answer.plan_id, answer.results[0].decision)
            for plan_id, decision in decisions.items():
                note(answered, plan_id, decision)
            await until_serving(fleet, journal_file)
    kept: dict[tuple[str, int], str] = {}
    for index, path in enumerate(fleet.files):
        records = read_records(path)
        assert_chains_whole(records)
        assert {row["plan_id"] for row in records} == owned_by(index)
        for row in records:
            assert (row["plan_id"], row["ts_ms"]) not in kept, "a second decision"
            kept[row["plan_id"], row["ts_ms"]] = row["record_hash"]
    assert answered.items() <= kept.items()
    assert len(answered) >= rounds
    await _arrived(url, len(kept))
    found = audit(PostgresReader(url), [])
    assert (found.chains.record_count, found.is_whole) == (len(kept), True)


async def _arrived(url: str, count: int) -> None:
    async with asyncio.timeout(30.0):
        while True:
            with psycopg.connect(url) as link:
                found = link.execute("SELECT COUNT(*) FROM decision_records").fetchone()
            if found == (count,):
                return
            await asyncio.sleep(0.1)


async def test_replicas_that_come_and_go_make_no_second_chain(
    fleet: Fleet, tmp_path: Path, ledger_url: str
) -> None:
    await assert_one_chain_each(fleet, tmp_path, ledger_url, rounds=5)


@pytest.mark.long
async def test_replicas_that_come_and_go_a_hundred_times_make_no_second_chain(
    fleet: Fleet, tmp_path: Path, ledger_url: str
) -> None:
    await assert_one_chain_each(fleet, tmp_path, ledger_url, rounds=100)


def test_a_place_that_there_is_not_is_refused() -> None:
    for wrong in (
        {"replica_index": 1},
        {"replica_count": 0},
        {"replica_count": 2},
        {"replica_count": 2, "replica_targets": ("a:1",)},
        {"replica_index": -1, "replica_count": 2, "replica_targets": ("a:1", "b:1")},
    ):
        with pytest.raises(InvalidField):
            Ownership(**wrong)  # type: ignore[arg-type]


def test_the_owner_of_a_plan_never_changes() -> None:
    assert [owner_of(f"plan-{number}", 3) for number in range(6)] == PINNED
    spread = [owner_of(f"plan {number}", 8) for number in range(8_000)]
    assert all(850 < spread.count(index) < 1_150 for index in range(8))
