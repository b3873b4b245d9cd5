"""Watch a file that switches models off without any service.

No file, nothing off. A file holds one scope a line: `global`, `model:ID`, `plan:ID` or
`symbol:NAME`; what follows a `#` is a comment. A file without a scope is `global`, and so is one
that cannot be read or holds anything else: in doubt off.
"""

from collections.abc import Callable
from pathlib import Path

from detent.contracts.errors import InvalidField
from detent.contracts.kill_switch import parse_scope
from detent.core.rollout.kill_state import EVERYTHING, READ_EVERY_S, Key

BYTES_MAX = 1 << 20
ALL_OFF = frozenset({EVERYTHING})


class KillFile:
    """Gives what a file holds, looked at five times a second at most."""

    def __init__(self, path: Path, *, clock: Callable[[], float]) -> None:
        """Take the path, which need not exist, and the monotonic clock in seconds."""
        self._path = path
        self._clock = clock
        self._looked_s: float | None = None
        self._off: frozenset[Key] = ALL_OFF

    def off(self) -> frozenset[Key]:
        """Give what is off now."""
        now_s = self._clock()
        if self._looked_s is None or not 0.0 <= now_s - self._looked_s < READ_EVERY_S:
            self._off, self._looked_s = _read(self._path), now_s
        return self._off


def _read(path: Path) -> frozenset[Key]:
    try:
        with path.open("rb") as file:
            content = file.read(BYTES_MAX + 1)
    except FileNotFoundError:
        return frozenset()
    except OSError:
        return ALL_OFF
    if len(content) > BYTES_MAX:
        return ALL_OFF
    try:
        return parse_kill_file(content.decode("ascii"))
    except (UnicodeDecodeError, InvalidField):
        return ALL_OFF


def parse_kill_file(text: str) -> frozenset[Key]:
    """Read the scopes of a file.

    Raises:
        InvalidField: A line names no scope; names the line by its number from 1 on.
    """
    found = set()
    for number, line in enumerate(text.splitlines(), 1):
        said = line.partition("#")[0].strip()
        if said:
            try:
                found.add(parse_scope(said))
            except InvalidField as error:
                raise error.under(f"line {number}") from error
    return frozenset(found) or ALL_OFF
