"""Proves that an answered decision is in the ledger once, however often policy is killed."""

import asyncio
import contextlib
import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.context import Context
from tests.builders import HOUR_MS, START_MS, plan_of, row_of
from tests.fakes import remote
from tests.integration.ledger_audit import assert_chains_whole, read_records

from detent.adapters.ledger_anchors import AnchorFile, AnchorKey, make_key, trusted_anchors
from detent.adapters.ledger_auditing import audit
from detent.adapters.ledger_reading import PostgresReader, SqliteReader
from detent.adapters.ledger_shipping import LedgerShipper, ShippingOptions
from detent.contracts.binding import PROXY_BINDING, PROXY_BINDING_HASH
from detent.contracts.calls.policy import (
    DecideTargetWeightsRequest,
    DecideTargetWeightsResponse,
    OpenPlanRequest,
    OpenPlanResponse,
)
from detent.contracts.decision import DecisionKind
from detent.contracts.errors import DeadlineExceeded, PlanNotFound, ServiceUnavailable
from detent.rpc.channel import RemoteService
from detent_cli.stack import free_port

ROOT = Path(__file__).parents[2]
STREAMS = 6
# A policy that never comes back must fail the test, not hang it.
PATIENCE_S = 60.0


@dataclasses.dataclass(slots=True)
class Policy:
    """Owns the forker and the process that it forked last."""

    target: str
    forker: subprocess.Popen[str]
    pid: int = 0

    def start(self) -> None:
        assert self.forker.stdin is not None
        assert self.forker.stdout is not None
        self.forker.stdin.write("\n")
        self.forker.stdin.flush()
        self.pid = int(self.forker.stdout.readline())

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Kill the process, or ask it to end, and wait until it and its port are gone."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
        while self.is_running():
            time.sleep(0.001)

    def is_running(self) -> bool:
        # The forker does not wait for its children, so nothing stays behind of a dead one.
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def revive(self) -> None:
        """Start again what ended by itself, as a supervisor would: its port may be in use."""
        if not self.is_running():
            self.start()


@contextlib.contextmanager
def policy_process(folder: Path, durability: str, **variables: str) -> Iterator[Policy]:
    """Start a policy process that can be killed and started again in no time."""
    target = f"127.0.0.1:{free_port()}"
    (folder / "artifacts").mkdir()
    environment = {
        "DETENT_POLICY_LISTEN": target,
        "DETENT_POLICY_ARTIFACTS_DIR": str(folder / "artifacts"),
        "DETENT_POLICY_LEDGER_FILE": str(folder / "ledger.sqlite"),
        "DETENT_POLICY_LEDGER_DURABILITY": durability,
        "DETENT_POLICY_LOG_LEVEL": "WARNING",
        **variables,
    }
    with (folder / "policy.log").open("w") as log:
        forker = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.policy_forker"],
            cwd=ROOT,
            env=os.environ | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    policy = Policy(target=target, forker=forker)
    policy.start()
    try:
        yield policy
    finally:
        policy.kill()
        assert forker.stdin is not None
        forker.stdin.close()
        forker.wait(10)
        assert forker.stdout is not None
        forker.stdout.close()


class Tally:
    """Counts answers, and lets somebody wait for more of them."""

    def __init__(self) -> None:
        self.count = 0
        self._moved = asyncio.Event()

    def add(self) -> None:
        self.count += 1
        self._moved.set()

    async def until(self, count: int, policy: Policy) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while self.count < count:
                self._moved.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._moved.wait(), 0.5)
                policy.revive()


