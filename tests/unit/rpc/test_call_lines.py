"""The short way to a line says what `Logger.info` says."""

import contextlib
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from detent.adapters.telemetry import JsonLines, JsonLog
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


@contextlib.contextmanager
def alone(stream: io.StringIO) -> Iterator[JsonLog]:
    """Let our handler be the only one, as in a served process; pytest has some of its own."""
    ours, others = JsonLog(stream), logging.root.handlers
    logging.root.handlers = [ours]
    log.setLevel(logging.INFO)
    try:
        yield ours
    finally:
        logging.root.handlers = others
        ours.close()


def test_the_handler_that_needs_no_record_writes_the_same_line() -> None:
    stream = io.StringIO()
    with alone(stream):
        say(log, events.RPC, FACTS)
        log.addFilter(lambda _: True)
        say(log, events.RPC, FACTS)
        log.filters.clear()
    short, long = (json.loads(line) for line in stream.getvalue().splitlines())

    assert 0 <= long.pop("at_ms") - short.pop("at_ms") < 60_000
    assert short == long
    assert list(short)[:3] == ["event", "level", "logger"]


@pytest.mark.parametrize("where", [logging.root, log], ids=["root", "logger"])
def test_a_second_handler_sees_a_record(where: logging.Logger) -> None:
    stream, kept = io.StringIO(), Kept()
    with alone(stream):
        where.addHandler(kept)
        say(log, events.RPC, FACTS)
        where.removeHandler(kept)

    assert len(kept.records) == 1
    assert len(stream.getvalue().splitlines()) == 1


def test_the_level_of_the_only_handler_counts() -> None:
    stream = io.StringIO()
    with alone(stream) as ours:
        ours.setLevel(logging.WARNING)
        say(log, events.RPC, FACTS)

    assert not stream.getvalue()


def test_a_fact_that_cannot_be_written_ends_no_call(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    with alone(stream):
        say(log, events.RPC, {**FACTS, "code": "\ud800"})

    assert not stream.getvalue()
    assert "Logging error" in capsys.readouterr().err


def line_of(record: logging.LogRecord) -> dict[str, Any]:
    """Give the line as its fields."""
    fields: dict[str, Any] = json.loads(JsonLines().format(record))
    return fields
