"""Ask for snapshots, of one symbol and of many, beside a bare echo and beside Redis.

All of them take turns, round by round, so that a machine that slows down for a while slows all.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import redis
from tests.redis_server import redis_server

from benchmarks.decide.market import INTERVAL_MS, close_ts_ms
from benchmarks.decide.timing import Timing, timing_of
from benchmarks.features.serving_feed import bar_messages, symbols_of
from benchmarks.features.serving_process import (
    ASK,
    ECHO,
    INGEST,
    Peer,
    running_features,
    running_taught_echo,
    teach,
)
from benchmarks.features.serving_sets import FLOAT_BYTES, SETS
from detent.contracts.calls.feature import (
    GetFeatureSnapshotsRequest,
    GetFeatureSnapshotsResponse,
    SnapshotView,
)
from detent.contracts.wire import from_wire, message_class, to_wire

ROWS = (1, 100, 1_000)
CALLS_PER_ROUND = {1: 40, 100: 8, 1_000: 2}
WARM_CALLS = 3
SYMBOLS = symbols_of(max(ROWS))
WAYS = ("looked up", "fresh", "echo", "redis")
Step = Callable[[], None]


class ReadResult(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what reading so many rows of one set costs.

    Attributes:
        set_name: Name of the set here.
        width: Values per row.
        rows: Symbols in a call.
        answer_bytes: Size of the service's answer.
        timings: By way: `looked up` asks for the newest close, `fresh` for an instant that
            nobody asked for before, `echo` gives the same bytes from a server that decodes
            nothing, `redis` reads the same values with HMGET, one hash per symbol.
    """

    set_name: str
    width: int
    rows: int
    answer_bytes: int
    timings: dict[str, Timing]


class _Reader:
    """Asks for so many rows of one set, one way or another, and keeps the times."""

    def __init__(self, peers: dict[str, Peer], store: Any, binding_hash: str, *, rows: int) -> None:
        self.rows = rows
        self._times_us: dict[str, list[float]] = {way: [] for way in WAYS}
        self._ask = peers["features"].method(ASK)
        self._echo_peer = peers["echo"]
        self._echo = peers["echo"].method(ECHO)
        self._store = store
        self._binding_hash = binding_hash
        self._instants = iter(range(0))
        self._newest = b""
        self._names: list[str] = []
        self.answer_bytes = 0
        self.width = 0

    async def begin(self, newest_ms: int, instants: Iterator[int]) -> None:
        """Look at the answer, teach it to the echo, put its values where Redis has them."""
        self._instants = instants
        self._newest = self._request(newest_ms)
        answer = await self._ask(self._newest)
        await teach(self._echo_peer, self._newest, answer)
        message = message_class("GetFeatureSnapshotsResponse").FromString(answer)
        response = from_wire(GetFeatureSnapshotsResponse, message)
        self.answer_bytes = len(answer)
        for row in response.rows:
            assert row.model_input is not None, f"{row.symbol}: {row.refusal}"
            values = row.model_input.values
            self.width = len(values) // FLOAT_BYTES
            self._names = [f"f{index}" for index in range(self.width)]
            cells = [values[at : at + FLOAT_BYTES] for at in range(0, len(values), FLOAT_BYTES)]
            self._store.hset(row.symbol, mapping=dict(zip(self._names, cells, strict=True)))

    async def take_turns(self, calls: int) -> None:
        """Read every way, so many times each."""
        for _ in range(calls):
            started_ns = time.perf_counter_ns()
            await self._ask(self._newest)
            self._note("looked up", started_ns)
        for _ in range(calls):
            request = self._request(next(self._instants))
            started_ns = time.perf_counter_ns()
            await self._ask(request)
            self._note("fresh", started_ns)
        for _ in range(calls):
            started_ns = time.perf_counter_ns()
            await self._echo(self._newest)
            self._note("echo", started_ns)
        for _ in range(calls):
            started_ns = time.perf_counter_ns()
            self._read_store()
            self._note("redis", started_ns)

    def forget(self) -> None:
        """Drop what was measured so far: it was the warm-up."""
        for times_us in self._times_us.values():
            times_us.clear()

    def result(self, set_name: str) -> ReadResult:
        """Summarise what was measured."""
        return ReadResult(
            set_name=set_name,
            width=self.width,
            rows=self.rows,
            answer_bytes=self.answer_bytes,
            timings={way: timing_of(times_us) for way, times_us in self._times_us.items()},
        )

    def _read_store(self) -> None:
        pipeline = self._store.pipeline(transaction=False)
        for symbol in SYMBOLS[: self.rows]:
            pipeline.hmget(symbol, self._names)
        pipeline.execute()

    def _note(self, way: str, started_ns: int) -> None:
        self._times_us[way].append((time.perf_counter_ns() - started_ns) / 1_000)

    def _request(self, as_of_ts_ms: int) -> bytes:
        query = GetFeatureSnapshotsRequest(
            binding_hash=self._binding_hash,
            as_of_ts_ms=as_of_ts_ms,
            symbols=SYMBOLS[: self.rows],
            view=SnapshotView.INPUT,
        )
        return bytes(to_wire(query).SerializeToString())


async def measure_reads(
    name: str, artifacts: Path, binding_hash: str, *, rounds: int, state: Path, step: Step
) -> list[ReadResult]:
    """Load the bars of one set and read it every way.

    Args:
        name: Name of the set.
        artifacts: Folder of its artifact.
        binding_hash: Its binding.
        rounds: How often the ways and sizes take turns.
        state: Folder of logs; it exists.
        step: Called after each round.
    """
    # One more than needed: the fresh instants lie between the last two closes.
    bar_count = SETS[name].warmup_bars_min + 1
    newest_ms = close_ts_ms(bar_count - 1)
    instants = iter(range(newest_ms - INTERVAL_MS + 1, newest_ms))
    async with (
        running_features(artifacts, state / f"{name}.log") as features,
        running_taught_echo(state / "echo.log") as echo,
    ):
        with redis_server(state) as server, redis.Redis.from_url(server.url) as store:
            await features.stream(INGEST, bar_messages(SYMBOLS, bar_count=bar_count))
            peers = {"features": features, "echo": echo}
            readers = [_Reader(peers, store, binding_hash, rows=rows) for rows in ROWS]
            for reader in readers:
                await reader.begin(newest_ms, instants)
                await reader.take_turns(WARM_CALLS)
                reader.forget()
            for _ in range(rounds):
                for reader in readers:
                    await reader.take_turns(CALLS_PER_ROUND[reader.rows])
                step()
            return [reader.result(name) for reader in readers]
