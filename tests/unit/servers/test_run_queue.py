"""The queue in front of the session: joining, isolation, expiry, cancellation, shedding."""

import asyncio
import threading
import time

import numpy as np
import pytest
from numpy.typing import NDArray

from detent.contracts.errors import InternalError
from detent.contracts.reasons import Reason
from detent.servers.inference.run_queue import QueueLimits, Ran, RunQueue

Floats = NDArray[np.float32]
POISON = 13.0


class Graph:
    """Doubles its input, fails on poison, and can be held until it is let go."""

    def __init__(self) -> None:
        self.runs: list[int] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, inputs: Floats) -> tuple[Floats, ...]:
        self.gate.wait(5)
        self.runs.append(len(inputs))
        if (inputs == POISON).any():
            raise InternalError("poison")
        return (inputs * 2,)


def rows(*values: float) -> Floats:
    return np.array(values, dtype=np.float32)[:, np.newaxis]


def queue_of(graph: Graph, *, row_s: float = 0.0, **limits: float) -> RunQueue:
    bounds = QueueLimits(**limits)  # type: ignore[arg-type]
    return RunQueue(
        graph,
        columns=lambda _: None,
        limits=bounds,
        cost_s=lambda rows: rows * row_s,
        clock=time.monotonic,
    )


def soon() -> float:
    return time.monotonic() + 5


def values_of(ran: Ran) -> list[float]:
    assert not isinstance(ran.outputs, Reason)
    return ran.outputs[0][:, 0].tolist()  # type: ignore[no-any-return]


async def test_calls_that_arrive_together_share_one_run() -> None:
    graph = Graph()
    queue = queue_of(graph, row_s=1e-9, window_s=1e-4)

    rans = await asyncio.gather(*(queue.run(rows(n, n + 0.5), expires_s=soon()) for n in range(8)))

    assert graph.runs == [16]
    assert [values_of(ran) for ran in rans] == [[2.0 * n, 2.0 * n + 1] for n in range(8)]
    assert all(ran.latency_us >= 1 for ran in rans)


async def test_a_window_joins_calls_that_arrive_one_after_the_other() -> None:
    graph = Graph()
    queue = queue_of(graph, row_s=1e-9, window_s=0.05)

    first = asyncio.create_task(queue.run(rows(1), expires_s=soon()))
    await asyncio.sleep(0.005)
    second = asyncio.create_task(queue.run(rows(2), expires_s=soon()))

    assert [values_of(await first), values_of(await second)] == [[2.0], [4.0]]
    assert graph.runs == [2]


async def test_without_a_window_they_run_apart() -> None:
    graph = Graph()
    queue = queue_of(graph, row_s=1e-9)

    first = asyncio.create_task(queue.run(rows(1), expires_s=soon()))
    await asyncio.sleep(0.005)
    await queue.run(rows(2), expires_s=soon())
    await first

    assert graph.runs == [1, 1]


async def test_of_short_calls_that_arrive_together_the_first_waits_for_nobody() -> None:
    """What came with it shares one run, on the loop's own thread; the next turn begins anew."""
    graph = Graph()
    queue = queue_of(graph, row_s=1e-9)

    rans = await asyncio.gather(*(queue.run(rows(n), expires_s=soon()) for n in range(6)))
    together = list(graph.runs)
    later = await queue.run(rows(9), expires_s=soon())

    assert together == [1, 5]
    assert graph.runs[2:] == [1]
    assert [values_of(ran) for ran in (*rans, later)] == [[2.0 * n] for n in (*range(6), 9)]


async def test_where_calls_come_together_all_of_a_turn_share_a_run() -> None:
    """The first of a turn waits for the others in it, until one comes alone again."""
    graph = Graph()
    queue = queue_of(graph, row_s=1e-9)

    async def turn(count: int) -> list[int]:
        graph.runs.clear()
        await asyncio.gather(*(queue.run(rows(n), expires_s=soon()) for n in range(count)))
        return list(graph.runs)

    assert await turn(6) == [1, 5]
    assert await turn(6) == [6]
    assert await turn(1) == [1]
    assert await turn(6) == [1, 5]


