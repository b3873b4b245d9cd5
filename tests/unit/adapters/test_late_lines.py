"""Lines that may wait: written in order and soon, never in the way, and counted when lost."""

import threading
import time
from collections.abc import Iterator

import pytest

from detent.adapters.late_lines import LateLines

FOREVER_S = 60.0
SOON_S = 5.0


class Sink:
    """Keeps what was written; refuses, or blocks, when told to."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.error: Exception | None = None
        self.lost: list[int] = []
        self.written = threading.Event()
        self.opened = threading.Event()
        self.opened.set()

    def write(self, lines: bytes) -> None:
        assert self.opened.wait(SOON_S)
        if self.error is not None:
            raise self.error
        self.writes.append(lines)
        self.written.set()

    @property
    def lines(self) -> list[bytes]:
        return b"".join(self.writes).splitlines()


@pytest.fixture(name="sink")
def _sink() -> Sink:
    return Sink()


@pytest.fixture(name="late")
def _late(sink: Sink) -> Iterator[LateLines]:
    """Lines that wait until somebody asks for them."""
    late = LateLines(sink.write, on_lost=sink.lost.append, delay_s=FOREVER_S, lines_max=10)
    yield late
    late.close()


def test_a_line_is_written_by_itself_within_the_delay(sink: Sink) -> None:
    late = LateLines(sink.write, on_lost=sink.lost.append, delay_s=0.01)
    late.put(b"one\n")

    assert sink.written.wait(SOON_S)
    sink.written.clear()
    late.put(b"two\n")
    assert sink.written.wait(SOON_S), "the thread serves more than one turn"
    late.close()
    assert sink.lines == [b"one", b"two"]


def test_lines_that_wait_are_one_write_in_order(sink: Sink, late: LateLines) -> None:
    for number in range(5):
        late.put(b"%d\n" % number)

    assert sink.writes == []
    late.flush()
    assert sink.writes == [b"0\n1\n2\n3\n4\n"]


def test_a_line_that_must_not_wait_takes_those_before_it_along(sink: Sink, late: LateLines) -> None:
    late.put(b"waits\n")
    late.put_now(b"now\n")

    assert sink.writes == [b"waits\nnow\n"]


def test_closing_writes_what_waits_and_does_not_sit_out_the_delay(sink: Sink) -> None:
    late = LateLines(sink.write, on_lost=sink.lost.append, delay_s=FOREVER_S)
    late.put(b"last\n")
    started_s = time.monotonic()
    late.close()

    assert sink.lines == [b"last"]
    assert time.monotonic() - started_s < SOON_S
    late.put_now(b"after\n")
    assert sink.lines == [b"last", b"after"]


def test_a_line_without_room_is_dropped_and_counted(sink: Sink, late: LateLines) -> None:
    for number in range(13):
        late.put(b"%d\n" % number)
    late.flush()

    assert len(sink.lines) == 10
    assert sink.lost == [3]
    late.put(b"again\n")
    late.flush()
    assert sink.lines[-1] == b"again"
    assert sink.lost == [3], "what was said once is not said again"


@pytest.mark.parametrize("error", [OSError("no space"), ValueError("closed file")])
def test_a_failed_write_is_counted_and_said_when_one_succeeds(
    sink: Sink, late: LateLines, error: Exception
) -> None:
    sink.error = error
    late.put(b"a\n")
    late.put_now(b"b\n")

    assert sink.lost == []
    sink.error = None
    late.put_now(b"c\n")
    assert sink.lines == [b"c"]
    assert sink.lost == [2]


def test_a_report_that_fails_is_made_again(sink: Sink) -> None:
    reports: list[int] = []

    def report(count: int) -> None:
        reports.append(count)
        if len(reports) == 1:
            raise OSError("no space")

    late = LateLines(sink.write, on_lost=report, delay_s=FOREVER_S, lines_max=1)
    late.put(b"kept\n")
    late.put(b"lost\n")
    late.flush()
    late.close()

    assert reports == [1, 1]


def test_a_write_that_hangs_holds_up_nobody_who_can_wait(sink: Sink, late: LateLines) -> None:
    sink.opened.clear()
    late.put(b"stuck\n")
    writer = threading.Thread(target=late.flush)
    writer.start()
    while late._waiting:
        time.sleep(0.001)

    for _ in range(12):
        late.put(b"next\n")
    sink.opened.set()
    writer.join()
    late.flush()

    assert len(sink.lines) == 11
    assert sink.lost == [2]


def test_lines_of_many_threads_are_all_there_and_whole(sink: Sink) -> None:
    late = LateLines(sink.write, on_lost=sink.lost.append, delay_s=0.001)

    def speak(name: int) -> None:
        for number in range(500):
            (late.put_now if number % 50 == 0 else late.put)(b"%d %d\n" % (name, number))

    threads = [threading.Thread(target=speak, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    late.close()

    pairs = [tuple(map(int, line.split())) for line in sink.lines]
    assert sorted(pairs) == [(name, number) for name in range(4) for number in range(500)]
    assert all(
        [number for who, number in pairs if who == name] == list(range(500)) for name in range(4)
    ), "each thread's lines stay in their order"
