"""Say what models that ran unused were worth: `detent shadow report|list`."""

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.text import Text

from detent.contracts.json_codec import to_json
from detent_cli.ledger_store import From
from detent_cli.output import (
    JsonFlag,
    bad,
    console,
    errors,
    good,
    print_json,
    print_rows,
    print_sheet,
    reported,
)

if TYPE_CHECKING:
    from detent.adapters.shadow_reading import ShadowLedger
    from detent.core.evaluation.paired_difference import PairedDifference
    from detent.core.evaluation.shadow_report import (
        RolloutComparison,
        ShadowComparison,
        ShadowReport,
        SideScores,
    )

app = typer.Typer(help="Compare models that run unused with what was used.", no_args_is_help=True)
PlanId = Annotated[str, typer.Option(help="Only this plan.")]
RolloutId = Annotated[str, typer.Option(help="Only plans of this rollout.")]


@app.command()
def report(
    *,
    ledger: From,
    plan_id: PlanId = "",
    rollout_id: RolloutId = "",
    page: Annotated[
        Path | None, typer.Option("--report", help="Write a page with pictures here.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Score both probabilities on the same settled bars, per shadow and per arm of a rollout.

    The difference of the Brier scores comes with bounds that hold at every bar at once, so that
    one may look as often as one likes. Bars without an answer, and without an outcome, are
    counted.
    """
    # Imported here: a strategist's installation has neither a ledger nor pictures.
    from detent.core.evaluation.shadow_report import compare_shadows  # noqa: PLC0415

    with reported(as_json=as_json), errors.status("comparing", spinner="dots"):
        held = _read(ledger, plan_id, rollout_id)
        found = compare_shadows(held.signals, held.labels, held.decided)
    if page is not None:
        from detent_cli.shadow_page import write_page  # noqa: PLC0415

        with reported(as_json=as_json):
            write_page(page, found)
    if as_json:
        print_json(_document(found))
        return
    _print(found)
    if page is not None:
        console.print(f"page: {page}")


@app.command(name="list")
def list_(
    *,
    ledger: From,
    plan_id: PlanId = "",
    rollout_id: RolloutId = "",
    limit: Annotated[int, typer.Option(help="Only the newest so many.", min=1)] = 50,
    as_json: JsonFlag = False,
) -> None:
    """List shadow answers beside what was used, newest last."""
    with reported(as_json=as_json):
        signals = _read(ledger, plan_id, rollout_id).signals
    signals = sorted(signals, key=lambda one: (one.ts_ms, one.plan_id, one.symbol))[-limit:]
    if as_json:
        print_json({"shadow_signals": [to_json(one) for one in signals]})
        return
    rows = [
        (
            _time(one.ts_ms),
            one.symbol,
            one.model_id or "proxy",
            one.reason.value if one.reason is not None else one.p_hat_bps,
            one.used_p_hat_bps,
            one.used_source.value,
        )
        for one in signals
    ]
    columns = ("bar, UTC", "symbol", "shadow", "said", "used", "source")
    print_rows(
        "Shadow answers, basis points", columns, rows, numbers=("said", "used"), whole=columns[:1]
    )


def _read(ledger: str, plan_id: str, rollout_id: str) -> "ShadowLedger":
    from detent.adapters.ledger_reading import POSTGRESQL_PREFIX, open_reader  # noqa: PLC0415
    from detent.adapters.shadow_reading import read_shadows  # noqa: PLC0415
    from detent.contracts.errors import DataInvalid  # noqa: PLC0415

    if not ledger.startswith(POSTGRESQL_PREFIX) and not Path(ledger).is_file():
        name = Path(ledger).name
        raise DataInvalid(f"{name}: no such file, expected the ledger file of a policy service")
    held = read_shadows(open_reader(ledger), plan_id=plan_id, rollout_id=rollout_id)
    if not held.signals:
        asked = [f"{name} {value!r}" for name, value in (("plan", plan_id),) if value]
        asked += [f"rollout {rollout_id!r}"] if rollout_id else []
        of = f" of {' and '.join(asked)}" if asked else ""
        raise DataInvalid(f"ledger: no shadow answer, expected at least one{of}")
    return held


def _document(found: "ShadowReport") -> object:
    """Give the report for a program; of each running difference only where it stands now."""
    document: dict[str, list[dict[str, object]]] = msgspec.to_builtins(found)
    pairs = [
        *((one["settled"], of.settled) for one, of in _zipped(document["comparisons"], found)),
        *zip(document["rollouts"], found.rollouts, strict=True),
    ]
    for fields, of in pairs:
        if isinstance(fields, dict) and of is not None:
            newest = of.difference
            fields["difference"] = {
                "alpha": newest.alpha,
                "bars": len(newest.mean),
                "mean": newest.mean[-1],
                "low": newest.low[-1],
                "high": newest.high[-1],
                "verdict": newest.verdict,
            }
    return document


def _zipped(
    fields: list[dict[str, object]], found: "ShadowReport"
) -> "list[tuple[dict[str, object], ShadowComparison]]":
    return list(zip(fields, found.comparisons, strict=True))


def _print(found: "ShadowReport") -> None:
    for one in found.comparisons:
        print_sheet(_facts(one))
        if one.settled is not None:
            sides = (("shadow", one.settled.shadow), ("used", one.settled.used))
            _print_sides(f"{one.settled.row_count:,} settled bars", sides)
            _print_difference("shadow less used", one.settled.difference)
        console.print()
    for rollout in found.rollouts:
        _print_rollout(rollout)


def _facts(one: "ShadowComparison") -> list[tuple[str, object]]:
    arm = f", arm {one.arm} of rollout {one.rollout_id}" if one.rollout_id else ""
    facts: list[tuple[str, object]] = [
        ("shadow", Text(f"{one.model_id or 'proxy'}{arm}", style="bold")),
        ("binding", one.binding_hash),
        ("bars", f"{one.row_count:,} from {_time(one.first_ts_ms)} to {_time(one.last_ts_ms)}"),
        ("without a row", _counted(one.missing_count)),
        ("answered", f"{one.answered_count:,}"),
        ("unlabelled", f"{one.unlabelled_count:,}"),
        ("decided by", f"model {one.used_model_count:,}, proxy {_proxied(one):,}"),
    ]
    for reason, count in one.reasons.items():
        facts.append(("no answer", f"{reason} {count:,}"))
    if one.same_side_bps is not None:
        facts.append(
            ("same side", f"{one.same_side_bps / 100:.1f} %, {one.distance_bps} bps apart")
        )
    latency = f"p50 {one.latency_us_p50 / 1000:.1f} ms, p99 {one.latency_us_p99 / 1000:.1f} ms"
    return [*facts, ("asking took", latency)]


def _proxied(one: "ShadowComparison") -> int:
    return one.row_count - one.used_model_count


def _counted(count: int) -> Text:
    return good("0") if not count else bad(f"{count:,}")


def _print_rollout(one: "RolloutComparison") -> None:
    sides = (("candidate", one.candidate), ("stable", one.stable))
    _print_sides(f"Rollout {one.rollout_id}: both arms, {one.row_count:,} settled bars", sides)
    _print_difference("candidate less stable", one.difference)
    rows = [(arm.arm, arm.row_count, f"{arm.brier:.4f}", f"{arm.accuracy:.1%}") for arm in one.arms]
    columns = ("arm", "bars", "Brier", "right")
    print_rows("What each arm decided with, on its own symbols", columns, rows, numbers=columns[1:])


def _print_sides(title: str, sides: "tuple[tuple[str, SideScores], ...]") -> None:
    rows = [
        (name, f"{one.brier:.4f}", f"{one.ece:.4f}", f"{one.accuracy:.1%}") for name, one in sides
    ]
    columns = ("probability", "Brier", "ECE", "right")
    print_rows(title, columns, rows, numbers=columns[1:])


def _print_difference(name: str, found: "PairedDifference") -> None:
    text = (
        f"Brier, {name}: {found.mean[-1]:+.4f}, within [{found.low[-1]:+.4f},"
        f" {found.high[-1]:+.4f}] at {1 - found.alpha:.0%} whenever one looks: "
    )
    style = {"better": good, "worse": bad}.get(found.verdict, Text)
    console.print(Text(text).append_text(style(found.verdict)))


def _time(ts_ms: int) -> str:
    return f"{dt.datetime.fromtimestamp(ts_ms / 1000, dt.UTC):%Y-%m-%d %H:%M}"
