"""Read the spans that the demo's processes wrote."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

NANOS_PER_MS = 1e6


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """Holds one finished span; times in milliseconds since the epoch."""

    process: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str | None
    start_ms: float
    end_ms: float
    attributes: dict[str, object]

    @property
    def duration_ms(self) -> float:
        """Give how long it lasted."""
        return self.end_ms - self.start_ms


def read_spans(state_dir: Path) -> list[Span]:
    """Read every span file of a state folder."""
    spans = []
    for path in sorted(state_dir.glob("*.spans.jsonl")):
        process = path.name.partition(".")[0]
        spans += [_span(process, line) for line in path.read_text().splitlines()]
    return spans


def _span(process: str, line: str) -> Span:
    fields = json.loads(line)
    return Span(
        process=process,
        name=fields["name"],
        trace_id=fields["trace_id"],
        span_id=fields["span_id"],
        parent_id=fields["parent_id"],
        start_ms=fields["start_unix_nano"] / NANOS_PER_MS,
        end_ms=fields["end_unix_nano"] / NANOS_PER_MS,
        attributes=fields["attributes"],
    )


def tree(spans: Iterable[Span]) -> list[tuple[int, Span]]:
    """Lay the spans of one trace out as a tree: depth and span, in order of start."""
    children: dict[str | None, list[Span]] = {}
    known = {span.span_id for span in spans}
    for span in spans:
        parent = span.parent_id if span.parent_id in known else None
        children.setdefault(parent, []).append(span)
    laid: list[tuple[int, Span]] = []

    def lay(parent: str | None, depth: int) -> None:
        for span in sorted(children.get(parent, ()), key=lambda child: child.start_ms):
            laid.append((depth, span))
            lay(span.span_id, depth + 1)

    lay(None, 0)
    return laid


def percentile(values: Sequence[float], share: float) -> float:
    """Give the nearest-rank percentile of some values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
