"""Proves rollouts over both databases: revisions, one live rollout of a book, what is kept."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs
from tests.postgres_server import PostgresServer
from tests.rollout_host import BY, CANDIDATE, RAMP, STABLE

from detent.adapters.control_database import ControlDatabase
from detent.adapters.kill_reader import KillSwitchReader
from detent.adapters.rollout_store import RolloutStore
from detent.contracts.errors import (
    DetentError,
    RolloutConflict,
    RolloutNotFound,
    RolloutRevisionStale,
)
from detent.contracts.reasons import Reason
from detent.contracts.rollout import (
    PlanRollout,
    Rollout,
    RolloutAction,
    RolloutArm,
    RolloutStage,
)
from detent.contracts.units import TS_MS_MIN
from detent.core.rollout.kill_state import STALE_S, KillReading, is_stale, rollout_reason

ROLLOUT = Rollout(
    rollout_id="r1",
    book="main",
    symbols=("BTCUSDT", "ETHUSDT", "SOLUSDT"),
    stable_binding=STABLE,
    candidate_binding=CANDIDATE,
    salt="r1",
    ramp=RAMP,
    since_ms=TS_MS_MIN,
)
ARM = PlanRollout(rollout_id="r1", arm=RolloutArm.CANDIDATE, canary_bps=5_000, revision=2)


@pytest.fixture(name="database", params=["sqlite", "postgresql"])
def _database(
    request: pytest.FixtureRequest, tmp_path: Path, postgres: PostgresServer
) -> ControlDatabase:
    if request.param == "sqlite":
        return ControlDatabase(f"sqlite:///{tmp_path}/control.sqlite")
    database = ControlDatabase(postgres.url(postgres.fresh_database()))
    database.migrate()
    return database


@pytest.fixture(name="store")
def _store(database: ControlDatabase) -> RolloutStore:
    return RolloutStore(database)


@pytest.fixture(name="reader")
def _reader(database: ControlDatabase) -> Iterator[KillSwitchReader]:
    reader = KillSwitchReader(database, "reader-1")
    reader.start()
    ends_s = time.monotonic() + 20.0
    while is_stale(reader.state, time.monotonic()) and time.monotonic() < ends_s:
        time.sleep(0.01)
    yield reader
    reader.stop(5.0)


def reason_now(reader: KillSwitchReader) -> Reason | None:
    return rollout_reason(KillReading(shared=reader.state, now_s=time.monotonic()), ARM)


def test_what_is_kept_is_what_was_done_in_its_order(store: RolloutStore) -> None:
    first = store.start(ROLLOUT, **BY)
    second = store.set_percent("r1", 5_000, seen_revision=first.revision, **BY)
    third = store.set_percent("r1", 10_000, seen_revision=second.revision, **BY)
    full = store.promote("r1", seen_revision=third.revision, evidence='{"brier":1}', **BY)
    done = store.roll_back("r1", evidence='{"e_value":21}', **BY)
    history = store.history("r1")

    assert store.get("r1") == done.rollout
    assert store.rollouts("main") == [done.rollout]
    assert store.rollouts("other") == []
    assert full.stage is RolloutStage.FULL
    assert [one.action for one in history] == [
        RolloutAction.STARTED,
        RolloutAction.PERCENT_SET,
        RolloutAction.PERCENT_SET,
        RolloutAction.PROMOTED,
        RolloutAction.ROLLED_BACK,
    ]
    assert [one.evidence for one in history][-2:] == ['{"brier":1}', '{"e_value":21}']
    assert [one.revision for one in history] == sorted({one.revision for one in history})
    assert history[-1].revision == done.rollout.revision
    # Again it changes nothing.
    assert store.roll_back("r1", **BY).rollout == done.rollout
    assert len(store.history()) == len(history)


def test_of_many_who_saw_the_same_one_changes_it(store: RolloutStore) -> None:
    seen = store.start(ROLLOUT, **BY).revision
    results: list[object] = []

    def change() -> None:
        try:
            results.append(store.set_percent("r1", 5_000, seen_revision=seen, **BY))
        except DetentError as error:
            results.append(error)

    threads = [threading.Thread(target=change) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)

    assert sum(isinstance(one, Rollout) for one in results) == 1
    assert sum(isinstance(one, RolloutRevisionStale) for one in results) == 4


def test_a_book_has_one_live_rollout_and_a_promoted_one_ends_with_the_next(
    store: RolloutStore,
) -> None:
    first = store.start(ROLLOUT, **BY)
    second = structs.replace(ROLLOUT, rollout_id="r2")
    with pytest.raises(RolloutConflict):
        store.start(second, **BY)
    assert store.start(ROLLOUT, **BY) == first
    with pytest.raises(RolloutConflict):
        store.start(structs.replace(ROLLOUT, salt="other"), **BY)
    # Another book is another matter.
    store.start(structs.replace(ROLLOUT, rollout_id="r3", book="second"), **BY)
    store.promote("r1", seen_revision=first.revision, override_reason="drill", **BY)
    store.start(second, **BY)

    assert store.get("r1").stage is RolloutStage.ENDED
    assert [one.action for one in store.history("r1")][-1] is RolloutAction.ENDED
    with pytest.raises(RolloutNotFound):
        store.get("nobody")


@pytest.mark.proves("R139")
def test_a_rollback_is_acknowledged_when_the_reader_obeys(
    store: RolloutStore, reader: KillSwitchReader
) -> None:
    """Twenty drills: from the command to obeyed, well within a second and within any bar."""
    taken_s = []
    for number in range(20):
        rollout = structs.replace(ROLLOUT, rollout_id=f"r{number}", salt="r1")
        seen = store.start(rollout, **BY).revision
        store.set_percent(f"r{number}", 5_000, seen_revision=seen, **BY)
        begun_s = time.monotonic()
        done = store.roll_back(f"r{number}", **BY)
        taken_s.append(time.monotonic() - begun_s)
        arm = structs.replace(ARM, rollout_id=f"r{number}")
        reading = KillReading(shared=reader.state, now_s=time.monotonic())

        # Whoever has not obeyed by then is stale, and stale is off.
        assert rollout_reason(reading, arm) is Reason.ROLLED_BACK or is_stale(
            reader.state, time.monotonic()
        )
        assert done.applied_count + done.leased_out_count == 1
    assert sorted(taken_s)[len(taken_s) // 2] < STALE_S


@pytest.mark.proves("R322")
def test_a_database_that_was_put_back_brings_no_candidate_back(
    database: ControlDatabase, store: RolloutStore, reader: KillSwitchReader
) -> None:
    seen = store.start(ROLLOUT, **BY).revision
    before = store.set_percent("r1", 5_000, seen_revision=seen, **BY)
    store.roll_back("r1", **BY)
    ends_s = time.monotonic() + 10.0
    while reason_now(reader) is not Reason.ROLLED_BACK and time.monotonic() < ends_s:
        time.sleep(0.02)
    with database.writing() as link:
        link.exec_driver_sql("DELETE FROM rollouts")
    time.sleep(0.5)
    reader.learn([before])

    assert reason_now(reader) is Reason.ROLLED_BACK


def test_a_rollout_that_nobody_knows_is_in_no_canary(reader: KillSwitchReader) -> None:
    stranger = structs.replace(ARM, rollout_id="stranger")
    reading = KillReading(shared=reader.state, now_s=time.monotonic())
    alone = KillReading(now_s=time.monotonic())

    assert rollout_reason(reading, stranger) is Reason.NOT_IN_CANARY
    # Without a control database there is no canary either, and the stable arm goes on.
    assert rollout_reason(alone, ARM) is Reason.NOT_IN_CANARY
    assert rollout_reason(alone, structs.replace(ARM, arm=RolloutArm.STABLE)) is None
    assert rollout_reason(alone, None) is None
