"""Look at data files: `detent data check`."""

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.text import Text

from detent.contracts.errors import DataInvalid
from detent_cli.output import (
    EXIT_NEGATIVE,
    JsonFlag,
    bad,
    console,
    good,
    print_json,
    print_rows,
    progress_bar,
    reported,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from detent.offline.data_check import DataReport
    from detent.offline.event_check import EventReport
    from detent.offline.findings import FindingCount

app = typer.Typer(help="Look at data files.", no_args_is_help=True)
UNITS_MS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1))


@app.callback()
def data() -> None:
    """Look at data files."""


@app.command()
def check(
    file: Annotated[
        Path,
        typer.Argument(
            help="Bars, quotes or books, told apart by their columns: .parquet, .csv, or .jsonl."
        ),
    ],
    *,
    for_promotion: Annotated[
        bool, typer.Option("--for-promotion", help="Also ask for 6 months and 2 regimes.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Report everything that is wrong with a data file; exit 1 on a defect."""
    from detent.offline.data_check import DataReport, check_data  # noqa: PLC0415
    from detent.offline.event_check import EventReport, check_events  # noqa: PLC0415
    from detent.offline.event_files import FileKind, kind_of  # noqa: PLC0415

    report: DataReport | EventReport
    with reported(as_json=as_json), progress_bar() as progress:
        kind = kind_of(file)
        if kind is FileKind.BARS:
            report = check_data(file, progress=progress)
        else:
            report = check_events(file, kind, progress=progress)
    # Evidence for promotion is counted in months of bars; no other file is any.
    suffices = isinstance(report, DataReport) and report.suffices_for_promotion
    if as_json:
        facts = {"defect_count": report.defect_count, "usable": report.usable}
        facts["suffices_for_promotion"] = suffices
        print_json(msgspec.to_builtins(report) | facts)
    elif isinstance(report, DataReport):
        _print_report(report)
    else:
        _print_event_report(report)
    if not report.usable or (for_promotion and not suffices):
        raise typer.Exit(EXIT_NEGATIVE)


def _print_event_report(report: "EventReport") -> None:
    _print_findings(f"{report.file}: {report.items:,} {report.kind}", report.findings)
    print_rows(
        "Coverage",
        ("symbol", report.kind, "from", "to", "usual distance", "longest"),
        [
            (
                one.symbol,
                f"{one.items:,}",
                _second(one.first_ts_ms),
                _second(one.last_ts_ms),
                f"{one.median_ms:,} ms",
                f"{one.longest_ms:,} ms",
            )
            for one in report.coverage
        ],
    )
    _print_usable(report)


def _print_findings(title: str, findings: "Iterable[FindingCount]") -> None:
    print_rows(
        title,
        ("looked for", "found", "the first ones"),
        [
            (
                one.finding.replace("_", " "),
                _count(one.count, defect=one.defect),
                "\n".join(f"row {at.row}, {at.symbol}: {at.what}" for at in one.examples[:2]),
            )
            for one in findings
        ],
    )


def _print_usable(report: "DataReport | EventReport") -> None:
    usable = good("usable") if report.usable else bad(f"not usable, defects: {report.defect_count}")
    console.print(usable)


def _print_report(report: "DataReport") -> None:
    from detent.offline.coverage import Regime  # noqa: PLC0415
    from detent.offline.data_check import require_promotion_data  # noqa: PLC0415

    _print_findings(f"{report.file}: {report.rows:,} rows", report.findings)
    print_rows(
        f"Coverage, bars of {_length(report.interval_ms)}",
        ("symbol", "bars", "missing", "from", "to", "months", "+/=/-"),
        [
            (
                one.symbol,
                f"{one.bars:,}",
                f"{one.missing_bars:,}",
                _day(one.first_open_ts_ms),
                _day(one.last_close_ts_ms),
                _months(one.months, suffices=one.suffices),
                "/".join(str(one.regimes.get(regime, 0)) for regime in Regime),
            )
            for one in report.coverage
        ],
    )
    console.print("+/=/-: calendar months in which the market rose, ranged, fell", style="dim")
    _print_usable(report)
    try:
        require_promotion_data(report)
    except DataInvalid as refusal:
        console.print(bad("not enough for promotion"), Text(refusal.message))
    else:
        console.print(good("enough for promotion"))


def _count(count: int, *, defect: bool) -> Text:
    if count == 0:
        return good("0")
    return bad(f"{count:,}") if defect else Text(f"{count:,}", style="yellow")


def _months(months: float, *, suffices: bool) -> Text:
    return good(f"{months:.1f}") if suffices else bad(f"{months:.1f}")


def _day(ts_ms: int) -> str:
    return f"{dt.datetime.fromtimestamp(ts_ms / 1_000, tz=dt.UTC):%Y-%m-%d}"


def _second(ts_ms: int) -> str:
    return f"{dt.datetime.fromtimestamp(ts_ms / 1_000, tz=dt.UTC):%Y-%m-%d %H:%M:%S}"


def _length(interval_ms: int | None) -> str:
    if interval_ms is None:
        return "unknown length"
    unit, unit_ms = next(one for one in UNITS_MS if interval_ms % one[1] == 0)
    return f"{interval_ms // unit_ms}{unit}"
