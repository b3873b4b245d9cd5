"""Measure one composition of the services, with or without spans."""

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec

from benchmarks.decide.echo import Echo
from benchmarks.decide.hops import read_hops
from benchmarks.decide.workload import DEADLINE_S, BatchResult, Strategist
from detent.adapters.telemetry import Telemetry
from detent.contracts.binding import ModelBinding
from detent_cli.stack import Stack, StackOptions
from detent_client import ClientOptions, DecisionStream, DetentClient, read_binding

# Calls in one round, by batch size: the small ones need many for their 99th percentile.
CALLS_PER_ROUND = {1: 40, 64: 4, 1_000: 1}
# The proxy looks back sixty closes of decided bars; before that it is cheaper than it is live.
WARM_BARS = 64
ECHO_WARM_CALLS = 50
VERIFY_DEADLINE_S = 300.0
# What an installation without a collector has: no span is kept.
NO_SPANS = {f"DETENT_{name}_TRACE_FILE": "" for name in ("FEATURE", "INFERENCE", "POLICY")}
Step = Callable[[], None]


class Composition(msgspec.Struct, frozen=True, kw_only=True):
    """Says what is measured: one process or three, spans kept or not."""

    single: bool
    traced: bool

    @property
    def name(self) -> str:
        """Give the name under which it is reported."""
        processes = "single" if self.single else "wire"
        return f"{processes}, traced" if self.traced else processes


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """Holds one composition's results and what its ledger says afterwards.

    Attributes:
        name: The composition.
        traced: Whether spans were kept.
        batches: Unary calls, by batch size.
        streamed: Decisions of one row over a stream, in the same rounds, one at a time.
        record_count: Records of the ledger.
        chain_count: Its chains.
        break_count: Where they are broken.
    """

    name: str
    traced: bool
    batches: tuple[BatchResult, ...]
    streamed: BatchResult
    record_count: int
    chain_count: int
    break_count: int

    def batch(self, rows: int) -> BatchResult:
        """Give the result of one batch size."""
        return next(batch for batch in self.batches if batch.rows == rows)


async def measure(
    composition: Composition,
    *,
    artifact_dir: Path,
    state_dir: Path,
    rounds: int,
    echo: Echo,
    step: Step,
) -> RunResult:
    """Start a composition, warm it, measure it, verify its ledger, stop it.

    Args:
        composition: What to start.
        artifact_dir: The artifact to serve.
        state_dir: Folder of this run; new.
        rounds: How often the batch sizes and the echo take turns, so that a machine that
            slows down for a while slows all of them.
        echo: The bare echo, in its own process.
        step: Called after each warm-up bar and each round.
    """
    options = StackOptions(
        artifact_dir=artifact_dir,
        state_dir=state_dir,
        single=composition.single,
        environment={} if composition.traced else NO_SPANS,
    )
    with Stack(options) as stack:
        async with (
            _client(stack, traced=composition.traced) as client,
            client.stream_decisions() as stream,
        ):
            strategists = await _opened(client, stream, read_binding(artifact_dir), rounds)
            await _warmed(strategists, echo, step)
            await _rounds(strategists, echo, rounds, step)
            verified = await client.verify_ledger(deadline_s=VERIFY_DEADLINE_S)
    *batches, streamed = [
        strategist.result(
            echo=echo.timing(*strategist.sizes),
            hops=read_hops(
                state_dir,
                plan_id=strategist.plan_id,
                from_ts_ms=strategist.measured_from_ts_ms,
            ),
        )
        for strategist in strategists
    ]
    return RunResult(
        name=composition.name,
        traced=composition.traced,
        batches=tuple(batches),
        streamed=streamed,
        record_count=verified.record_count,
        chain_count=verified.chain_count,
        break_count=len(verified.breaks),
    )


@contextlib.asynccontextmanager
async def _client(stack: Stack, *, traced: bool) -> AsyncIterator[DetentClient]:
    spans = stack.state_dir / "client.spans.jsonl" if traced else None
    telemetry = Telemetry("bench-client", otlp_endpoint=None, trace_file=spans)
    options = ClientOptions(
        journal_file=stack.state_dir / "journal.jsonl",
        policy_target=stack.targets["policy"],
        feature_target=stack.targets["feature"],
        deadline_s=DEADLINE_S,
    )
    async with DetentClient(options, tracer=telemetry.tracer) as client:
        yield client
    telemetry.close()


async def _opened(
    client: DetentClient, stream: DecisionStream, binding: ModelBinding, rounds: int
) -> list[Strategist]:
    strategists = [
        Strategist(client, rows, bar_count=WARM_BARS + rounds * calls)
        for rows, calls in CALLS_PER_ROUND.items()
    ]
    bar_count = WARM_BARS + rounds * CALLS_PER_ROUND[1]
    strategists.append(Strategist(client, 1, bar_count=bar_count, stream=stream))
    for strategist in strategists:
        await strategist.open(binding)
    return strategists


async def _warmed(strategists: list[Strategist], echo: Echo, step: Step) -> None:
    for _ in range(WARM_BARS):
        for strategist in strategists:
            await strategist.bar()
        step()
    for strategist in strategists:
        await echo.measure(*strategist.sizes, count=ECHO_WARM_CALLS)
        strategist.forget()
    echo.forget()


async def _rounds(strategists: list[Strategist], echo: Echo, rounds: int, step: Step) -> None:
    for _ in range(rounds):
        for strategist in strategists:
            calls = CALLS_PER_ROUND[strategist.rows]
            for _ in range(calls):
                await strategist.bar()
            await echo.measure(*strategist.sizes, count=calls)
        step()
