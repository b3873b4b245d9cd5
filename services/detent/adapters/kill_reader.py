"""Follow the shared kill switches in a thread: five readings a second on one connection.

No decision waits for the database. What hangs, fails or dies leaves the last reading to grow
old, and what is a second old is off.
"""

import logging
import threading
import time
from collections.abc import Mapping

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from detent.adapters.control_database import ControlDatabase
from detent.adapters.kill_store import read_switches, write_reader
from detent.contracts import events
from detent.contracts.errors import DetentError
from detent.contracts.kill_switch import KillReader, KillSwitch
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
        self._reported: tuple[int, float] | None = None
        self._trouble = ""
        self.state = KillState()

    @property
    def switches(self) -> tuple[KillSwitch, ...]:
        """Give every switch as it was read last."""
        return tuple(self._newest.values())

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
        while not self._stopping.is_set():
            # From before the question was asked: an answer that took long says nothing of now.
            begun_s = time.monotonic()
            read = read_switches(link)
            link.rollback()
            self._newest = newest_of([*self._newest.values(), *(switch for switch, _ in read)])
            self.state = state_of(self._newest.values(), read_s=begun_s)
            self._note("")
            self._report(link, max((revision for _, revision in read), default=0), begun_s)
            self._stopping.wait(READ_EVERY_S)

    def _report(self, link: Connection, revision: int, now_s: float) -> None:
        """Say what is obeyed when that changed, and now and then that we are here."""
        if self._reported is not None:
            said, at_s = self._reported
            if said == revision and now_s - at_s < REPORT_EVERY_S:
                return
        seen_ms = time.time_ns() // 1_000_000
        write_reader(
            link, KillReader(reader_id=self._reader_id, revision=revision, seen_ms=seen_ms)
        )
        self._reported = (revision, now_s)

    def _note(self, trouble: str) -> None:
        if trouble != self._trouble:
            event = events.KILL_STATE_LOST if trouble else events.KILL_STATE_READ
            level = logging.ERROR if trouble else logging.INFO
            log.log(level, event, extra={"reader_id": self._reader_id, "cause": trouble})
        self._trouble = trouble
