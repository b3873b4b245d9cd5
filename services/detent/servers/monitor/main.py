"""Start the monitor process: settings, ledger, loop, metrics."""

import asyncio
import contextlib
import os
import socket
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import numpy as np
from opentelemetry.context import Context

from detent.adapters.artifact_store import read_manifest_folder
from detent.adapters.control_database import ControlDatabase
from detent.adapters.grpc_dependencies import GrpcOutcomes
from detent.adapters.kill_store import KillStore
from detent.adapters.leader_lease import LeaderLease
from detent.adapters.ledger_reading import open_reader
from detent.adapters.metrics import Metrics, MetricsServer
from detent.adapters.process_settings import ending, read_settings
from detent.adapters.rollout_reading import RolloutLedger
from detent.adapters.rollout_store import RolloutStore, wall_clock_ms
from detent.adapters.telemetry import Telemetry, set_up_logging
from detent.contracts.errors import DataInvalid
from detent.core.evaluation.distances import Floats
from detent.core.evaluation.monitoring import ModelReport
from detent.rpc.call import Call
from detent.rpc.channel import open_channel
from detent.rpc.serve import run_process, wait_for_stop
from detent.servers.monitor.gauges import MonitorGauges
from detent.servers.monitor.monitor import NOTHING, Monitor
from detent.servers.monitor.ports import Outcomes
from detent.servers.monitor.rollout_gauges import RolloutGauges
from detent.servers.monitor.rollouts import RolloutWatcher
from detent.servers.monitor.settings import MonitorSettings

NULL_RESAMPLES = 500
NULL_SEED = 0
RECORD_S = 10.0
# What monitors of one control database elect their leader for.
TASK = "rollouts"


def build(settings: MonitorSettings, outcomes: Outcomes | None = None) -> Monitor:
    """Compose a monitor that has read nothing yet.

    Raises:
        LedgerUnavailable: The ledger is no file of today's form.
        DataInvalid: The reference is not usable.
    """
    names: dict[str, tuple[str, ...]] = {}
    if settings.artifacts_dir is not None:
        folder = read_manifest_folder(settings.artifacts_dir, trust=settings.signature_trust)
        names = {key: one.feature_set.feature_names for key, one in folder.accepted.items()}
    reference = NOTHING
    if settings.reference_file is not None:
        widest = next(iter(names.values()), ())
        reference = read_reference(settings.reference_file, widest)
    return Monitor(
        open_reader(settings.ledger.get_secret_value()),
        rules=settings.rules,
        draws=null_draws,
        bars_max=settings.bars_max,
        outcomes=outcomes,
        calls=_new_call,
        feature_names=names,
        reference=reference,
    )


def null_draws(rows: int) -> Floats:
    """Draw for the null bands: the same for the same number of rows, check after check."""
    return np.random.default_rng(NULL_SEED).random((NULL_RESAMPLES, rows))


def read_reference(path: Path, names: tuple[str, ...]) -> Mapping[str, Floats]:
    """Read rows of the training, one column per feature, in the order of time.

    Raises:
        DataInvalid: It is no such file, or of another width.
    """
    try:
        matrix = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        cause = type(error).__name__
        raise DataInvalid(f"{path.name}: {cause}, expected a .npy file of rows") from error
    fits = names and matrix.ndim == 2 and matrix.shape[1] % len(names) == 0  # noqa: PLR2004
    if not fits or not np.isfinite(matrix).all():
        found = f"shape {matrix.shape}"
        raise DataInvalid(f"{path.name}: {found}, expected finite rows of {len(names)} features")
    # Of rows that span several bars the newest bar comes last.
    newest = matrix[:, -len(names) :].astype(np.float64)
    return {name: newest[:, place] for place, name in enumerate(names)}


def _new_call() -> Call:
    deadline_s = time.monotonic() + RECORD_S
    return Call(deadline_s=deadline_s, clock=time.monotonic, identity="", trace=Context())


@contextlib.asynccontextmanager
async def opened(settings: MonitorSettings) -> AsyncIterator[Monitor]:
    """Give a monitor that records outcomes where it is told to, and close what it used."""
    telemetry = Telemetry(
        "detent-monitor", otlp_endpoint=settings.otlp_endpoint, trace_file=settings.trace_file
    )
    channel = open_channel(settings.policy_target) if settings.policy_target else None
    outcomes = GrpcOutcomes(channel, telemetry.tracer) if channel is not None else None
    try:
        yield build(settings, outcomes)
    finally:
        if channel is not None:
            await channel.close()
        telemetry.close()


async def check_once(settings: MonitorSettings) -> tuple[list[ModelReport], int]:
    """Make one check; gives the reports and how many outcomes were new on the record."""
    async with opened(settings) as monitor:
        reports = await monitor.check()
        return reports, monitor.recorded_count


async def run(settings: MonitorSettings) -> None:
    """Check until the process is asked to stop."""
    async with opened(settings) as monitor:
        await _serve(monitor, settings)


def build_watcher(settings: MonitorSettings) -> RolloutWatcher | None:
    """Compose what watches the rollouts; None where no control database is named.

    Raises:
        LedgerUnavailable: The ledger is no file of today's form.
        InvalidField: The control database is of no kind we know.
    """
    if settings.control_url is None:
        return None
    database = ControlDatabase(settings.control_url.get_secret_value())
    # A process that starts again is another holder: what it led before is over.
    holder = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    return RolloutWatcher(
        RolloutLedger(open_reader(settings.ledger.get_secret_value())),
        RolloutStore(database),
        KillStore(database),
        LeaderLease(database, name=TASK, holder=holder, lease_s=settings.lease_s),
        rules=settings.watch_rules,
        now_ms=wall_clock_ms,
    )


async def _serve(monitor: Monitor, settings: MonitorSettings) -> None:
    metrics = Metrics()
    watcher = build_watcher(settings)

    def is_ready() -> bool:
        return monitor.is_current and (watcher is None or watcher.is_current)

    server = MetricsServer(metrics, listen=settings.listen, is_ready=is_ready)
    tasks = [
        asyncio.create_task(monitor.run(MonitorGauges(metrics), wall_clock_ms)),
        asyncio.create_task(wait_for_stop()),
    ]
    if watcher is not None:
        tasks.append(asyncio.create_task(watcher.run(RolloutGauges(metrics))))
    # A defect of a check ends the process: whoever supervises it starts another one.
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    for task in tasks:
        with contextlib.suppress(asyncio.CancelledError):
            await task
    server.close()


def main() -> None:
    """Read the environment and check."""
    with ending():
        settings = read_settings(MonitorSettings)
        set_up_logging(settings.log_level)
        run_process(run(settings))


if __name__ == "__main__":
    main()
