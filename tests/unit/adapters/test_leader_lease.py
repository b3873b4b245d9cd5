"""Proves the election over both databases: one leader, its successor, the fence between them."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.postgres_server import PostgresServer

from detent.adapters.control_database import ControlDatabase
from detent.adapters.leader_lease import LeaderLease
from detent.contracts.errors import ControlUnavailable, LeaderDeposed

TASK = "watch"
LEASE_S, KILLED_LEASE_S = 0.6, 3.0
CANDIDATE = """
import sys, time
from detent.adapters.control_database import ControlDatabase
from detent.adapters.leader_lease import LeaderLease

url, holder, lease_s = sys.argv[1], sys.argv[2], float(sys.argv[3])
lease = LeaderLease(ControlDatabase(url), name="watch", holder=holder, lease_s=lease_s)
while True:
    print(int(lease.claim()), lease.epoch, flush=True)
    time.sleep(lease.renew_every_s)
"""


class Clock:
    """Is a monotonic clock that a test moves."""

    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture(name="url", params=["sqlite", "postgresql"])
def _url(request: pytest.FixtureRequest, tmp_path: Path, postgres: PostgresServer) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/control.sqlite"
    url = postgres.url(postgres.fresh_database())
    ControlDatabase(url).migrate()
    return url


def lease_of(url: str, holder: str, clock: Clock) -> LeaderLease:
    return LeaderLease(ControlDatabase(url), name=TASK, holder=holder, lease_s=LEASE_S, clock=clock)


def acts(url: str, lease: LeaderLease) -> None:
    with ControlDatabase(url).writing() as link:
        lease.check(link)


def test_one_leads_until_it_has_said_nothing_for_a_lease(url: str) -> None:
    """The clocks are days apart: nothing compares them."""
    mine, theirs = Clock(5.0), Clock(1e6)
    first, second = lease_of(url, "first", mine), lease_of(url, "second", theirs)

    assert first.claim()
    assert not second.claim()
    theirs.now_s += LEASE_S * 0.9
    assert not second.claim()
    mine.now_s += LEASE_S * 0.9
    assert first.claim()
    theirs.now_s += LEASE_S * 0.9
    # The beat is another one: the wait begins anew.
    assert not second.claim()
    theirs.now_s += LEASE_S * 1.01
    assert second.claim()
    assert (first.epoch, second.epoch) == (1, 2)


def test_the_lease_of_a_leader_ends_before_another_may_lead(url: str) -> None:
    mine, theirs = Clock(0.0), Clock(0.0)
    first, second = lease_of(url, "first", mine), lease_of(url, "second", theirs)
    first.claim()
    second.claim()
    mine.now_s = theirs.now_s = LEASE_S

    assert not first.is_leader
    assert second.claim()


def test_who_led_once_is_fenced_off(url: str) -> None:
    """It still believes that it leads: its clock stood while it slept."""
    mine, theirs = Clock(0.0), Clock(0.0)
    first, second = lease_of(url, "first", mine), lease_of(url, "second", theirs)
    first.claim()
    acts(url, first)
    second.claim()
    theirs.now_s = LEASE_S
    second.claim()

    assert first.is_leader
    with pytest.raises(LeaderDeposed, match="found epoch 1, expected 2"):
        acts(url, first)
    acts(url, second)
    assert not first.claim()
    with pytest.raises(LeaderDeposed):
        acts(url, first)


def test_who_never_led_does_nothing(url: str) -> None:
    with pytest.raises(LeaderDeposed):
        acts(url, lease_of(url, "first", Clock(0.0)))


def test_who_resigns_is_followed_at_once(url: str) -> None:
    first, second = lease_of(url, "first", Clock(0.0)), lease_of(url, "second", Clock(0.0))
    first.claim()
    second.claim()
    second.resign()
    first.resign()

    assert not first.is_leader
    assert second.claim()
    assert second.epoch == 2
    assert not first.claim()


def test_many_at_once_have_one_leader_and_epochs_only_rise(url: str) -> None:
    claims: list[tuple[str, int]] = []
    begin = threading.Barrier(4)

    def run(holder: str) -> None:
        lease = LeaderLease(ControlDatabase(url), name=TASK, holder=holder, lease_s=30.0)
        begin.wait()
        claims.extend((holder, lease.epoch) for _ in range(5) if lease.claim())

    threads = [threading.Thread(target=run, args=(f"p{place}",)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(claims) == 5
    assert len(set(claims)) == 1


def test_a_database_that_is_away_leaves_the_lease_to_run_out(tmp_path: Path) -> None:
    url, clock = f"sqlite:///{tmp_path}/control.sqlite", Clock(0.0)
    lease = lease_of(url, "first", clock)
    lease.claim()
    (tmp_path / "control.sqlite").unlink()
    (tmp_path / "control.sqlite").mkdir()
    with pytest.raises(ControlUnavailable):
        lease.claim()

    assert lease.is_leader
    clock.now_s = LEASE_S
    assert not lease.is_leader


def test_a_killed_leader_is_followed_within_its_lease(url: str) -> None:
    """Two real processes; the one that leads is killed."""
    processes: list[subprocess.Popen[str]] = []
    try:
        processes.append(candidate(url, "first"))
        assert says(processes[0]) == (1, 1)
        processes.append(candidate(url, "second"))
        assert says(processes[1]) == (0, 0)
        processes[0].send_signal(signal.SIGKILL)
        killed_s = time.monotonic()
        while (said := says(processes[1])) == (0, 0):
            pass
        waited_s = time.monotonic() - killed_s
    finally:
        for process in processes:
            process.kill()
            process.communicate()

    assert said == (1, 2)
    # The lease, and one claim more of the other.
    assert waited_s < KILLED_LEASE_S * (1 + 1 / 3) + 1.0


def candidate(url: str, holder: str) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", CANDIDATE, url, holder, str(KILLED_LEASE_S)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def says(process: subprocess.Popen[str]) -> tuple[int, int]:
    assert process.stdout is not None
    is_leader, epoch = process.stdout.readline().split()
    return int(is_leader), int(epoch)
