"""Follow the shared kill switches and rollouts in a thread: five readings a second.

Both come from one connection and count from one instant.

No decision waits for the database. What hangs, fails or dies leaves the last reading to grow
old, and what is a second old is off.
"""

import logging
import threading
import time
from collections.abc import Iterable, Mapping

from msgspec import structs
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from detent.adapters.control_database import ControlDatabase
from detent.adapters.control_tables import ROLLOUT_READERS
from detent.adapters.kill_store import read_switches, write_reader
from detent.adapters.rollout_store import newest_revision, read_rollouts
from detent.contracts import events
from detent.contracts.errors import DetentError
from detent.contracts.kill_switch import KillReader, KillSwitch
from detent.contracts.rollout import Rollout
from detent.core.rollout.kill_state import READ_EVERY_S, Key, KillState, newest_of, state_of

log = logging.getLogger(__name__)
# A sign of life where nothing changes.
REPORT_EVERY_S = 10.0


class KillSwitchReader:
    """Owns the thread that reads the switches of one control database."""

    def __init__(self, database: ControlDatabase, reader_id: str) -> None:
        """Read nothing yet: until the first reading everything is off."""
        self._database = database
        self._reader_id = reader_id
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._newest: Mapping[Key, KillSwitch] = {}
        self._rollouts: Mapping[str, Rollout] = {}
        self._learning = threading.Lock()
        # Everything up to it was read; what was learned beside may be newer.
        self.revision = 0
        self._reported: tuple[int, int, float] | None = None
        self._trouble = ""
        self.state = KillState()

    @property
    def switches(self) -> tuple[KillSwitch, ...]:
        """Give every switch as it was read last."""
        return tuple(self._newest.values())

    @property
    def rollouts(self) -> Mapping[str, Rollout]:
        """Give every rollout as it was read last, by its name."""
        return self._rollouts

    def learn(self, rollouts: Iterable[Rollout]) -> None:
        """Take rollouts as they stand; of two with one name the higher revision holds.

        Whoever has seen a revision takes no lower one, so that a database that was put back
        to an earlier day brings no candidate back.
        """
        with self._learning:
            newest = dict(self._rollouts)
            for rollout in rollouts:
                before = newest.get(rollout.rollout_id)
                if before is None or before.revision <= rollout.revision:
                    newest[rollout.rollout_id] = rollout
            self._rollouts = newest
            stages = {name: rollout.stage for name, rollout in newest.items()}
            self.state = structs.replace(self.state, stages=stages)

    def start(self) -> None:
        """Start the thread, unless it runs."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="kill-reader", daemon=True)
            self._thread.start()

    def stop(self, wait_s: float = 0.5) -> None:
        """End the thread; one that hangs in the database ends with the process."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(wait_s)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._database.reading() as link:
                    self._follow(link)
            except (DetentError, SQLAlchemyError, ValueError) as error:
                # What we cannot read is not known either, and so grows old.
                self._note(type(error).__name__)
                self._stopping.wait(READ_EVERY_S)

    def _follow(self, link: Connection) -> None:
        known: int | None = None
        if self._reported is None:
            # Named before its first reading counts, so that no acknowledgement overlooks it.
            self._report(link, 0, 0, time.monotonic())
        while not self._stopping.is_set():
            # From before the question was asked: an answer that took long says nothing of now.
            begun_s = time.monotonic()
            read = read_switches(link)
            known = self._read_rollouts(link, known)
            link.rollback()
            self._newest = newest_of([*self._newest.values(), *(switch for switch, _ in read)])
            with self._learning:
                stages = self.state.stages
                self.state = state_of(self._newest.values(), read_s=begun_s, stages=stages)
            self._note("")
            switched = max((revision for _, revision in read), default=0)
            self._report(link, switched, known or 0, begun_s)
            self._stopping.wait(READ_EVERY_S)

    def _read_rollouts(self, link: Connection, known: int | None) -> int:
        """Read the rollouts that changed since a revision; all of them on a new connection."""
        newest = newest_revision(link)
        if newest != known:
            # One that lies lower than ours is of a database that was put back: read it whole.
            is_later = known is not None and newest > known
            self.learn(read_rollouts(link, known if is_later and known else 0))
            self.revision = newest
        return newest

    def _report(self, link: Connection, switched: int, rolled: int, now_s: float) -> None:
        """Say what is obeyed when that changed, and now and then that we are here."""
        before = self._reported
        is_known = before is not None and before[:2] == (switched, rolled)
        if is_known and before is not None and now_s - before[2] < REPORT_EVERY_S:
            return
        seen_ms = time.time_ns() // 1_000_000
        reader = KillReader(reader_id=self._reader_id, revision=switched, seen_ms=seen_ms)
        write_reader(link, reader)
        write_reader(link, structs.replace(reader, revision=rolled), ROLLOUT_READERS)
        self._reported = (switched, rolled, now_s)

    def _note(self, trouble: str) -> None:
        if trouble != self._trouble:
            event = events.KILL_STATE_LOST if trouble else events.KILL_STATE_READ
            level = logging.ERROR if trouble else logging.INFO
            log.log(level, event, extra={"reader_id": self._reader_id, "cause": trouble})
        self._trouble = trouble
