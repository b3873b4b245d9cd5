"""The short way to a line says what `Logger.info` says."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from detent.adapters.telemetry import JsonLines
from detent.contracts import events
from detent.rpc.call_lines import say

log = logging.getLogger("detent.test_call_lines")
FACTS = {"method": "X/Y", "code": "OK", "elapsed_ms": 0.5, "refusals": ["A"]}


class Kept(logging.Handler):
    """Keeps records and what a formatter of the standard library makes of them."""

    def __init__(self) -> None:
        super().__init__()
        every = "%(name)s %(levelname)s %(filename)s:%(lineno)d %(message)s %(code)s %(asctime)s"
        self.setFormatter(logging.Formatter(every))
        self.records: list[logging.LogRecord] = []
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self.texts.append(self.format(record))


@pytest.fixture(name="kept")
def _kept() -> Iterator[Kept]:
    kept = Kept()
    log.addHandler(kept)
    log.setLevel(logging.INFO)
    yield kept
    log.removeHandler(kept)


def test_the_line_is_what_the_library_would_have_written(kept: Kept) -> None:
    say(log, events.RPC, FACTS)
    log.info(events.RPC, extra=FACTS)
    ours, theirs = (line_of(record) for record in kept.records)
    at_ms = ours.pop("at_ms")

    assert 0 <= theirs.pop("at_ms") - at_ms < 60_000
    assert ours == theirs
    assert ours["refusals"] == ["A"]


def test_any_other_handler_can_read_the_record(kept: Kept) -> None:
    say(log, events.RPC, FACTS)
    (record,) = kept.records

    assert kept.texts[0].startswith(f"{log.name} INFO ")
    assert " RPC OK " in kept.texts[0]
    assert (record.getMessage(), vars(record)["method"]) == ("RPC", "X/Y")
    assert record.msecs == int(record.created % 1 * 1000)
    assert {*vars(logging.makeLogRecord({}))} <= {*vars(record)}


@pytest.mark.parametrize("level", [logging.WARNING, logging.ERROR])
def test_a_logger_that_does_not_say_it_does_not(kept: Kept, level: int) -> None:
    log.setLevel(level)
    say(log, events.RPC, FACTS)

    assert kept.records == []


def test_a_filter_of_the_logger_counts(kept: Kept) -> None:
    def refuse(record: logging.LogRecord) -> bool:
        return record.msg != events.RPC

    log.addFilter(refuse)
    say(log, events.RPC, FACTS)
    log.removeFilter(refuse)

    assert kept.records == []


def line_of(record: logging.LogRecord) -> dict[str, Any]:
    """Give the line as its fields."""
    fields: dict[str, Any] = json.loads(JsonLines().format(record))
    return fields
