"""A candidate that says the opposite goes back by itself: real processes, real models, real time.

The market trends. The stable model learned that; the candidate learned a market that turns round,
and so is wrong as often as the other one is right.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
import urllib.request
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs
from tests.builders import HORIZON, HOUR_MS, close_ms, plan_of, row_of
from tests.conftest import PATIENT
from tests.strategist import feed

from detent.contracts import events
from detent.contracts.calls.rollout import SetCanaryPercentRequest, StartRolloutRequest
from detent.contracts.market import Bar
from detent.contracts.rollout import RampStep, RolloutAction, RolloutEvent, RolloutStage
from detent.core.features.feature_set import direction_bars_v1
from detent.offline.bars import BarTable
from detent.offline.building import Recipe, build_direction_artifact
from detent_cli.stack import Stack, StackOptions
from detent_client import ClientOptions, DetentClient
from detent_client.binding_file import read_binding

SYMBOLS = tuple(f"SYM{place:02d}" for place in range(20))
BOOK = "book-plan"
HISTORY, BARS = 100, 40
WHO = {"actor": "ops", "reason": "a test"}
PACE_S = 0.5


def trending(seed: int, count: int, *, memory: float) -> tuple[Bar, ...]:
    """Give bars whose returns go on, or turn round, with so much of the last one."""
    chance, moved, price, bars = np.random.default_rng(seed), 0.0, 100.0, []
    for place in range(count):
        moved = memory * moved + 0.002 * chance.normal()
        opened, price = price, price * math.exp(moved)
        low, high = min(opened, price) * 0.9995, max(opened, price) * 1.0005
        bars.append(
            Bar(
                symbol="SYM00",
                ts_ms=close_ms(place),
                interval_ms=HOUR_MS,
                open=Decimal(f"{opened:.6f}"),
                high=Decimal(f"{high:.6f}"),
                low=Decimal(f"{low:.6f}"),
                close=Decimal(f"{price:.6f}"),
                volume=Decimal(1),
            )
        )
    return tuple(bars)


def build(folder: Path, version: str, *, seed: int, memory: float) -> Path:
    recipe = Recipe(
        model_name="direction_rolled",
        model_version=version,
        horizon_bars=1,
        horizon_id=HORIZON,
        created_at="2024-01-15T10:30:00Z",
        feature_set=direction_bars_v1(HOUR_MS),
    )
    table = BarTable(
        bars={"SYM00": trending(seed, 700, memory=memory)},
        interval_ms=HOUR_MS,
        gaps=(),
        data_hash=f"{seed:064d}",
    )
    build_direction_artifact(table, recipe, out_dir=folder, progress=lambda *_: None)
    return folder / f"direction_rolled_{version}"


@pytest.fixture(name="models", scope="module")
def _models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("rolled")
    return {
        "stable": build(folder, "v1.0.0", seed=1, memory=0.7),
        "good": build(folder, "v1.1.0", seed=2, memory=0.7),
        "flipped": build(folder, "v1.2.0", seed=3, memory=-0.7),
    }


@pytest.fixture(name="market", scope="module")
def _market() -> dict[str, tuple[Bar, ...]]:
    return {
        symbol: tuple(
            structs.replace(bar, symbol=symbol)
            for bar in trending(100 + place, HISTORY + BARS, memory=0.7)
        )
        for place, symbol in enumerate(SYMBOLS)
    }


def stack_of(models: Mapping[str, Path], candidate: str, folder: Path, *, monitor: bool) -> Stack:
    return Stack(
        StackOptions(
            artifact_dir=models["stable"],
            candidate_dir=models[candidate],
            state_dir=folder / "state",
            control_url=f"sqlite:///{folder}/control.sqlite",
            monitor=monitor,
            environment=PATIENT | {"DETENT_MONITOR_CHECK_INTERVAL_S": "3600"},
        )
    )


class Rolled:
    """Says what came of a rollout, as its operators see it."""

    def __init__(self) -> None:
        self.answered_ms: list[int] = []
        self.stage = RolloutStage.CANARY
        self.history: tuple[RolloutEvent, ...] = ()


async def roll_out(
    stack: Stack, models: Mapping[str, Path], candidate: str, market: Mapping[str, tuple[Bar, ...]]
) -> Rolled:
    """Give all symbols to the candidate and decide bar after bar until it is taken back."""
    options = ClientOptions(
        journal_file=stack.state_dir / "journal.jsonl",
        policy_target=stack.targets["policy"],
        feature_target=stack.targets["feature"],
        deadline_s=10.0,
    )
    found = Rolled()
    async with DetentClient(options) as client:
        await feed(client, market)
        await start(client, models["stable"], models[candidate])
        (opened,) = await client.open_under_rollout(plan_of("plan", SYMBOLS), "r1")
        for place in range(HISTORY, HISTORY + BARS):
            rows = tuple(row_of(symbol, close=market[symbol][place].close) for symbol in SYMBOLS)
            results = await client.decide_many(opened, ts_ms=close_ms(place), rows=rows)
            assert all(result.decision is not None for result in results), results
            found.answered_ms.append(time.time_ns() // 1_000_000)
            await asyncio.sleep(PACE_S)
            if not (await client.get_rollout("r1")).rollout.is_live:
                break
        got = await client.get_rollout("r1")
        found.stage, found.history = got.rollout.stage, got.history
    return found


async def start(client: DetentClient, stable: Path, candidate: Path) -> None:
    """Start a rollout and give the candidate every symbol."""
    started = await client.start_rollout(
        StartRolloutRequest(
            rollout_id="r1",
            book=BOOK,
            symbols=SYMBOLS,
            stable_binding=read_binding(stable),
            candidate_binding=read_binding(candidate),
            ramp=(RampStep(canary_bps=10_000, hold_ms=0),),
            **WHO,
        )
    )
    request = SetCanaryPercentRequest(
        rollout_id="r1",
        canary_bps=10_000,
        seen_revision=started.rollout.revision,
        override_reason="a test",
        **WHO,
    )
    await client.set_canary_percent(request)


async def said_by_monitor(stack: Stack, event: str) -> list[dict[str, object]]:
    """Give the monitor's lines of an event; it says what it did when all replicas obey."""
    for _ in range(100):
        lines = [json.loads(line) for line in stack.log_lines("monitor") if event in line]
        if lines:
            return lines
        await asyncio.sleep(0.1)
    return []


