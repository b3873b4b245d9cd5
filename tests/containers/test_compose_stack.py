"""The compose stack, built from nothing: it decides, and goes on deciding without its model."""

import asyncio
import csv
import json
import os
import pathlib
import random
import socket
import time
from collections.abc import Iterator
from decimal import Decimal

import pytest
from tests.containers.engine import ROOT, Engine, command_of_environment

from detent.contracts.binding import ModelBinding, SignalSource
from detent.contracts.calls.feature import MarketEvent
from detent.contracts.decision import Decision, DecisionRow
from detent.contracts.market import Bar
from detent.contracts.plan import Plan, PolicyConfig, PositionState, Trigger, TriggerState, VolUnit
from detent.contracts.reasons import Reason
from detent.offline.bars import COLUMNS, load_bars
from detent.offline.commands import build_artifact
from detent_client import ClientOptions, DetentClient, OpenedPlan, read_binding

pytestmark = [
    pytest.mark.containers,
    pytest.mark.skipif(
        not command_of_environment(),
        reason="DETENT_CONTAINERS names no container engine; `make test-containers` does",
    ),
]

SERVICES = ("feature", "inference", "policy")
SYMBOL = "TESTUSD"
INTERVAL_MS = 3_600_000
START_TS_MS = 1_704_067_200_000
BARS = 1_500
# Bars that the feature service gets before the first decision: more than any window needs.
HISTORY_BARS = 200
# A busy machine may be late for its own latency gate on a bar, and a container that comes back
# has another address, which policy finds when it asks for the name again.
MODEL_S_MAX = 20.0
PAUSE_S = 0.25
# What the loss of the inference process looks like from policy: its connection is refused,
# or nobody says so and the time runs out.
GONE = {Reason.INFERENCE_UNAVAILABLE, Reason.INFERENCE_DEADLINE}


