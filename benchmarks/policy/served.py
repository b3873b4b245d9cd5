"""Measure decisions through all processes, beside a bare echo and a bare insert of their bytes.

What is driven is the benchmark of `benchmarks.decide`, three processes over the wire, without
spans; here the bare inserts take turns with the calls, so that one ratio is of one moment.
"""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

from benchmarks.decide.commit import measure_commits, read_records
from benchmarks.decide.echo import running_echo
from benchmarks.decide.market import build_bench_artifact
from benchmarks.decide.run import WARM_BARS, Composition, RunResult, measure
from benchmarks.decide.timing import Timing, timing_of

BATCH_ROWS = 1_000
COMMITS_PER_ROUND = 3


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what decisions through all processes cost.

    Attributes:
        run: Calls of 1, 64 and 1,000 rows, each with the echo of its sizes.
        insert: One durable insert of the text of 1,000 of its records, and nothing else.
    """

    run: RunResult
    insert: Timing

    @property
    def decision_over_echo(self) -> float:
        """Compare one decision with a bare echo of its sizes (T5)."""
        one = self.run.batch(1)
        return one.call.p50_us / one.echo.p50_us

    @property
    def batch_over_insert(self) -> float:
        """Compare a batch with the bare insert of what it records (T6)."""
        return self.run.batch(BATCH_ROWS).call.p50_us / self.insert.p50_us


class _Inserts:
    """Inserts what was recorded once more, after each round that counts."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._rounds = 0
        self._records: list[tuple[str, str]] = []
        self.times_us: list[float] = []

    def step(self) -> None:
        """Be called after each bar of the warm-up and each round."""
        self._rounds += 1
        if self._rounds <= WARM_BARS:
            return
        if not self._records:
            self._records = read_records(self._state / "run" / "ledger.sqlite", BATCH_ROWS)
        timing = measure_commits(self._state / "bare", self._records, repeats=COMMITS_PER_ROUND)
        self.times_us.append(timing.p50_us)


def measure_served(state: Path, rounds: int, step: Callable[[], None]) -> Served:
    """Start the services, decide, and stop them; what lies in `state` is removed."""
    shutil.rmtree(state, ignore_errors=True)
    inserts = _Inserts(state)

    def stepped() -> None:
        inserts.step()
        step()

    async def run() -> RunResult:
        artifact_dir = build_bench_artifact(state / "artifacts")
        async with running_echo() as echo:
            return await measure(
                Composition(single=False, traced=False),
                artifact_dir=artifact_dir,
                state_dir=state / "run",
                rounds=rounds,
                echo=echo,
                step=stepped,
            )

    return Served(run=asyncio.run(run()), insert=timing_of(inserts.times_us))


def steps(rounds: int) -> int:
    """Count how often `step` is called."""
    return WARM_BARS + rounds
