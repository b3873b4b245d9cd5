"""Write lines a moment after they were made, many with one write, off the caller's thread.

A write and a flush per line cost a served call more than the line itself. What may wait, waits
here: at most `DELAY_S` long, at most `LINES_MAX` lines, and what finds no room is counted.
"""

import collections
import queue
import threading
from collections.abc import Callable

# How long a line may wait: what a kill takes with it, and what a reader of the file is behind.
DELAY_S = 0.2
# More than three hundred thousand lines a second must come before a sound disk loses one.
LINES_MAX = 65_536


class LateLines:
    """Holds lines back and writes them, in order, from a thread that sleeps while there are none.

    `put` takes no lock, so a line that is made while another one is being made, by a
    destructor or a signal, is one more line and never a deadlock.
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        *,
        on_lost: Callable[[int], None],
        delay_s: float = DELAY_S,
        lines_max: int = LINES_MAX,
    ) -> None:
        """Start the thread.

        Args:
            write: Writes and flushes; where it raises `OSError`, its lines are lost and counted.
            on_lost: Told how many lines were lost, after a write that went well and at the end.
            delay_s: How long a line may wait, in seconds.
            lines_max: How many may wait.
        """
        self._write = write
        self._on_lost = on_lost
        self._delay_s = delay_s
        self._lines_max = lines_max
        self._waiting: collections.deque[bytes] = collections.deque()
        self._lost = 0
        # Taken again by their own holder: a destructor may log while lines are written. Two of
        # them: who only counts a lost line must not wait for the write that could not keep up.
        self._writing = threading.RLock()
        self._counting = threading.RLock()
        self._is_due = False
        self._due: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="late-lines", daemon=True)
        self._thread.start()

    def put(self, line: bytes) -> None:
        """Have a line written soon; one that finds no room is dropped and counted."""
        if len(self._waiting) >= self._lines_max:
            self._lose(1)
            return
        self._waiting.append(line)
        if not self._is_due:
            self._is_due = True
            self._due.put(item=True)

    def put_now(self, line: bytes) -> None:
        """Write what waits and then this line, before anything else happens."""
        with self._writing:
            self._write_all([*self._taken(), line])

    def flush(self) -> None:
        """Write what waits."""
        with self._writing:
            self._write_all(self._taken())

    def close(self) -> None:
        """Write what waits, say what was lost, and end the thread; then only `put_now` works."""
        self._lines_max = 0
        self._ending.set()
        self._due.put(item=True)
        if self._thread is not threading.current_thread():
            self._thread.join()
        self.flush()
        self._say_lost()

    def _run(self) -> None:
        while self._due.get() and not self._ending.wait(self._delay_s):
            # Before the lines are taken: one that comes in between asks for the next turn.
            self._is_due = False
            self.flush()

    def _taken(self) -> list[bytes]:
        return [self._waiting.popleft() for _ in range(len(self._waiting))]

    def _write_all(self, lines: list[bytes]) -> None:
        if not lines:
            return
        try:
            self._write(b"".join(lines))
        except (OSError, ValueError):
            # No space, no reader, or a file that is closed already: the caller goes on.
            self._lose(len(lines))
            return
        self._say_lost()

    def _say_lost(self) -> None:
        with self._counting:
            lost, self._lost = self._lost, 0
        if not lost:
            return
        try:
            self._on_lost(lost)
        except (OSError, ValueError):
            self._lose(lost)

    def _lose(self, count: int) -> None:
        with self._counting:
            self._lost += count
