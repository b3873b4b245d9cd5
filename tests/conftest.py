"""Shares what is dear: one artifact a run, and one stack of real processes a worker."""

import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings
from tests.airgap import stay_on_the_machine
from tests.builders import (
    HORIZON,
    HOUR_MS,
    OTHER_SYMBOL,
    SYMBOL,
    bar_series,
    model_binding,
)
from tests.fakes import PolicyHost
from tests.postgres_server import PostgresServer, postgres_server
from tests.strategist import Bars, feed

from detent.contracts.binding import ModelBinding
from detent_cli.stack import Stack, StackOptions, free_port
from detent_client import ClientOptions, DetentClient, read_binding

# What runs here reaches nothing but this machine, and nobody finds out by a slow test.
stay_on_the_machine()

# The same examples on every run, however busy the machine is.
settings.register_profile("detent", deadline=None, derandomize=True)
settings.load_profile("detent")

BARS = 420
# The client's patience in tests: a busy machine must not look like a dead service.
PATIENCE_S = 5.0
# Likewise for inference: what its budget of 10 ms does has tests of its own.
PATIENT = {"DETENT_INFERENCE_MAX_INFERENCE_LATENCY_MS": "2000"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifacts:
    """Holds two artifacts of one line and the bars that they were trained on.

    Attributes:
        stable: Directory of the artifact that the stack serves.
        candidate: Directory of another, beside it.
        bars: Bars by symbol.
    """

    stable: Path
    candidate: Path
    bars: Bars

    @property
    def stable_binding(self) -> ModelBinding:
        return read_binding(self.stable)

    @property
    def candidate_binding(self) -> ModelBinding:
        return read_binding(self.candidate)


@pytest.fixture(name="bars", scope="session")
def _bars() -> Bars:
    return {
        SYMBOL: bar_series(SYMBOL, seed=1, count=BARS),
        OTHER_SYMBOL: bar_series(OTHER_SYMBOL, seed=2, count=BARS),
    }


@pytest.fixture(name="artifacts", scope="session")
def _artifacts(tmp_path_factory: pytest.TempPathFactory, bars: Bars) -> Artifacts:
    """Build once, whichever worker comes first; the others wait and read."""
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = root / "artifacts"
    with (root / "artifacts.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _build(bars, folder)
    return Artifacts(
        stable=folder / "direction_test_v1.0.0",
        candidate=folder / "direction_test_v1.1.0",
        bars=bars,
    )


def _build(bars: Bars, folder: Path) -> None:
    from detent.core.features.feature_set import direction_bars_v1
    from detent.offline.bars import BarTable
    from detent.offline.building import Recipe, build_direction_artifact

    table = BarTable(
        bars={symbol: tuple(series) for symbol, series in bars.items()},
        interval_ms=HOUR_MS,
        gaps=(),
        data_hash="9" * 64,
    )
    for version in ("v1.0.0", "v1.1.0"):
        recipe = Recipe(
            model_name="direction_test",
            model_version=version,
            horizon_bars=4,
            horizon_id=HORIZON,
            created_at="2024-01-15T10:30:00Z",
            feature_set=direction_bars_v1(HOUR_MS),
        )
        build_direction_artifact(
            table, recipe, out_dir=folder, progress=lambda _stage, _done, _all: None
        )


@pytest.fixture(name="running_stack", scope="session")
def _running_stack(
    artifacts: Artifacts, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    options = StackOptions(
        artifact_dir=artifacts.stable,
        state_dir=tmp_path_factory.mktemp("stack"),
        environment=PATIENT | {"DETENT_POLICY_METRICS_LISTEN": f"127.0.0.1:{free_port()}"},
    )
    with Stack(options) as stack:
        yield stack


@pytest.fixture(name="stack")
def _stack(running_stack: Stack) -> Iterator[Stack]:
    """Give the worker's stack with all of its processes up, whatever the last test did."""
    yield running_stack
    for name in running_stack.names:
        if not running_stack.is_running(name):
            running_stack.start(name, wait=False)
    for name in running_stack.names:
        running_stack.wait_ready(name)


@pytest.fixture(name="client")
async def _client(stack: Stack, bars: Bars, tmp_path: Path) -> AsyncIterator[DetentClient]:
    """Give a client of the worker's stack, whose feature service has every bar."""
    async with client_of(stack, tmp_path / "journal.jsonl") as client:
        await feed(client, bars)
        yield client


def client_of(stack: Stack, journal_file: Path) -> DetentClient:
    """Give a client of a stack."""
    return DetentClient(
        ClientOptions(
            journal_file=journal_file,
            policy_target=stack.targets["policy"],
            feature_target=stack.targets["feature"],
            deadline_s=PATIENCE_S,
        )
    )


@pytest.fixture(name="postgres", scope="session")
def _postgres() -> Iterator[PostgresServer]:
    """Give the worker's PostgreSQL; a test that mistreats one starts its own."""
    with postgres_server() as server:
        yield server


@pytest.fixture(name="ledger_url")
def _ledger_url(postgres: PostgresServer) -> str:
    """Give a database of the test's own, in the form of today, as its owner sees it."""
    from detent.adapters.ledger_migrating import migrate_postgresql

    url = postgres.url(postgres.fresh_database())
    migrate_postgresql(url)
    return url


@pytest.fixture(name="binding")
def _binding() -> ModelBinding:
    """Give the binding of an artifact that only the fakes know."""
    return model_binding()


@pytest.fixture(name="host")
async def _host(tmp_path: Path, binding: ModelBinding) -> AsyncIterator[PolicyHost]:
    """Serve policy in this process, over gRPC, with fakes behind it."""
    async with PolicyHost(tmp_path / "ledger.sqlite", binding) as host:
        yield host


@pytest.fixture(name="host_client")
async def _host_client(host: PolicyHost, tmp_path: Path) -> AsyncIterator[DetentClient]:
    options = ClientOptions(
        journal_file=tmp_path / "journal.jsonl",
        policy_target=host.target,
        deadline_s=PATIENCE_S,
    )
    async with DetentClient(options) as client:
        yield client
