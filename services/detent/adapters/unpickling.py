"""Keep a process from ever unpickling: a pickle runs code when it is read.

Nothing that serves reads one. Should a library do so all the same, today or after its next
release, the read fails before the first name is looked up, and the log says so.

Source: RELIABILITY table D, row D4.
"""

import logging
import sys

from detent.contracts import events

EVENT = "pickle.find_class"

log = logging.getLogger(__name__)


class UnpicklingRefused(RuntimeError):
    """Something tried to unpickle in a process that must not."""


def forbid_unpickling() -> None:
    """Refuse every unpickling of this process from here on; this cannot be taken back."""
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    if event != EVENT:
        return
    name = ".".join(str(argument) for argument in arguments)
    log.error(events.UNPICKLING_REFUSED, extra={"name_asked_for": name})
    raise UnpicklingRefused(f"unpickling is refused in this process: {name}")
