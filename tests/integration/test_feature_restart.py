"""Proves that feature processes that share a Redis survive `kill -9`, and do not without it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
from opentelemetry.context import Context
from tests.builders import SYMBOL
from tests.conftest import Artifacts
from tests.redis_server import RedisServer, fresh_prefix, redis_server

from detent.contracts.calls.feature import (
    FeatureRow,
    GetFeatureSnapshotsRequest,
    GetFeatureSnapshotsResponse,
    IngestMarketDataRequest,
    IngestMarketDataResponse,
    MarketEvent,
    SnapshotView,
)
from detent.contracts.errors import DetentError, ServiceUnavailable
from detent.contracts.market import Bar
from detent.contracts.reasons import Reason
from detent.rpc.channel import RemoteService, open_channel
from detent.rpc.probe import is_serving
from detent.rpc.tracing import no_tracer
from detent_cli.stack import HEALTH_NAMES, Stack, StackOptions

NAME = HEALTH_NAMES["feature"]
PATIENCE_S = 20.0


class Feature:
    """Is one feature process."""

    def __init__(self, artifacts: Artifacts, folder: Path, **environment: str) -> None:
        self._artifacts = artifacts
        self.stack = Stack(
            StackOptions(
                artifact_dir=artifacts.stable,
                state_dir=folder,
                environment={f"DETENT_FEATURE_{key}": text for key, text in environment.items()},
            )
        )
        self.target = self.stack.targets["feature"]

    def start(self) -> None:
        self.stack.start("feature")

    def kill(self) -> None:
        self.stack.kill("feature")

    async def ingest(self, bars: Sequence[Bar]) -> IngestMarketDataResponse:
        events = tuple(MarketEvent(bar=bar) for bar in bars)

        async def batches() -> AsyncIterator[IngestMarketDataRequest]:
            yield IngestMarketDataRequest(events=events)

        async with self._service() as service:
            return await service.stream(
                batches(),
                IngestMarketDataRequest,
                IngestMarketDataResponse,
                timeout_s=10.0,
                trace=Context(),
            )

    async def row(self, ts_ms: int) -> FeatureRow:
        query = GetFeatureSnapshotsRequest(
            binding_hash=self._artifacts.stable_binding.binding_hash,
            as_of_ts_ms=ts_ms,
            symbols=(SYMBOL,),
            view=SnapshotView.INPUT,
        )
        async with self._service() as service:
            answer = await service.call(
                query, GetFeatureSnapshotsResponse, timeout_s=5.0, trace=Context()
            )
        return answer.rows[0]

    @contextlib.asynccontextmanager
    async def _service(self) -> AsyncIterator[RemoteService]:
        channel = open_channel(self.target)
        try:
            yield RemoteService(channel, "FeatureService", no_tracer())
        finally:
            await channel.close()

    async def until_serving(self, *, is_serving_now: bool) -> None:
        """Wait until readiness says so; liveness says yes all the while."""
        async with asyncio.timeout(PATIENCE_S):
            found = None
            while found is not is_serving_now:
                found = await asyncio.to_thread(is_serving, self.target, NAME)
        assert await asyncio.to_thread(is_serving, self.target, "")

    async def until_live(self) -> None:
        """Wait until the process listens, whatever it says of its readiness."""
        async with asyncio.timeout(PATIENCE_S):
            while not await asyncio.to_thread(is_serving, self.target, ""):
                assert self.stack.is_running("feature")


@pytest.fixture(name="redis")
def _redis(tmp_path: Path) -> Iterator[RedisServer]:
    folder = tmp_path / "redis"
    folder.mkdir()
    with redis_server(folder) as server:
        yield server


@contextlib.contextmanager
def features(
    artifacts: Artifacts, folder: Path, count: int, **environment: str
) -> Iterator[list[Feature]]:
    """Start feature processes, each with a folder of its own."""
    processes = [
        Feature(artifacts, folder / f"feature-{number}", **environment) for number in range(count)
    ]
    try:
        for process in processes:
            process.start()
        yield processes
    finally:
        for process in processes:
            process.stack.stop_all()


@pytest.mark.proves("R315")
async def test_a_killed_process_is_warm_again_and_its_peer_never_differed(
    artifacts: Artifacts, redis: RedisServer, tmp_path: Path
) -> None:
    bars = artifacts.bars[SYMBOL]
    shared = {"REDIS_URL": redis.url, "REDIS_PREFIX": fresh_prefix()}
    with features(artifacts, tmp_path, 2, **shared) as (one, other):
        await one.ingest(bars[:200])
        await other.ingest(bars[200:300])
        before = [await one.row(bars[at].ts_ms) for at in (199, 250, 299)]
        peer = [await other.row(bars[at].ts_ms) for at in (199, 250, 299)]
        one.kill()
        await other.ingest(bars[300:320])
        one.start()
        after = [await one.row(bars[at].ts_ms) for at in (199, 250, 299)]
        newest = await one.row(bars[319].ts_ms), await other.row(bars[319].ts_ms)

    assert all(row.model_input is not None for row in (*before, *newest))
    assert before == peer == after
    assert newest[0] == newest[1]


async def test_without_redis_a_killed_process_has_nothing(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    """The control: what the other tests find after a restart comes from Redis."""
    bars = artifacts.bars[SYMBOL]
    with features(artifacts, tmp_path, 1) as (one,):
        await one.ingest(bars[:100])
        before = await one.row(bars[99].ts_ms)
        one.kill()
        one.start()
        after = await one.row(bars[99].ts_ms)

    assert before.model_input is not None
    assert after.refusal is Reason.SYMBOL_UNKNOWN


async def test_what_was_acknowledged_is_there_after_a_kill_at_any_moment(
    artifacts: Artifacts, redis: RedisServer, tmp_path: Path
) -> None:
    bars = artifacts.bars[SYMBOL]
    shared = {"REDIS_URL": redis.url, "REDIS_PREFIX": fresh_prefix()}
    acknowledged = 0

    async def feed(one: Feature) -> None:
        nonlocal acknowledged
        with contextlib.suppress(DetentError):
            for at in range(acknowledged, len(bars)):
                await one.ingest(bars[at : at + 1])
                acknowledged = at + 1

    with features(artifacts, tmp_path, 1, **shared) as (one,):
        for after_s in (0.05, 0.11, 0.17, 0.23):
            feeding = asyncio.create_task(feed(one))
            await asyncio.sleep(after_s)
            one.kill()
            await feeding
            one.start()
            answer = await one.ingest(bars[:acknowledged])
            assert (answer.known_count, answer.accepted_count) == (acknowledged, 0)

    assert 0 < acknowledged < len(bars)


async def test_readiness_follows_redis_and_liveness_does_not(
    artifacts: Artifacts, redis: RedisServer, tmp_path: Path
) -> None:
    """A process whose Redis is away must not be restarted for it, and must not be asked."""
    bars = artifacts.bars[SYMBOL]
    shared = {"REDIS_URL": redis.url, "REDIS_PREFIX": fresh_prefix()}
    with features(artifacts, tmp_path, 1, **shared) as (one,):
        await one.ingest(bars[:100])
        served = await one.row(bars[99].ts_ms)
        redis.kill()
        await one.until_serving(is_serving_now=False)
        refused = await one.row(bars[99].ts_ms)
        with pytest.raises(ServiceUnavailable):
            await one.ingest(bars[100:101])

        one.kill()
        one.stack.start("feature", wait=False)
        await one.until_live()
        await one.until_serving(is_serving_now=False)
        cold = await one.row(bars[99].ts_ms)

        redis.start()
        await one.until_serving(is_serving_now=True)
        again = await one.row(bars[99].ts_ms)

    assert refused.refusal is Reason.FEATURES_UNAVAILABLE
    assert cold.refusal is Reason.FEATURES_UNAVAILABLE
    assert served == again
