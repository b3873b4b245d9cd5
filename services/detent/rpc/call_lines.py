"""Write the line of a call: what `Logger.info` writes, for a part of its cost.

`logging` finds out again for each line where it was said, by which thread and which process,
and checks every fact. A call's line needs none of that, and there is one for each call.
"""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping

# Every field that a record has, in its order, so that any handler and formatter can read ours.
_FIELDS = vars(logging.makeLogRecord({"levelno": logging.INFO, "levelname": "INFO"})) | {
    "args": (),
    "thread": None,
    "threadName": None,
    "process": None,
    "processName": None,
}
MS_PER_S = 1000


class CallRecord(logging.LogRecord):
    """A record at INFO that is made by copying one.

    Attributes:
        facts: What the caller gave, once more in one piece.
    """

    facts: Mapping[str, object]

    def __init__(self, name: str, event: str, facts: Mapping[str, object]) -> None:
        # What the base would do here is what this class is there to leave out.
        now_s = time.time()
        msecs = int(now_s % 1 * MS_PER_S)
        fields = {"name": name, "msg": event, "created": now_s, "msecs": float(msecs)}
        self.__dict__ = {**_FIELDS, **fields, **facts, "facts": facts}


class CallWriter(logging.Handler, ABC):
    """Is a handler that can write a call's line from its facts, without a record."""

    @abstractmethod
    def write_call(self, name: str, event: str, facts: Mapping[str, object]) -> None:
        """Write what a logger of this name says at INFO."""


def say(log: logging.Logger, event: str, facts: Mapping[str, object]) -> None:
    """Write one line at INFO.

    Args:
        log: The logger of the module that says it; its level, filters and handlers count.
        event: One of `contracts.events`.
        facts: Fields of the line. None may be named like a field of `logging.LogRecord`.
    """
    if not log.isEnabledFor(logging.INFO):
        return
    writer = _only_writer(log)
    if writer is None:
        log.handle(CallRecord(log.name, event, facts))
    else:
        writer.write_call(log.name, event, facts)


def _only_writer(log: logging.Logger) -> CallWriter | None:
    """Give the one handler that sees what a logger says, where it needs no record for it."""
    here = log
    while here.parent is not None:
        if here.handlers or not here.propagate:
            return None
        here = here.parent
    if log.filters or len(here.handlers) != 1:
        return None
    handler = here.handlers[0]
    if handler.filters or handler.level > logging.INFO or not isinstance(handler, CallWriter):
        return None
    return handler
