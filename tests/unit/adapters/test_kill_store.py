"""Proves the shared switches over both databases: epochs, readers, and what acknowledged means."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.postgres_server import PostgresServer

from detent.adapters.control_database import ControlDatabase
from detent.adapters.kill_reader import KillSwitchReader
from detent.adapters.kill_store import KillStore, write_reader
from detent.contracts.errors import InvalidField, KillEpochStale
from detent.contracts.kill_switch import KillPosition, KillReader, KillScope
from detent.core.rollout.kill_state import EVERYTHING, STALE_S, is_stale

OFF, RELEASED = KillPosition.OFF, KillPosition.RELEASED
DRILL = {"actor": "ops", "reason": "drill"}


@pytest.fixture(name="database", params=["sqlite", "postgresql"])
def _database(
    request: pytest.FixtureRequest, tmp_path: Path, postgres: PostgresServer
) -> ControlDatabase:
    if request.param == "sqlite":
        return ControlDatabase(f"sqlite:///{tmp_path}/control.sqlite")
    database = ControlDatabase(postgres.url(postgres.fresh_database()))
    database.migrate()
    return database


@pytest.fixture(name="reader")
def _reader(database: ControlDatabase) -> Iterator[KillSwitchReader]:
    reader = KillSwitchReader(database, "reader-1")
    reader.start()
    ends_s = time.monotonic() + 20.0
    while is_stale(reader.state, time.monotonic()) and time.monotonic() < ends_s:
        time.sleep(0.01)
    yield reader
    reader.stop(5.0)


def test_a_change_is_acknowledged_as_soon_as_the_reader_obeys(
    database: ControlDatabase, reader: KillSwitchReader
) -> None:
    done = KillStore(database).change(KillScope.GLOBAL, position=OFF, **DRILL)

    assert (done.applied_count, done.leased_out_count) in ((1, 0), (0, 1))
    assert EVERYTHING in reader.state.on or is_stale(reader.state, time.monotonic())


def test_a_reader_that_says_nothing_is_waited_for_as_long_as_its_lease(
    database: ControlDatabase,
) -> None:
    with database.reading() as link:
        write_reader(
            link, KillReader(reader_id="gone", revision=0, seen_ms=time.time_ns() // 10**6)
        )
    begun_s = time.monotonic()
    done = KillStore(database).change(KillScope.GLOBAL, position=OFF, **DRILL)

    assert time.monotonic() - begun_s >= STALE_S
    assert (done.applied_count, done.leased_out_count) == (0, 1)


def test_an_address_of_no_control_database_is_named_as_one() -> None:
    with pytest.raises(InvalidField, match="control_url: found 'mysql'"):
        ControlDatabase("mysql://host/database")


def test_a_release_names_a_person_and_the_epoch_and_everything_is_kept(
    database: ControlDatabase,
) -> None:
    store = KillStore(database)
    store.change(KillScope.MODEL, "m", position=OFF, **DRILL)
    epoch = store.change(KillScope.MODEL, "m", position=OFF, **DRILL).kill_switch.epoch
    for wrong in (None, epoch - 1, epoch + 1):
        with pytest.raises(KillEpochStale):
            store.change(KillScope.MODEL, "m", position=RELEASED, seen_epoch=wrong, **DRILL)
    with pytest.raises(InvalidField):
        store.change(
            KillScope.MODEL,
            "m",
            position=RELEASED,
            seen_epoch=epoch,
            actor="automatic:failures",
            reason="itself",
        )
    store.change(KillScope.MODEL, "m", position=RELEASED, seen_epoch=epoch, **DRILL)

    assert [(one.epoch, one.position) for one in store.history()] == [
        (1, OFF),
        (2, OFF),
        (3, RELEASED),
    ]
    assert [one.epoch for one in store.switches()] == [3]


def test_changes_at_the_same_time_have_epochs_of_their_own(database: ControlDatabase) -> None:
    store = KillStore(database)
    store.switches()
    threads = [
        threading.Thread(
            target=store.change, args=(KillScope.GLOBAL,), kwargs={"position": OFF, **DRILL}
        )
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)

    assert [one.epoch for one in store.history()] == [1, 2, 3, 4, 5, 6]


def test_a_database_that_was_put_back_releases_nothing(
    database: ControlDatabase, reader: KillSwitchReader
) -> None:
    """A reader takes no lower epoch than it has seen."""
    store = KillStore(database)
    store.change(KillScope.GLOBAL, position=OFF, **DRILL)
    time.sleep(0.5)
    with database.writing() as link:
        link.exec_driver_sql("DELETE FROM kill_switches")
    time.sleep(0.5)

    assert EVERYTHING in reader.state.on
    assert not store.switches()


def test_a_switch_that_this_version_cannot_read_leaves_everything_off(
    database: ControlDatabase, reader: KillSwitchReader
) -> None:
    assert not is_stale(reader.state, time.monotonic())
    with database.writing() as link:
        link.exec_driver_sql(
            "INSERT INTO kill_switches VALUES (9, 'venue', 'X', 'off', 1, 'ops', 'drill', 1)"
        )
    time.sleep(STALE_S + 0.3)

    assert is_stale(reader.state, time.monotonic())
