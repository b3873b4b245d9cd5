"""Read out of the span files where the time of a decision went."""

import collections
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.decide.timing import Timing, timing_of

CALL = "client/DecideTargetWeights"
POLICY = "PolicyService/DecideTargetWeights"
FEATURES = "FeatureService/GetFeatureSnapshots"
INFERENCE = "InferenceService/InferSignals"
# Name of the row, spans that add up to it, spans that are taken off it.
HOPS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("whole call", (CALL,), ()),
    ("client -> policy", (CALL,), (f"SERVER {POLICY}",)),
    ("features", ("features",), ()),
    ("features, in the service", (f"SERVER {FEATURES}",), ()),
    ("inference", ("inference",), ()),
    ("inference, in the service", (f"SERVER {INFERENCE}",), ()),
    ("decide", ("decide",), ()),
    ("record", ("record",), ()),
    (
        "policy, the rest",
        (f"SERVER {POLICY}",),
        ("features", "inference", "decide", "record"),
    ),
)
Hops = list[tuple[str, Timing | None]]


def read_hops(state_dir: Path, *, plan_id: str, from_ts_ms: int) -> Hops:
    """Give every hop of the decisions of one plan, from a bar on.

    Args:
        state_dir: Where the processes and the client wrote their spans.
        plan_id: The plan.
        from_ts_ms: First bar that was measured; what came before was the warm-up.

    Returns:
        Hops in the order of `HOPS`; None for one that this composition does not have.
    """
    traces: dict[str, dict[str, float]] = collections.defaultdict(dict)
    wanted: set[str] = set()
    for span in _spans(state_dir):
        name = span["name"]
        if span["kind"] == "SERVER":
            name = f"SERVER {name}"
        trace_id = span["trace_id"]
        traces[trace_id][name] = _duration_us(span)
        facts = span.get("attributes") or {}
        if facts.get("plan_id") == plan_id and facts.get("ts_ms", 0) >= from_ts_ms:
            wanted.add(trace_id)
    return _summed([traces[trace_id] for trace_id in wanted])


def _summed(traces: list[dict[str, float]]) -> Hops:
    hops: Hops = []
    for name, added, taken in HOPS:
        times_us = [
            sum(trace[part] for part in added) - sum(trace[part] for part in taken)
            for trace in traces
            if all(part in trace for part in (*added, *taken))
        ]
        hops.append((name, timing_of(times_us) if times_us else None))
    return hops


def _spans(state_dir: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(state_dir.glob("*.spans.jsonl")):
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)


def _duration_us(span: dict[str, Any]) -> float:
    nanos: int = span["end_unix_nano"] - span["start_unix_nano"]
    return nanos / 1_000
