"""Say how good the signals have been and what has drifted: `detent monitor`."""

import asyncio
import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.text import Text

from detent_cli.output import (
    EXIT_NEGATIVE,
    JsonFlag,
    bad,
    console,
    errors,
    good,
    print_json,
    print_rows,
    reported,
)

if TYPE_CHECKING:
    from detent.core.evaluation.monitoring import ModelReport, SignalQuality
    from detent.servers.monitor.settings import MonitorSettings


def monitor(
    *,
    ledger: Annotated[str, typer.Option(help="A ledger file, or postgresql://user@host/database.")],
    artifacts: Annotated[
        Path | None, typer.Option(help="Folder of artifact folders: it names the features.")
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(help="Rows of the training: .npy of `detent features reference`."),
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="standard, or the seed's rules: seed.")
    ] = None,
    ml_settings: Annotated[
        Path | None,
        typer.Option(help="Settings in the seed's form, `ml:` in YAML; options say more."),
    ] = None,
    policy: Annotated[
        str, typer.Option(help="Address of the policy service; records outcomes there.")
    ] = "",
    once: Annotated[bool, typer.Option("--once", help="Check once and end.")] = False,
    listen: Annotated[
        str, typer.Option(help="Address of /metrics, /healthz and /readyz.")
    ] = "127.0.0.1:7304",
    interval_s: Annotated[
        int | None, typer.Option(help="Seconds between checks; an hour without it.", min=1)
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write a page with pictures here.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Settle bars whose horizon has passed, score both signals, find drift, advise on training.

    Prints one check; without `--once` it then goes on checking and serves metrics until it is
    stopped. With `--once` the exit code is 1 when something alerts.
    """
    # Imported here: a strategist's installation has neither a ledger nor metrics.
    from detent.servers.monitor.main import check_once, run  # noqa: PLC0415

    said: dict[str, object] = {
        "ledger": ledger,
        "artifacts_dir": artifacts,
        "reference_file": reference,
        "profile": profile,
        "policy_target": policy or None,
        "listen": listen,
        "check_interval_s": interval_s,
        "ml_settings": ml_settings,
    }
    with reported(as_json=as_json), errors.status("checking", spinner="dots"):
        settings = _settings(said)
        reports, recorded_count = asyncio.run(check_once(settings))
    if report is not None:
        from detent_cli.monitor_page import write_page  # noqa: PLC0415

        with reported(as_json=as_json):
            write_page(report, reports)
    if as_json:
        models = [msgspec.to_builtins(one) for one in reports]
        print_json({"models": models, "recorded_count": recorded_count})
    else:
        _print(reports, recorded_count)
        if report is not None:
            console.print(f"page: {report}")
    if not once:
        with reported(as_json=as_json):
            asyncio.run(run(settings))
    elif any(one.alerts for one in reports):
        raise typer.Exit(EXIT_NEGATIVE)


def _settings(said: dict[str, object]) -> "MonitorSettings":
    """Give the settings; what no option says is left to variables and to the file."""
    from detent.adapters.process_settings import read_settings  # noqa: PLC0415
    from detent.servers.monitor.settings import MonitorSettings  # noqa: PLC0415

    given = {name: value for name, value in said.items() if value is not None}
    return read_settings(MonitorSettings, **given)


def _print(reports: "list[ModelReport]", recorded_count: int) -> None:
    if not reports:
        console.print("no decided bar of a plan that binds a model")
    for one in reports:
        newest = dt.datetime.fromtimestamp(one.newest_ts_ms / 1000, dt.UTC)
        title = f"{one.model_id}, {one.bar_count:,} bars to {newest:%Y-%m-%d %H:%M}"
        print_rows(
            f"{title}: signals",
            ("signal", "settled", "Brier", "ECE", "band", "right", "verdict"),
            [_signal_row(signal, one) for signal in one.signals],
        )
        if one.features:
            print_rows(
                "Features, recent rows against the reference",
                ("feature", "rows", "worth", "KS", "p", "PSI", "verdict"),
                [
                    (
                        drift.feature,
                        drift.current_rows,
                        drift.effective_rows,
                        f"{drift.ks:.3f}",
                        "" if drift.p_value is None else f"{drift.p_value:.4f}",
                        f"{drift.psi:.2f}",
                        _marked(drift.verdict.value, well=drift.verdict.value != "drifted"),
                    )
                    for drift in one.features
                ],
            )
        else:
            console.print(f"no verdict on features: {one.features_unknown}")
        for alert in one.alerts:
            console.print(bad(alert.kind.value), Text(alert.message))
        if not one.alerts:
            console.print(good("nothing alerts"))
    console.print(f"{recorded_count:,} outcomes were new on the record")


def _signal_row(signal: "SignalQuality", model: "ModelReport") -> tuple[object, ...]:
    found = [one.kind.value for one in model.alerts if one.signal_source is signal.signal_source]
    point = signal.newest
    if point is None:
        return (signal.signal_source.value, signal.settled_count, *("",) * 4, "too few rows")
    verdict = ", ".join(found) or ("well" if point.ece <= point.ece_null_high else "not watched")
    return (
        signal.signal_source.value,
        signal.settled_count,
        f"{point.brier:.4f}",
        f"{point.ece:.4f}",
        f"{point.ece_null_high:.4f}",
        f"{point.accuracy:.1%}",
        _marked(verdict, well=not found),
    )


def _marked(text: str, *, well: bool) -> Text:
    return good(text) if well else bad(text)