async def test_joining_makes_no_long_run_of_short_ones() -> None:
    """Each call fits on the loop's thread, two do; three would go to a worker."""
    graph = Graph()
    queue = queue_of(graph, row_s=1e-3, inline_s_max=2.5e-3)
    graph.gate.set()

    await asyncio.gather(*(queue.run(rows(n), expires_s=soon()) for n in range(6)))

    assert graph.runs[0] == 1
    assert max(graph.runs) <= 2
    assert sum(graph.runs) == 6


async def test_a_short_call_behind_a_long_run_expires_in_time() -> None:
    """It was next when it came, and the run that then took its place is held."""
    graph = Graph()
    queue = queue_of(graph, row_s=1e-3, inline_s_max=1.5e-3)
    graph.gate.clear()
    held = asyncio.create_task(queue.run(rows(1, 2, 3), expires_s=soon()))
    short = asyncio.create_task(queue.run(rows(4), expires_s=time.monotonic() + 0.05))

    ran = await asyncio.wait_for(short, 2)
    graph.gate.set()
    await held

    assert ran.outputs is Reason.INFERENCE_DEADLINE
    queue.close()


@pytest.mark.parametrize("row_s", [1e-9, 1.0], ids=["inline", "on a worker"])
async def test_a_bad_row_does_not_touch_its_neighbours(row_s: float) -> None:
    graph = Graph()
    queue = queue_of(graph, row_s=row_s)
    calls = [rows(1), rows(POISON), rows(3, 4)]

    rans = await asyncio.gather(*(queue.run(one, expires_s=soon() + 60) for one in calls))

    assert [values_of(rans[0]), values_of(rans[2])] == [[2.0], [6.0, 8.0]]
    assert rans[1].outputs is Reason.INFERENCE_ERROR
    assert isinstance(rans[1].error, InternalError)
    queue.close()


async def test_calls_are_joined_while_the_workers_are_busy() -> None:
    graph = Graph()
    queue = queue_of(graph, row_s=1e-6, inline_s_max=0.0)
    graph.gate.clear()
    running = asyncio.create_task(queue.run(rows(0), expires_s=soon()))
    await asyncio.sleep(0.01)
    waiting = [asyncio.create_task(queue.run(rows(n), expires_s=soon())) for n in (1, 2, 3)]
    await asyncio.sleep(0.01)
    graph.gate.set()

    assert [values_of(ran) for ran in await asyncio.gather(running, *waiting)] == [
        [0.0],
        [2.0],
        [4.0],
        [6.0],
    ]
    assert graph.runs == [1, 3]
    queue.close()


async def test_a_run_takes_no_more_rows_than_it_may() -> None:
    graph = Graph()
    queue = queue_of(graph, row_s=1e-9, rows_per_run=5, window_s=1e-4)

    await asyncio.gather(*(queue.run(rows(1, 2), expires_s=soon()) for _ in range(5)))

    assert graph.runs == [4, 4, 2]


async def test_one_call_larger_than_a_run_is_run_whole() -> None:
    graph = Graph()
    queue = queue_of(graph, row_s=1e-9, rows_per_run=2)

    ran = await queue.run(rows(1, 2, 3), expires_s=soon())

    assert values_of(ran) == [2.0, 4.0, 6.0]


async def test_what_expires_while_it_waits_is_never_run() -> None:
    graph = Graph()
    queue = queue_of(graph, row_s=0.001)
    graph.gate.clear()
    running = asyncio.create_task(queue.run(rows(1), expires_s=soon()))
    await asyncio.sleep(0.01)

    late = await queue.run(rows(2), expires_s=time.monotonic() + 0.2)
    graph.gate.set()

    assert late.outputs is Reason.INFERENCE_DEADLINE
    assert values_of(await running) == [2.0]
    await asyncio.sleep(0.02)
    assert graph.runs == [1]
    assert queue.rows_waiting == 0
    queue.close()


async def test_what_arrives_expired_is_refused_at_once() -> None:
    graph = Graph()
    queue = queue_of(graph)

    rans = [await queue.run(rows(1), expires_s=time.monotonic() - 1) for _ in range(10_000)]

    assert {ran.outputs for ran in rans} == {Reason.INFERENCE_DEADLINE}
    assert graph.runs == []