@dataclasses.dataclass(slots=True)
class Stream:
    """Asks one plan for bar after bar, and remembers what was answered."""

    service: RemoteService
    plan_id: str
    tally: Tally
    answered: dict[int, str] = dataclasses.field(default_factory=dict)
    changed: list[int] = dataclasses.field(default_factory=list)

    async def run(self, stop: asyncio.Event) -> None:
        index = 0
        while not stop.is_set():
            ts_ms = START_MS + index * HOUR_MS
            record_hash = await self.asked(ts_ms)
            if record_hash is None:
                # Nobody knows whether it was decided, so the same bar is asked again.
                await asyncio.sleep(0.002)
                continue
            if self.answered.setdefault(ts_ms, record_hash) != record_hash:
                self.changed.append(ts_ms)
            self.tally.add()
            index += 1

    async def asked(self, ts_ms: int) -> str | None:
        query = DecideTargetWeightsRequest(
            binding_hash=PROXY_BINDING_HASH,
            plan_id=self.plan_id,
            ts_ms=ts_ms,
            kind=DecisionKind.BAR,
            rows=(row_of(close=str(100 + ts_ms // HOUR_MS % 13)),),
        )
        try:
            answer = await self.service.call(
                query, DecideTargetWeightsResponse, timeout_s=2.0, trace=Context()
            )
        except PlanNotFound:
            await self.open()
            return None
        except (ServiceUnavailable, DeadlineExceeded):
            return None
        decision = answer.results[0].decision
        assert decision is not None, answer
        return decision.record_hash

    async def open(self) -> None:
        query = OpenPlanRequest(
            binding_hash=PROXY_BINDING_HASH,
            plan=plan_of(self.plan_id),
            model_binding=PROXY_BINDING,
        )
        try:
            await self.service.call(query, OpenPlanResponse, timeout_s=2.0, trace=Context())
        except (ServiceUnavailable, DeadlineExceeded):
            return


async def streams_under_kills(
    folder: Path, durability: str, *, kills: int, **variables: str
) -> list[Stream]:
    """Kill policy at random moments while plans are being decided; give what was answered."""
    chance = random.Random(kills)
    with policy_process(folder, durability, **variables) as policy:
        async with remote(policy.target, "PolicyService") as service:
            tally = Tally()
            streams = [Stream(service, f"plan-{number}", tally) for number in range(STREAMS)]
            stop = asyncio.Event()
            running = [asyncio.create_task(stream.run(stop)) for stream in streams]
            for _ in range(kills):
                await tally.until(tally.count + 1, policy)
                await asyncio.sleep(chance.uniform(0.0, 0.08))
                policy.kill()
                policy.start()
            await tally.until(tally.count + STREAMS, policy)
            stop.set()
            await asyncio.gather(*running)
    return streams


def lost(streams: list[Stream], folder: Path) -> int:
    """Count answers whose record is not in the file under its key."""
    kept = {
        (row["plan_id"], row["ts_ms"]): row["record_hash"]
        for row in read_records(folder / "ledger.sqlite")
    }
    return sum(
        kept.get((stream.plan_id, ts_ms)) != record_hash
        for stream in streams
        for ts_ms, record_hash in stream.answered.items()
    )


@pytest.mark.proves("R247")
async def test_fifty_kills_under_load_lose_and_double_no_answered_decision(
    tmp_path: Path,
) -> None:
    await assert_nothing_lost(tmp_path, kills=50)


@pytest.mark.long
async def test_a_thousand_kills_under_load_lose_and_double_no_answered_decision(
    tmp_path: Path,
) -> None:
    await assert_nothing_lost(tmp_path, kills=1_000)


async def test_twenty_kills_leave_postgresql_complete(tmp_path: Path, ledger_url: str) -> None:
    await assert_shipped(tmp_path, ledger_url, kills=20)


@pytest.mark.long
async def test_a_thousand_kills_leave_postgresql_complete(tmp_path: Path, ledger_url: str) -> None:
    await assert_shipped(tmp_path, ledger_url, kills=1_000)


async def assert_shipped(folder: Path, url: str, *, kills: int) -> None:
    """Kill policy while it ships and anchors; what it left is drained by the next one."""
    make_key(folder / "anchors.pem")
    await assert_nothing_lost(
        folder,
        kills=kills,
        DETENT_POLICY_LEDGER_DATABASE_URL=url,
        DETENT_POLICY_ANCHOR_FILE=str(folder / "anchors.jsonl"),
        DETENT_POLICY_ANCHOR_KEY_FILE=str(folder / "anchors.pem"),
        DETENT_POLICY_ANCHOR_INTERVAL_S="0.05",
    )
    path = folder / "ledger.sqlite"
    shipper = LedgerShipper(path, ShippingOptions(url=url))
    shipper.start()
    while not shipper.state.is_connected:  # noqa: ASYNC110  A thread cannot set an event of ours.
        await asyncio.sleep(0.01)

    assert await asyncio.to_thread(shipper.stop, PATIENCE_S)
    assert shipper.state.conflict_count == 0
    anchored = trusted_anchors(
        AnchorFile(folder / "anchors.jsonl").read(), AnchorKey.read(folder / "anchors.pem")
    )
    records = len(read_records(path))
    for reader in (SqliteReader(path), PostgresReader(url)):
        found = audit(reader, [anchored])
        assert (found.chains.record_count, found.is_whole) == (records, True), found
        assert found.anchor_count > 0


async def assert_nothing_lost(folder: Path, *, kills: int, **variables: str) -> None:
    streams = await streams_under_kills(folder, "full", kills=kills, **variables)

    assert sum(len(stream.answered) for stream in streams) >= kills
    assert lost(streams, folder) == 0
    assert [stream.changed for stream in streams] == [[]] * STREAMS
    records = read_records(folder / "ledger.sqlite")
    assert_chains_whole(records)
    # Every chain goes on over the restarts: bar after bar, with none left out.
    for stream in streams:
        bars = [row["ts_ms"] for row in records if row["plan_id"] == stream.plan_id]
        assert bars == [START_MS + index * HOUR_MS for index in range(len(bars))]


async def test_without_durability_the_same_kills_do_lose_answered_decisions(
    tmp_path: Path,
) -> None:
    """The control: were nothing lost here, the test above would prove nothing."""
    streams = await streams_under_kills(tmp_path, "unsafe_memory", kills=3)

    assert lost(streams, tmp_path) > 0
