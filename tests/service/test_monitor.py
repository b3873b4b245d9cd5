"""The monitor over a real policy service: outcomes on the durable record, once, and late ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest
from tests.builders import HOUR_MS, START_MS, SYMBOL, model_binding, plan_of, row_of
from tests.conftest import Artifacts
from tests.fakes import PolicyHost
from tests.service.policy_calls import ask, open_plan
from tests.trades import outcome_of

from detent.adapters.grpc_dependencies import GrpcOutcomes
from detent.adapters.ledger_reading import SqliteReader
from detent.adapters.ledger_shipping import LedgerShipper, ShippingOptions
from detent.adapters.metrics import Metrics
from detent.adapters.sqlite_trades import SqliteTrades
from detent.contracts.canonical import parse_json
from detent.contracts.errors import LedgerUnavailable
from detent.contracts.json_codec import from_json
from detent.contracts.plan import Plan
from detent.contracts.trades import Outcome, OutcomeLabel
from detent.rpc.channel import open_channel
from detent.rpc.tracing import no_tracer
from detent.servers.monitor.gauges import MonitorGauges
from detent.servers.monitor.main import build, check_once
from detent.servers.monitor.monitor import Monitor
from detent.servers.monitor.settings import MonitorSettings

PLAN = plan_of("plan", (SYMBOL,))
BARS = 130


def settings_of(ledger: Path | str, **changes: object) -> MonitorSettings:
    return MonitorSettings.model_validate({"ledger": str(ledger), **changes})


def close_of(bar: int) -> Decimal:
    return Decimal(100 + (bar * 7) % 11)


async def decide(host: PolicyHost, bars: range, plan: Plan = PLAN) -> None:
    for bar in bars:
        result = (await ask(host, row_of(close=close_of(bar)), bar=bar, plan=plan)).results[0]
        assert result.decision is not None, result.refusal


@pytest.fixture(name="ledger")
def _ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture(name="host")
async def _host(ledger: Path) -> AsyncIterator[PolicyHost]:
    async with PolicyHost(ledger, model_binding()) as host:
        await open_plan(host, PLAN, host.binding)
        yield host


async def recorded(host: PolicyHost) -> list[Outcome]:
    rows = SqliteReader(host.ledger.path).query("SELECT canonical FROM outcomes ORDER BY id")
    return [from_json(Outcome, parse_json("outcome", text.encode())) for (text,) in rows]


@pytest.mark.proves("R259")
async def test_outcomes_reach_the_record_once_and_late_ones_too(
    host: PolicyHost, ledger: Path
) -> None:
    settings = settings_of(ledger, policy_target=host.target)
    await decide(host, range(10))
    _, first = await check_once(settings)
    _, again = await check_once(settings)
    await decide(host, range(10, BARS))
    reports, later = await check_once(settings)
    found = await recorded(host)

    assert (first, again, later) == (6, 0, BARS - 4 - 6)
    assert [one.ts_ms for one in found] == [START_MS + bar * HOUR_MS for bar in range(BARS - 4)]
    assert all(
        (one.label is OutcomeLabel.UP) is (close_of(bar + 4) > close_of(bar))
        for bar, one in enumerate(found)
    )
    assert [signal.settled_count for signal in reports[0].signals] == [BARS - 4, BARS - 4]
    assert reports[0].signals[0].newest is not None


async def test_an_outcome_of_the_strategist_stands(host: PolicyHost, ledger: Path) -> None:
    """Brought first, by who may know better: the monitor adds none to it and counts it."""
    await decide(host, range(12))
    theirs = outcome_of(0, OutcomeLabel.FLAT)
    await SqliteTrades(host.ledger.file).add_outcomes([theirs])
    reports, new = await check_once(settings_of(ledger, policy_target=host.target))

    assert new == 7
    assert (await recorded(host))[0] == theirs
    assert reports[0].signals[0].settled_count == 8


async def test_without_an_address_nothing_is_recorded_and_all_is_judged(
    host: PolicyHost, ledger: Path
) -> None:
    await decide(host, range(12))
    reports, new = await check_once(settings_of(ledger))

    assert new == 0
    assert await recorded(host) == []
    assert reports[0].signals[0].settled_count == 8


async def test_two_monitors_change_nothing(host: PolicyHost, ledger: Path) -> None:
    await decide(host, range(12))
    channel = open_channel(host.target)
    monitors: list[Monitor] = [
        build(settings_of(ledger), GrpcOutcomes(channel, no_tracer())) for _ in range(2)
    ]
    first, second = [await one.check() for one in monitors]
    await channel.close()

    assert first == second
    assert [one.recorded_count for one in monitors] == [8, 0]


async def test_postgresql_says_what_the_file_says(
    host: PolicyHost, ledger: Path, ledger_url: str
) -> None:
    await decide(host, range(BARS))
    await check_once(settings_of(ledger, policy_target=host.target))
    shipper = LedgerShipper(ledger, ShippingOptions(url=ledger_url))
    shipper.start()
    assert await asyncio.to_thread(shipper.stop, 10.0)
    of_file, _ = await check_once(settings_of(ledger))
    of_database, _ = await check_once(settings_of(ledger_url))

    assert of_file[0].signals[0].settled_count == BARS - 4
    assert of_database == of_file


async def test_a_failed_check_is_counted_and_takes_readiness(
    host: PolicyHost, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await decide(host, range(2))
    monitor = build(settings_of(ledger))
    metrics = Metrics()
    gauges = MonitorGauges(metrics)
    naps = iter([None, None])

    class Enough(Exception):
        pass

    async def nap(_seconds: float) -> None:
        if next(naps, Enough) is Enough:
            raise Enough
        monkeypatch.setattr(monitor, "_reader", Broken())

    class Broken:
        def query(self, *_: object) -> None:
            raise LedgerUnavailable("gone", cause="gone")

    monkeypatch.setattr("detent.servers.monitor.monitor.asyncio.sleep", nap)
    with pytest.raises(Enough):
        await monitor.run(gauges, lambda: START_MS)

    assert not monitor.is_current
    value = metrics.registry.get_sample_value
    assert value("detent_monitor_checks_total", {"result": "ok"}) == 1
    assert value("detent_monitor_checks_total", {"result": "failed"}) == 2
    assert value("detent_monitor_checked_timestamp_seconds") == START_MS / 1000


async def test_a_model_of_another_binding_is_judged_for_itself(
    host: PolicyHost, ledger: Path, artifacts: Artifacts
) -> None:
    await decide(host, range(12))
    reports, _ = await check_once(settings_of(ledger, artifacts_dir=artifacts.stable.parent))

    assert [one.binding_hash for one in reports] == [host.binding.binding_hash]
    assert reports[0].features_unknown == "0 kept inputs, expected at least 500"
