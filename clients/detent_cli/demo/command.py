"""Be the command: build, start, stream, report."""

import asyncio
import collections
import datetime as dt
import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from detent.contracts.binding import SignalSource
from detent.contracts.errors import DataInvalid
from detent_cli.demo.run import Outcome, stream_bars
from detent_cli.demo.spans import Span, percentile, read_spans
from detent_cli.demo.strategist import demo_plan
from detent_cli.output import (
    JsonFlag,
    bad,
    console,
    errors,
    good,
    print_facts,
    print_json,
    print_rows,
    reported,
    stages_of,
)
from detent_cli.stack import Stack, StackOptions
from detent_client import read_binding

HORIZON_BARS = 4
STREAM_SHARE = 0.25
STREAM_BARS_MAX = 1_500
BARS_MIN = 1_200
HOPS = (
    ("client, whole decision", "client", "client/DecideTargetWeights"),
    ("policy", "policy", "PolicyService/DecideTargetWeights"),
    ("policy: features", "policy", "features"),
    ("feature service", "feature", "FeatureService/GetFeatureSnapshots"),
    ("policy: inference", "policy", "inference"),
    ("inference service", "inference", "InferenceService/InferSignals"),
    ("policy: decide", "policy", "decide"),
    ("policy: record, durable", "policy", "record"),
)


def demo(
    *,
    data: Annotated[
        Path, typer.Option(help="Bars: .parquet or .csv (open times), or the EURUSD wheel.")
    ],
    out: Annotated[Path, typer.Option(help="Everything is written here.")] = Path("out/demo"),
    as_json: JsonFlag = False,
) -> None:
    """Train and pin a model on real bars, decide the rest, and kill inference on the way."""
    out = out.resolve()
    for name in ("artifacts", "datasets", "state"):
        shutil.rmtree(out / name, ignore_errors=True)
    screen = errors if as_json else console
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with (
        reported(as_json=as_json),
        Progress(*columns, TimeElapsedColumn(), console=screen) as progress,
    ):
        outcome, spans, interval_ms = _run(data, out, progress)
        report = _report(out, outcome, spans, interval_ms=interval_ms)
    if as_json:
        print_json(_summary(outcome, spans) | {"report": str(report)})
        return
    _print_summary(outcome, spans)
    console.print(f"report: [bold]{_shown(report)}[/]")


def _run(data: Path, out: Path, progress: Progress) -> tuple[Outcome, list[Span], int]:
    # Imported here: a strategist's installation has no training libraries.
    from detent.adapters.telemetry import Telemetry  # noqa: PLC0415
    from detent.offline.commands import load_table  # noqa: PLC0415
    from detent.offline.walk_forward.demonstration import train_demo_model  # noqa: PLC0415

    table = load_table(data)
    symbol = max(table.bars, key=lambda name: len(table.bars[name]))
    bars = table.bars[symbol]
    if len(bars) < BARS_MIN:
        raise DataInvalid(
            f"{data.name}: found {len(bars)} bars of {symbol}, expected at least {BARS_MIN}",
            file=data.name,
            found=len(bars),
            expected=f"at least {BARS_MIN}",
        )
    stream_count = min(STREAM_BARS_MAX, int(len(bars) * STREAM_SHARE))
    history, streamed = bars[:-stream_count], bars[-stream_count:]
    say = progress.console.print
    gap_text = f"{len(table.gaps)} gaps" if table.gaps else "no gaps"
    say(f"{data.name}: {len(bars)} bars of {symbol}, {gap_text}")
    trained = train_demo_model(
        table.first(symbol, len(history)),
        created_at=_utc_text(history[-1].ts_ms),
        horizon_bars=HORIZON_BARS,
        out_dir=out,
        progress=stages_of(progress, prefix="train: "),
    )
    artifact_dir = trained.artifact
    say(f"artifact {artifact_dir.name} is trained and verified; its run lies beside it")
    plan = demo_plan(
        symbol=symbol, bar_interval_ms=table.interval_ms, horizon_id=f"h{HORIZON_BARS}"
    )
    state_dir = out / "state"
    telemetry = Telemetry(
        "detent-demo", otlp_endpoint=None, trace_file=state_dir / "client.spans.jsonl"
    )
    with Stack(StackOptions(artifact_dir=artifact_dir, state_dir=state_dir)) as stack:
        for name in stack.names:
            say(f"{name} serves at {stack.targets[name]} (pid {stack.pid(name)})")
        task = progress.add_task("bars", total=len(streamed))
        outcome = asyncio.run(
            stream_bars(
                stack,
                plan=plan,
                binding=read_binding(artifact_dir),
                history=history,
                bars=streamed,
                tracer=telemetry.tracer,
                say=say,
                advance=lambda: progress.advance(task),
            )
        )
    telemetry.close()
    return outcome, read_spans(state_dir), table.interval_ms


def _report(out: Path, outcome: Outcome, spans: list[Span], *, interval_ms: int) -> Path:
    from detent_cli.demo.report import write_report  # noqa: PLC0415

    path = out / "report.html"
    summary = _summary(outcome, spans)
    write_report(path, outcome, spans, summary, horizon_bars=HORIZON_BARS, interval_ms=interval_ms)
    return path


def _summary(outcome: Outcome, spans: list[Span]) -> dict[str, object]:
    reasons = collections.Counter(
        step.decision.fallback_reason.value
        for step in outcome.steps
        if step.decision.fallback_reason is not None
    )
    sources = collections.Counter(step.decision.signal_source for step in outcome.steps)
    latencies = {
        title: _percentiles([s.duration_ms for s in spans if (s.process, s.name) == key])
        for title, *rest in HOPS
        for key in [tuple(rest)]
    }
    found = outcome.verification
    return {
        "bars": len(outcome.steps),
        "model_decisions": sources[SignalSource.MODEL],
        "proxy_decisions": sources[SignalSource.PROXY],
        "fallback_reasons": dict(reasons.most_common()),
        "latency_ms": latencies,
        "records": found.record_count,
        "chain_verified": not found.breaks and found.record_count == len(outcome.steps),
        "replay_reproduced": outcome.replayed,
    }


def _percentiles(values: list[float]) -> dict[str, float]:
    if not values:
        return {"count": 0, "p50": 0.0, "p99": 0.0}
    return {
        "count": len(values),
        "p50": round(percentile(values, 0.50), 3),
        "p99": round(percentile(values, 0.99), 3),
    }


def _print_summary(outcome: Outcome, spans: list[Span]) -> None:
    summary = _summary(outcome, spans)
    reasons: dict[str, int] = summary["fallback_reasons"]  # type: ignore[assignment]
    latencies: dict[str, dict[str, float]] = summary["latency_ms"]  # type: ignore[assignment]
    facts: list[tuple[str, object]] = [
        ("bars", summary["bars"]),
        ("decided by the model", summary["model_decisions"]),
        ("decided by the proxy", summary["proxy_decisions"]),
        *((f"  because {reason}", count) for reason, count in reasons.items()),
        ("records in the ledger", summary["records"]),
        ("chain", good("verified") if summary["chain_verified"] else bad("BROKEN")),
        ("last bar replayed", good("same bytes") if outcome.replayed else bad("OTHER BYTES")),
    ]
    print_facts("What happened", facts)
    print_rows(
        "Latency",
        ("hop", "count", "p50 ms", "p99 ms"),
        [
            (hop, int(found["count"]), f"{found['p50']:.2f}", f"{found['p99']:.2f}")
            for hop, found in latencies.items()
        ],
    )


def _utc_text(ts_ms: int) -> str:
    return dt.datetime.fromtimestamp(ts_ms / 1000, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _shown(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