def scraped(stack: Stack) -> str:
    """Give the monitor's metrics."""
    with urllib.request.urlopen(f"http://{stack.targets['monitor']}/metrics") as answer:
        text: str = answer.read().decode()
    return text


@pytest.mark.proves("R118")
async def test_a_flipped_candidate_goes_back_by_itself_within_a_second(
    models: dict[str, Path], market: dict[str, tuple[Bar, ...]], tmp_path: Path
) -> None:
    with stack_of(models, "flipped", tmp_path, monitor=True) as stack:
        found = await roll_out(stack, models, "flipped", market)
        (said,) = await said_by_monitor(stack, events.ROLLOUT_TAKEN_BACK)
        metrics = await asyncio.to_thread(scraped, stack)
    event = found.history[-1]
    evidence = json.loads(event.evidence)
    late_ms = event.at_ms - found.answered_ms[evidence["bars"] - 1]

    assert found.stage is RolloutStage.ROLLED_BACK
    assert (event.action, event.canary_bps) == (RolloutAction.ROLLED_BACK, 0)
    assert event.actor == "automatic:sequential_test"
    assert said["rollout_id"] == "r1"
    assert evidence["rule"] == "sequential_test"
    assert evidence["brier_difference"] > 0.0
    assert late_ms <= 1_000
    assert 'detent_rollout_rollbacks_total{rule="sequential_test"} 1.0' in metrics


async def test_a_good_candidate_stays(
    models: dict[str, Path], market: dict[str, tuple[Bar, ...]], tmp_path: Path
) -> None:
    with stack_of(models, "good", tmp_path, monitor=True) as stack:
        found = await roll_out(stack, models, "good", market)
        judged = [
            json.loads(line) for line in stack.log_lines("monitor") if events.ROLLOUT_JUDGED in line
        ]

    assert found.stage is RolloutStage.CANARY
    assert len(found.answered_ms) == BARS
    # It was looked at, and held.
    assert judged[-1]["verdict"] == "hold"


async def test_nobody_takes_it_back_where_no_monitor_runs(
    models: dict[str, Path], market: dict[str, tuple[Bar, ...]], tmp_path: Path
) -> None:
    """The control of both."""
    with stack_of(models, "flipped", tmp_path, monitor=False) as stack:
        found = await roll_out(stack, models, "flipped", market)

    assert found.stage is RolloutStage.CANARY
    assert len(found.answered_ms) == BARS
