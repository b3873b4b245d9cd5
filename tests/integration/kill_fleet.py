"""Runs policy processes that decide all the time, each behind a wire to the database of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Never, Self

import msgspec
from opentelemetry.context import Context
from tests.builders import HOUR_MS, START_MS, plan_of, row_of
from tests.fakes import FakeFeatures, FakeInference, HandlerHost

from detent.contracts.binding import ModelBinding, SignalSource
from detent.contracts.calls.policy import (
    DecideTargetWeightsRequest,
    DecideTargetWeightsResponse,
    OpenPlanRequest,
    OpenPlanResponse,
)
from detent.contracts.calls.rollout import SetKillSwitchRequest, SetKillSwitchResponse
from detent.contracts.decision import DecisionKind
from detent.contracts.errors import DeadlineExceeded, PlanConflict, ServiceUnavailable
from detent.contracts.kill_switch import KillPosition, KillScope
from detent.contracts.reasons import Reason
from detent.core.rollout.gates import ACTIVE_ACK
from detent.rpc.channel import RemoteService, open_channel
from detent.rpc.tracing import no_tracer
from detent_cli.stack import free_port

ROOT = Path(__file__).parents[2]
REPLICAS = 3
SYMBOLS = tuple(f"SYM{number:02}" for number in range(16))
PATIENCE_S = 60.0
BETWEEN_BARS_S = 0.03
Kill = tuple[KillScope, str]


class Link:
    """Carries one replica's bytes to the database and back; slowly, or not at all, when told so."""

    def __init__(self, port: int) -> None:
        """Carry to a port of this machine; nothing listens yet."""
        self._port = port
        self._flows = asyncio.Event()
        self._flows.set()
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()
        self.delay_s = 0.0

    async def start(self) -> int:
        """Listen, and give the port."""
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def stall(self) -> None:
        """Hold every byte back; connections stay open and say nothing."""
        self._flows.clear()

    def heal(self) -> None:
        """Carry again, at once."""
        self.delay_s = 0.0
        self._flows.set()

    def close(self) -> None:
        """Listen no more and cut what is open."""
        if self._server is not None:
            self._server.close()
        self._flows.set()
        for end in self._ends:
            end.close()

    async def _carry(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        try:
            far, out = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            back.close()
            return
        self._ends |= {back, out}
        await asyncio.gather(self._pump(near, out), self._pump(far, back))
        self._ends -= {back, out}

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65_536):
                await asyncio.sleep(self.delay_s)
                await self._flows.wait()
                sink.write(data)
                await sink.drain()
        with contextlib.suppress(OSError, RuntimeError):
            sink.close()


class Features(FakeFeatures):
    """Gives every row; nobody feeds it or asks what it serves."""

    async def ingest_market_data(self, *_: object) -> Never:
        raise ServiceUnavailable("a drill feeds nothing", service="feature")

    async def describe_feature_set(self, *_: object) -> Never:
        raise ServiceUnavailable("a drill asks for nothing else", service="feature")


class Inference(FakeInference):
    """Gives every signal; nobody asks what it serves."""

    async def describe_artifact(self, *_: object) -> Never:
        raise ServiceUnavailable("a drill asks for nothing else", service="inference")


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """Holds one answer: when it was asked for and when it came, on the monotonic clock, and whose.

    Attributes:
        replica: Whose answer.
        symbol: Instrument.
        asked_s: When it was asked for.
        came_s: When it came.
        reason: Why the proxy answered; None for the model.
    """

    replica: int
    symbol: str
    asked_s: float
    came_s: float
    reason: Reason | None

    def is_under(self, kill: Kill) -> bool:
        """Say whether a switch is about it."""
        scope, key = kill
        if scope is KillScope.PLAN:
            return key == plan_name(self.replica)
        return scope is not KillScope.SYMBOL or key == self.symbol


def plan_name(replica: int) -> str:
    """Name the plan of a replica."""
    return f"plan-{replica}"