async def test_cancelled_calls_leave_the_queue() -> None:
    graph = Graph()
    queue = queue_of(graph, row_s=1e-6, inline_s_max=0.0)
    graph.gate.clear()
    running = asyncio.create_task(queue.run(rows(1), expires_s=soon()))
    await asyncio.sleep(0.01)
    left = [asyncio.create_task(queue.run(rows(2), expires_s=soon())) for _ in range(10_000)]
    await asyncio.sleep(0)

    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    graph.gate.set()
    await running
    after = await queue.run(rows(3), expires_s=soon())

    assert values_of(after) == [6.0]
    assert graph.runs == [1, 1]
    queue.close()


async def test_a_full_queue_refuses_and_stays_usable() -> None:
    graph = Graph()
    queue = queue_of(graph, row_s=1e-6, inline_s_max=0.0, rows_waiting_max=4)
    graph.gate.clear()
    running = asyncio.create_task(queue.run(rows(1), expires_s=soon()))
    await asyncio.sleep(0.01)
    held = [asyncio.create_task(queue.run(rows(2, 3), expires_s=soon())) for _ in range(2)]
    await asyncio.sleep(0)

    refused = await queue.run(rows(4), expires_s=soon())
    graph.gate.set()

    assert refused.outputs is Reason.INFERENCE_OVERLOADED
    assert [values_of(await one) for one in held] == [[4.0, 6.0]] * 2
    await running
    assert values_of(await queue.run(rows(5), expires_s=soon())) == [10.0]
    queue.close()


async def test_what_could_not_be_answered_in_time_is_shed_before_it_waits() -> None:
    graph = Graph()
    queue = queue_of(graph, row_s=0.01)
    graph.gate.clear()
    running = asyncio.create_task(queue.run(rows(1), expires_s=soon()))
    await asyncio.sleep(0.01)

    started_s = time.monotonic()
    shed = await queue.run(rows(*range(100)), expires_s=time.monotonic() + 0.5)
    waited_s = time.monotonic() - started_s
    graph.gate.set()

    assert shed.outputs is Reason.INFERENCE_OVERLOADED
    assert waited_s < 0.4
    await running
    queue.close()


async def test_of_calls_that_arrive_together_those_too_late_are_shed_without_a_worker() -> None:
    """Each run is short enough for the loop's thread; ten are longer than anybody waits."""
    graph = Graph()
    queue = queue_of(graph, row_s=1.0, inline_s_max=2.0)

    calls = (queue.run(rows(n), expires_s=time.monotonic() + 5.5) for n in range(10))
    rans = await asyncio.gather(*calls)

    shed = [ran.outputs is Reason.INFERENCE_OVERLOADED for ran in rans]
    assert shed == [False] * 6 + [True] * 4
    assert sum(graph.runs) == 6
    assert values_of(await queue.run(rows(5), expires_s=soon())) == [10.0]
    queue.close()


async def test_workers_run_side_by_side() -> None:
    started = threading.Barrier(2, timeout=5)

    def run(inputs: Floats) -> tuple[Floats, ...]:
        started.wait()
        return (inputs,)

    limits = QueueLimits(workers=2, inline_s_max=0.0, rows_per_run=1)
    queue = RunQueue(
        run, columns=lambda _: None, limits=limits, cost_s=lambda _: 1e-6, clock=time.monotonic
    )

    rans = await asyncio.gather(*(queue.run(rows(n), expires_s=soon()) for n in range(2)))

    assert [values_of(ran) for ran in rans] == [[0.0], [1.0]]
    queue.close()


async def test_a_crash_of_the_run_is_an_error_and_not_a_hang() -> None:
    def run(_: Floats) -> tuple[Floats, ...]:
        raise ZeroDivisionError

    limits = QueueLimits(inline_s_max=0.0)
    queue = RunQueue(
        run, columns=lambda _: None, limits=limits, cost_s=lambda _: 1e-6, clock=time.monotonic
    )

    ran = await queue.run(rows(1), expires_s=soon())

    assert ran.outputs is Reason.INFERENCE_ERROR
    queue.close()
