"""Two monitor processes over one ledger and one database: one acts, the other takes over."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from benchmarks.rollout.candidates import START_MS, Kind
from tests.rolled_ledger import RolledLedger, rollout_of

from detent.adapters.control_database import ControlDatabase
from detent.adapters.rollout_store import RolloutStore
from detent.contracts.rollout import RolloutAction, RolloutStage
from detent_cli.stack import free_port

WHO = {"actor": "ops", "reason": "a test"}
# Imports of a loaded machine are slow; no promise of ours is timed by this.
READY_S_MAX = 60.0
LEASE_S = 3.0


class Monitor:
    """Owns one monitor process."""

    def __init__(self, folder: Path, control_url: str) -> None:
        self._target = f"127.0.0.1:{free_port()}"
        settings = {
            "LISTEN": self._target,
            "LEDGER": str(folder / "ledger.sqlite"),
            "CONTROL_URL": control_url,
            "LEASE_S": str(LEASE_S),
        }
        variables = {f"DETENT_MONITOR_{name}": value for name, value in settings.items()}
        with (folder / "monitor.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "detent.servers.monitor.main"],
                env=os.environ | variables,
                stdout=log,
                stderr=log,
            )

    async def leads(self) -> bool:
        """Say whether it may act, once it has looked."""
        ends_s = time.monotonic() + READY_S_MAX
        while time.monotonic() < ends_s:
            assert self._process.poll() is None
            text = await asyncio.to_thread(self._scraped)
            if "detent_rollout_looked_timestamp_seconds 1" in text:
                return "detent_monitor_leader 1.0" in text
            await asyncio.sleep(0.1)
        raise AssertionError("it does not look")

    def _scraped(self) -> str:
        try:
            with urllib.request.urlopen(f"http://{self._target}/metrics", timeout=5.0) as answer:
                text: str = answer.read().decode()
        except OSError:
            return ""
        return text

    def kill(self) -> None:
        """End it without a chance to hand its lease over."""
        self._process.kill()
        self._process.wait()


def wait_until_taken_back(store: RolloutStore) -> None:
    """Look until a monitor has acted."""
    ends_s = time.monotonic() + READY_S_MAX
    while store.get("r1").is_live and time.monotonic() < ends_s:
        time.sleep(0.05)


@pytest.mark.proves("R118")
async def test_a_killed_leader_is_followed_by_the_other_monitor(tmp_path: Path) -> None:
    control_url = f"sqlite:///{tmp_path}/control.sqlite"
    store = RolloutStore(ControlDatabase(control_url), now_ms=lambda: START_MS)
    started = store.start(rollout_of(canary_bps=0, stage=RolloutStage.SHADOW, revision=0), **WHO)
    rollout = store.set_percent(
        "r1", 10_000, seen_revision=started.revision, override_reason="a test", **WHO
    )
    ledger = RolledLedger(tmp_path / "ledger.sqlite", rollout, Kind.SLOW, bars=20)
    await ledger.open()
    monitors = [Monitor(tmp_path, control_url)]
    try:
        led = [await monitors[0].leads()]
        monitors.append(Monitor(tmp_path, control_url))
        led.append(await monitors[1].leads())
        monitors[0].kill()
        killed_s = time.monotonic()
        await ledger.decide(20)
        await asyncio.to_thread(wait_until_taken_back, store)
        followed_s = time.monotonic() - killed_s
    finally:
        for monitor in monitors:
            monitor.kill()
        await ledger.close()
    actions = [one.action for one in store.history("r1")]

    assert led == [True, False]
    assert store.get("r1").stage is RolloutStage.ROLLED_BACK
    assert actions.count(RolloutAction.ROLLED_BACK) == 1
    # The lease, a claim, a look, and what the machine adds.
    assert followed_s < LEASE_S + LEASE_S / 3 + 10.0