@pytest.fixture(name="bars", scope="module")
def _bars(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Write a drifting series with some momentum, so that there is something to fit."""
    path = tmp_path_factory.mktemp("bars") / "bars.csv"
    draws = random.Random(7)
    price, drift = 100.0, 0.0
    with path.open("w", newline="") as target:
        writer = csv.writer(target)
        writer.writerow(COLUMNS)
        for number in range(BARS):
            drift = 0.6 * drift + draws.gauss(0.0, 0.002)
            opened, price = price, price * (1.0 + drift + draws.gauss(0.0, 0.001))
            high, low = max(opened, price) * 1.0005, min(opened, price) * 0.9995
            prices = [f"{value:.5f}" for value in (opened, high, low, price)]
            writer.writerow([START_TS_MS + number * INTERVAL_MS, SYMBOL, *prices, "10"])
    return path


@pytest.fixture(name="artifact", scope="module")
def _artifact(bars: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Build an artifact as a user would, readable for the containers' own user."""
    folder = tmp_path_factory.mktemp("artifacts")
    folder.chmod(0o755)
    return build_artifact(
        load_bars(bars),
        model_name="stack",
        version="v1.0.0",
        horizon_bars=4,
        horizon_id="4h",
        created_at="2024-06-01T00:00:00Z",
        out_dir=folder,
    )


@pytest.fixture(name="ports", scope="module")
def _ports() -> dict[str, int]:
    """Choose ports that nobody listens on, so that a stack that runs is left alone."""
    ports = {}
    for service in SERVICES:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            ports[service] = int(listener.getsockname()[1])
    return ports


@pytest.fixture(name="engine", scope="module")
def _engine(artifact: pathlib.Path, ports: dict[str, int]) -> Iterator[Engine]:
    """Build the images, bring the stack up with the model switched on, take it down."""
    engine = Engine(
        command=command_of_environment(),
        project=f"detent-test-{os.getpid()}",
        environment={
            "DETENT_ARTIFACTS": str(artifact.parent),
            "DETENT_ARTIFACT": artifact.name,
            **{f"DETENT_{name.upper()}_PORT": str(port) for name, port in ports.items()},
        },
        env_file=ROOT / "deploy/config/model-active.env",
    )
    engine.build()
    try:
        engine.compose("up", "-d", *SERVICES)
        engine.wait_healthy(*SERVICES)
        yield engine
    finally:
        engine.compose("down", "-v")


def _plan(plan_id: str) -> Plan:
    return Plan(
        plan_id=plan_id,
        book="containers",
        symbols=(SYMBOL,),
        bar_interval_ms=INTERVAL_MS,
        triggers=(Trigger(trigger_id="always", parameters_hash="0" * 64),),
        policy_config=PolicyConfig(horizon_id="4h"),
    )


class _Stream:
    """Feeds the bars one by one and has each of them decided."""

    def __init__(self, client: DetentClient, opened: OpenedPlan, bars: list[Bar]) -> None:
        self._client = client
        self._opened = opened
        self._bars = iter(bars)
        self._weight_ppm = 0
        self.decided = 0

    async def decide_next(self) -> Decision:
        bar = next(self._bars)
        await self._client.ingest([MarketEvent(bar=bar)])
        row = DecisionRow(
            symbol=SYMBOL,
            bar_close=bar.close,
            trigger_state=TriggerState.LONG_ALLOWED,
            active_trigger_ids=("always",),
            exit_intent=None,
            position=PositionState(current_weight_ppm=self._weight_ppm, equity=Decimal(100_000)),
            vol_hat_ppm=150_000,
            vol_unit=VolUnit.ANNUALISED,
            risk_overrides=None,
        )
        decision = await self._client.decide(self._opened, ts_ms=bar.ts_ms, row=row)
        self._weight_ppm = decision.target_weight_final_ppm
        self.decided += 1
        return decision

    async def decide_until(self, source: SignalSource) -> Decision:
        """Decide bars until one is answered from a source; the last one tried otherwise."""
        ends_s = time.monotonic() + MODEL_S_MAX
        decision = await self.decide_next()
        while decision.signal_source is not source and time.monotonic() < ends_s:
            await asyncio.sleep(PAUSE_S)
            decision = await self.decide_next()
        return decision


async def test_stack_goes_on_without_its_model_and_comes_back(
    engine: Engine,
    bars: pathlib.Path,
    artifact: pathlib.Path,
    ports: dict[str, int],
    tmp_path: pathlib.Path,
) -> None:
    """The acceptance of the stack: decide, kill inference, decide, restart it, decide."""
    series = load_bars(bars).bars[SYMBOL]
    binding: ModelBinding = read_binding(artifact)
    options = ClientOptions(
        journal_file=tmp_path / "local.jsonl",
        policy_target=f"127.0.0.1:{ports['policy']}",
        feature_target=f"127.0.0.1:{ports['feature']}",
        deadline_s=10.0,
    )
    async with DetentClient(options) as client:
        await client.ingest([MarketEvent(bar=bar) for bar in series[:HISTORY_BARS]])
        opened = await client.open_plan(_plan("stack-plan"), binding)
        stream = _Stream(client, opened, list(series[HISTORY_BARS:]))
        before = await stream.decide_until(SignalSource.MODEL)
        engine.compose("kill", "inference")
        without = await stream.decide_next()
        running_without = engine.state("inference", ".State.Running")
        engine.compose("start", "inference")
        engine.wait_healthy("inference")
        after = await stream.decide_until(SignalSource.MODEL)
        verified = await client.verify_ledger()

    assert before.signal_source is SignalSource.MODEL, before
    assert before.fallback_reason is None
    assert running_without == "false"
    assert without.signal_source is SignalSource.PROXY
    assert without.fallback_reason in GONE
    assert without.record_hash != ""
    assert after.signal_source is SignalSource.MODEL, after
    assert (verified.record_count, verified.breaks) == (stream.decided, ())
    assert client.unreported_count == 0


@pytest.mark.parametrize("service", SERVICES)
def test_container_can_do_no_more_than_it_must(engine: Engine, service: str) -> None:
    probe = (
        "import os; status = open('/proc/self/status').read();"
        "held = status.split('CapEff:')[1].split()[0];"
        "print(os.getuid(), os.getgid(), int(held, 16), os.access('/opt/detent', os.W_OK),"
        " os.access('/artifacts', os.W_OK))"
    )
    printed = engine.compose("exec", "-T", service, "python", "-c", probe)

    assert printed.split() == ["10001", "10001", "0", "False", "False"]


def test_client_image_reads_the_ledger_inside_the_network(engine: Engine) -> None:
    """Names resolve, the command starts under a read-only root, and the chain holds."""
    call = ("ledger", "verify", "--target", "policy:7303", "--json")
    printed = engine.compose("run", "--rm", "-T", "client", *call)
    found = json.loads(printed[printed.index("{") :])

    assert found["breaks"] == []


def test_policy_drains_when_it_is_asked_to_stop(engine: Engine) -> None:
    """Last in the file, because it stops the stack: exit code 0, and no SIGKILL."""
    engine.compose("stop", "policy")

    assert engine.state("policy", ".State.ExitCode") == "0"
    assert "SERVER_STOPPED" in engine.logs("policy")