class Replica:
    """Owns one policy process, its ledger, its plan and its wire to the database."""

    def __init__(self, index: int, folder: Path, fleet: Fleet) -> None:
        """Take a place in the fleet; nothing runs yet."""
        self.index = index
        self.link = Link(fleet.database_port)
        self._folder, self._fleet = folder, fleet
        self._target = f"127.0.0.1:{free_port()}"
        self._channel = open_channel(self._target)
        self.policy = RemoteService(self._channel, "PolicyService", no_tracer())
        self.rollout = RemoteService(self._channel, "RolloutService", no_tracer())
        self._plan = plan_of(plan_name(index), SYMBOLS)
        self._bar = 0

    async def boot(self) -> None:
        """Start the process, and decide by it from now on."""
        url = self._fleet.url_by(await self.link.start())
        self._environment = {
            "DETENT_POLICY_LISTEN": self._target,
            "DETENT_POLICY_ARTIFACTS_DIR": str(self._fleet.artifacts_dir),
            "DETENT_POLICY_LEDGER_FILE": str(self._folder / f"{self.index}.sqlite"),
            "DETENT_POLICY_FEATURE_TARGET": self._fleet.features.target,
            "DETENT_POLICY_INFERENCE_TARGET": self._fleet.inference.target,
            "DETENT_POLICY_CONTROL_URL": url,
            "DETENT_POLICY_INFER_ENABLED": "true",
            "DETENT_POLICY_ACTIVE_ENABLED": "true",
            "DETENT_POLICY_ACTIVE_ACK": ACTIVE_ACK,
            # Drills decide years of bars in minutes, and kill what answers them.
            "DETENT_POLICY_FUTURE_SKEW_MS": str(10**12),
            "DETENT_POLICY_LATCH_FAILURES": "0",
            "DETENT_POLICY_LOG_LEVEL": "WARNING",
        }
        await self.start()
        self._deciding = asyncio.create_task(self._decide())

    async def start(self) -> None:
        """Fork a process that begins from what the last one left."""
        self._pid = await asyncio.to_thread(self._fleet.forked, self._environment)

    async def kill(self) -> None:
        """End the process as a power cut would, and wait until it is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            while True:
                os.kill(self._pid, 0)
                await asyncio.sleep(0.002)

    async def close(self) -> None:
        """End everything of it."""
        self._deciding.cancel()
        await asyncio.gather(self._deciding, return_exceptions=True)
        await self.kill()
        self.link.close()
        await self._channel.close()

    async def _decide(self) -> None:
        """Ask for bar after bar; a bar that got no answer is not asked for again."""
        while True:
            self._bar += 1
            asked_s = time.monotonic()
            query = DecideTargetWeightsRequest(
                binding_hash=self._fleet.binding.binding_hash,
                plan_id=self._plan.plan_id,
                ts_ms=START_MS + self._bar * HOUR_MS,
                kind=DecisionKind.BAR,
                rows=tuple(row_of(symbol) for symbol in SYMBOLS),
            )
            try:
                answer = await self._asked(query)
            except (ServiceUnavailable, DeadlineExceeded):
                await asyncio.sleep(0.02)
                continue
            self._fleet.note(self.index, asked_s, answer)
            await asyncio.sleep(BETWEEN_BARS_S)

    async def _asked(self, query: DecideTargetWeightsRequest) -> DecideTargetWeightsResponse:
        if self._bar == 1:
            await self._open()
        return await self.policy.call(
            query, DecideTargetWeightsResponse, timeout_s=5.0, trace=Context()
        )

    async def _open(self) -> None:
        binding = self._fleet.binding
        query = OpenPlanRequest(
            binding_hash=binding.binding_hash, plan=self._plan, model_binding=binding
        )
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with contextlib.suppress(ServiceUnavailable, DeadlineExceeded, PlanConflict):
                    await self.policy.call(query, OpenPlanResponse, timeout_s=5.0, trace=Context())
                    return
                await asyncio.sleep(0.05)


class Fleet:
    """Owns the replicas, what they ask, and what they answered."""

    def __init__(self, folder: Path, artifact: Path, binding: ModelBinding, control: str) -> None:
        """Take a control database by its address; nothing runs yet."""
        self._folder, self._control = folder, control
        self.artifacts_dir, self.binding = artifact.parent, binding
        self.database_port = int(control.rpartition(":")[2].partition("/")[0])
        self.features = HandlerHost("FeatureService", Features(binding))
        self.inference = HandlerHost("InferenceService", Inference(binding))
        self.seen: list[Seen] = []
        self.replicas: list[Replica] = []

    def url_by(self, port: int) -> str:
        """Give the database's address through a link."""
        return self._control.replace(f":{self.database_port}/", f":{port}/")

    @contextlib.asynccontextmanager
    async def running(self, *mode: str) -> AsyncIterator[Self]:
        """Start all replicas; end them afterwards."""
        async with self.features, self.inference:
            self._forker = self._started(mode)
            self.replicas = [Replica(index, self._folder, self) for index in range(REPLICAS)]
            try:
                for replica in self.replicas:
                    await replica.boot()
                yield self
            finally:
                for replica in self.replicas:
                    await replica.close()
                await asyncio.to_thread(self._forker.communicate)

    def _started(self, mode: Sequence[str]) -> subprocess.Popen[str]:
        with (self._folder / "policy.log").open("w") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.integration.kill_forker", *mode],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def forked(self, environment: Mapping[str, str]) -> int:
        """Start one policy process with its variables, and give its process id."""
        stdin, stdout = self._forker.stdin, self._forker.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(environment) + "\n")
        stdin.flush()
        return int(stdout.readline())

    def note(self, replica: int, asked_s: float, answer: DecideTargetWeightsResponse) -> None:
        """Keep one answer; a bar that another process of the replica decided is none."""
        came_s = time.monotonic()
        for result in answer.results:
            decision = result.decision
            assert decision is not None, result.refusal
            is_model = decision.signal_source is SignalSource.MODEL
            self.seen.append(
                Seen(
                    replica=replica,
                    symbol=decision.symbol,
                    asked_s=asked_s,
                    came_s=came_s,
                    reason=None if is_model else decision.fallback_reason,
                )
            )

    def model_after(self, instant_s: float, kill: Kill) -> list[Seen]:
        """Give the model's answers under a switch that were asked for after an instant."""
        return [
            one
            for one in self.seen
            if one.reason is None and one.asked_s > instant_s and one.is_under(kill)
        ]

    async def until_all(self, kills: Sequence[Kill], *, is_model: bool) -> None:
        """Wait until every replica answers so for everything that the switches are about."""
        since_s = time.monotonic()
        due = {(index, symbol) for index in range(REPLICAS) for symbol in SYMBOLS}
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found = {
                    (one.replica, one.symbol)
                    for one in self.seen
                    if one.asked_s > since_s and (one.reason is None) is is_model
                }
                if found >= (due if is_model else self._under(due, kills)):
                    return
                await asyncio.sleep(0.02)

    @staticmethod
    def _under(due: set[tuple[int, str]], kills: Sequence[Kill]) -> set[tuple[int, str]]:
        at = {"asked_s": 0.0, "came_s": 0.0, "reason": None}
        return {
            (index, symbol)
            for index, symbol in due
            if any(Seen(replica=index, symbol=symbol, **at).is_under(kill) for kill in kills)
        }

    async def switch(
        self, kill: Kill, *, by: int, seen_epoch: int | None = None
    ) -> SetKillSwitchResponse:
        """Set a switch through one replica, or release the one whose epoch is given."""
        scope, key = kill
        asked: dict[str, Any] = {"scope": scope, "key": key, "actor": "ops", "reason": "drill"}
        position = KillPosition.OFF if seen_epoch is None else KillPosition.RELEASED
        query = SetKillSwitchRequest(position=position, seen_epoch=seen_epoch, **asked)
        return await self.replicas[by].rollout.call(
            query, SetKillSwitchResponse, timeout_s=PATIENCE_S, trace=Context()
        )
