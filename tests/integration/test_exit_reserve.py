"""Proves that a full disk lets exits out, and nothing else, from space that was held back."""

import contextlib
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from opentelemetry.context import Context
from tests.builders import HOUR_MS, OTHER_SYMBOL, START_MS, SYMBOL, plan_of, row_of
from tests.fakes import PolicyHost, remote
from tests.integration.ledger_audit import assert_chains_whole, read_records

from detent.adapters.disk_reserve import DiskReserve
from detent.contracts.binding import PROXY_BINDING, PROXY_BINDING_HASH, ModelBinding
from detent.contracts.calls.policy import (
    DecideTargetWeightsRequest,
    DecideTargetWeightsResponse,
)
from detent.contracts.decision import DecisionKind, DecisionRow
from detent.contracts.errors import LedgerUnavailable
from detent.contracts.plan import TriggerState
from detent.contracts.reasons import ErrorReason, Reason
from detent_client import ClientOptions, DetentClient

DISK_BYTES = 8 * 2**20
RESERVE_BYTES = 2 * 2**20
RECOVERED_S_MAX = 5.0


@pytest.fixture(name="disk")
def _disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path) as disk:
        yield disk


@contextlib.contextmanager
def small_disk(parent: Path) -> Iterator[Path]:
    """Give a small file system of the test's own."""
    folder = parent / "disk"
    folder.mkdir()
    options = f"size={DISK_BYTES}"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture(name="small_host")
async def _small_host(disk: Path, binding: ModelBinding) -> AsyncIterator[PolicyHost]:
    async with PolicyHost(disk / "ledger.sqlite", binding, reserve_bytes=RESERVE_BYTES) as host:
        yield host


@pytest.fixture(name="small_client")
async def _small_client(small_host: PolicyHost, tmp_path: Path) -> AsyncIterator[DetentClient]:
    options = ClientOptions(
        journal_file=tmp_path / "journal.jsonl", policy_target=small_host.target, deadline_s=5.0
    )
    async with DetentClient(options) as client:
        yield client


def fill(disk: Path) -> Path:
    """Take every byte that is left."""
    path = disk / "filler"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    with path.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0")
    return path


def rows_at(state: TriggerState) -> tuple[DecisionRow, ...]:
    """Ask for an exit of one symbol, and an entry of another."""
    return (
        row_of(SYMBOL, weight_ppm=100_000, trigger_state=state),
        row_of(OTHER_SYMBOL, weight_ppm=0),
    )


async def decide(
    host: PolicyHost, bar: int, rows: tuple[DecisionRow, ...]
) -> DecideTargetWeightsResponse:
    query = DecideTargetWeightsRequest(
        binding_hash=PROXY_BINDING_HASH,
        plan_id="plan",
        ts_ms=START_MS + bar * HOUR_MS,
        kind=DecisionKind.BAR,
        rows=rows,
    )
    async with remote(host.target, "PolicyService") as policy:
        return await policy.call(query, DecideTargetWeightsResponse, timeout_s=5.0, trace=Context())


async def exhausted(host: PolicyHost, client: DetentClient, disk: Path) -> tuple[Path, int]:
    """Fill the disk until an entry is refused; give the filler and the next bar."""
    await client.open_plan(plan_of("plan", (SYMBOL, OTHER_SYMBOL)), PROXY_BINDING)
    await decide(host, 0, rows_at(TriggerState.LONG_ALLOWED))
    filler = fill(disk)
    for bar in range(1, 200):
        try:
            await decide(host, bar, (row_of(SYMBOL), row_of(OTHER_SYMBOL)))
        except LedgerUnavailable:
            return filler, bar
    raise AssertionError("the disk never filled up")


async def test_a_full_disk_records_exits_and_refuses_entries(
    small_host: PolicyHost, small_client: DetentClient, disk: Path
) -> None:
    filler, bar = await exhausted(small_host, small_client, disk)
    before = len(read_records(small_host.ledger_file))

    for later in range(bar, bar + 40):
        answer = await decide(small_host, later, rows_at(TriggerState.INACTIVE))
        exited, entered = answer.results
        assert exited.decision is not None
        assert exited.decision.target_weight_final_ppm == 0
        assert exited.decision.record_hash
        assert entered.decision is None
        assert entered.refusal is not None
        assert entered.refusal.reason is ErrorReason.LEDGER_UNAVAILABLE
        with pytest.raises(LedgerUnavailable):
            await decide(small_host, later, (row_of(OTHER_SYMBOL),))
    records = read_records(small_host.ledger_file)
    assert len(records) == before + 40
    assert_chains_whole(records)

    filler.unlink()
    freed_s = time.monotonic()
    await decide(small_host, bar + 41, rows_at(TriggerState.LONG_ALLOWED))
    assert time.monotonic() - freed_s < RECOVERED_S_MAX
    assert (disk / "ledger.sqlite.reserve").stat().st_blocks * 512 >= RESERVE_BYTES
    assert_chains_whole(read_records(small_host.ledger_file))


async def test_a_row_that_is_refused_keeps_no_exit_of_its_call_in(
    small_host: PolicyHost, small_client: DetentClient, disk: Path
) -> None:
    """The refusal cannot be noted where nothing can be: it stands, and the exit leaves."""
    _, bar = await exhausted(small_host, small_client, disk)
    leaving = row_of(SYMBOL, weight_ppm=100_000, trigger_state=TriggerState.INACTIVE)
    rows = (leaving, row_of("STRANGER"))

    for _ in range(2):
        exited, refused = (await decide(small_host, bar, rows)).results
        assert exited.decision is not None
        assert exited.decision.target_weight_final_ppm == 0
        assert refused.refusal is not None
        assert refused.refusal.reason is ErrorReason.SYMBOL_NOT_IN_PLAN


async def test_a_client_answers_by_itself_what_could_not_be_recorded(
    small_host: PolicyHost, small_client: DetentClient, disk: Path
) -> None:
    opened = await small_client.open_plan(plan_of("plan", (SYMBOL, OTHER_SYMBOL)), PROXY_BINDING)
    _, bar = await exhausted(small_host, small_client, disk)

    exited, entered = await small_client.decide_many(
        opened, ts_ms=START_MS + bar * HOUR_MS, rows=rows_at(TriggerState.INACTIVE)
    )

    assert exited.decision is not None
    assert entered.decision is not None
    assert exited.decision.record_hash
    assert entered.decision.fallback_reason is Reason.CLIENT_NO_SERVICE
    assert entered.decision.target_weight_final_ppm == 0
    assert small_client.unreported_count == 1


async def test_without_a_reserve_the_same_exit_is_refused(
    disk: Path, binding: ModelBinding, tmp_path: Path
) -> None:
    """The control: were the exit recorded anyway, the reserve would prove nothing."""
    async with PolicyHost(disk / "ledger.sqlite", binding) as host:
        options = ClientOptions(
            journal_file=tmp_path / "journal.jsonl", policy_target=host.target, deadline_s=5.0
        )
        async with DetentClient(options) as client:
            _, bar = await exhausted(host, client, disk)
            refused = 0
            for later in range(bar, bar + 40):
                try:
                    await decide(host, later, rows_at(TriggerState.INACTIVE))
                except LedgerUnavailable:
                    refused += 1
    assert refused > 0


def test_a_reserve_is_real_blocks_and_given_back(tmp_path: Path) -> None:
    reserve = DiskReserve(tmp_path / "held", 1 << 20)

    assert reserve.hold()
    assert (tmp_path / "held").stat().st_blocks * 512 >= 1 << 20
    assert reserve.release()
    assert not (tmp_path / "held").exists()
    assert not reserve.release()
