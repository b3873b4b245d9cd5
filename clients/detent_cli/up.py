"""Start everything on one machine: `detent up`."""

import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from detent.contracts.reasons import Reason
from detent.core.rollout.gates import ACTIVE_ACK
from detent.core.rollout.ladder import Mode
from detent_cli.output import (
    EXIT_ERROR,
    JsonFlag,
    bad,
    console,
    errors,
    print_json,
    print_rows,
    reported,
)
from detent_cli.served import ServedBy, served
from detent_cli.stack import Stack, StackOptions

if TYPE_CHECKING:
    from detent.adapters.ml_settings import MlSettings

WATCH_S = 1.0
_SAID = {
    Mode.OFF: "proxy only (no acknowledgement given, or switched off)",
    Mode.SHADOW: "proxy only; the model runs unused",
    Mode.ACTIVE: "the model may act",
}
LATENCY = "DETENT_INFERENCE_MAX_INFERENCE_LATENCY_MS"


def up(
    *,
    artifact: Annotated[Path | None, typer.Option(help="The artifact to serve.")] = None,
    registry: Annotated[
        str | None, typer.Option(help="Serve what this registry has in production instead.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Line of models, with --registry.")] = None,
    state: Annotated[Path, typer.Option(help="Ledger, logs and spans go here.")] = Path(
        "var/detent"
    ),
    single: Annotated[bool, typer.Option("--single", help="One process instead of three.")] = False,
    monitor: Annotated[
        bool,
        typer.Option(
            "--monitor", help="Settle bars, score signals, watch rollouts, serve metrics."
        ),
    ] = False,
    candidate: Annotated[
        Path | None, typer.Option(help="A second artifact beside it, to be rolled out.")
    ] = None,
    control: Annotated[
        str, typer.Option(help="Control database of rollouts and kill switches; starts --monitor.")
    ] = "",
    ack: Annotated[
        str, typer.Option(help=f"Type {ACTIVE_ACK} to let the model act; else proxy only.")
    ] = "",
    ml_settings: Annotated[
        Path | None,
        typer.Option(help="Settings in the seed's form, `ml:` in YAML; variables say more."),
    ] = None,
    feature_port: Annotated[int, typer.Option(help="Port of the feature service.")] = 7301,
    inference_port: Annotated[int, typer.Option(help="Port of the inference service.")] = 7302,
    policy_port: Annotated[int, typer.Option(help="Port of the policy service.")] = 7303,
    monitor_port: Annotated[int, typer.Option(help="Port of the monitor's metrics.")] = 7304,
    as_json: JsonFlag = False,
) -> None:
    """Start the services, print their addresses, and stop them on Ctrl-C or SIGTERM."""
    _check_ack(ack, as_json=as_json)
    with reported(as_json=as_json):
        settings = _read_ml_settings(ml_settings)
        by = ServedBy(artifact=artifact, registry=registry, name=name, settings=settings, ack=ack)
        found = served(by, state)
        # Nobody rolls out what nobody watches.
        monitor = monitor or bool(control) or (settings is not None and settings.is_monitored)
        stack = Stack(
            StackOptions(
                artifact_dir=found.folder.resolve(),
                state_dir=state.resolve(),
                candidate_dir=candidate.resolve() if candidate is not None else None,
                control_url=control,
                single=single,
                monitor=monitor,
                active=ack == ACTIVE_ACK,
                ml_settings=ml_settings.resolve() if ml_settings is not None else None,
                environment=_from_ml_settings(settings),
                ports=_ports(feature_port, inference_port, policy_port, monitor_port),
            )
        )
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    with reported(as_json=as_json), stack:
        _say(stack, mode=found.mode, as_json=as_json)
        while not stopping.wait(WATCH_S):
            ended = [name for name in stack.names if not stack.is_running(name)]
            if ended:
                errors.print(bad(f"{', '.join(ended)} ended"), f"see the log in {state}")
                raise typer.Exit(EXIT_ERROR)


def _check_ack(ack: str, *, as_json: bool) -> None:
    if ack in ("", ACTIVE_ACK):
        return
    expected = f"{ACTIVE_ACK} or nothing"
    reason, message = Reason.BAD_ACK.value, f"found {ack!r}, expected {expected}"
    if as_json:
        facts = {"reason": reason, "message": message}
        print_json({"error": facts | {"metadata": {"found": ack, "expected": expected}}})
    else:
        errors.print(bad(reason), Text(message))
    raise typer.Exit(EXIT_ERROR)


def _ports(*ports: int) -> dict[str, int]:
    return dict(zip(("feature", "inference", "policy", "monitor"), ports, strict=True))


def _read_ml_settings(path: Path | None) -> "MlSettings | None":
    if path is None:
        return None
    # Needs the packages of a server, which a bare client has not.
    from detent.adapters.ml_settings import read_ml_settings  # noqa: PLC0415

    return read_ml_settings(path)


def _from_ml_settings(settings: "MlSettings | None") -> dict[str, str]:
    """Give what a file sets of the inference process, as far as no variable does."""
    if settings is None:
        return {}
    found = {LATENCY: str(settings.max_inference_latency_ms)}
    return {name: value for name, value in found.items() if name not in os.environ}


def _say(stack: Stack, *, mode: Mode, as_json: bool) -> None:
    if as_json:
        active = mode is Mode.ACTIVE
        facts = {"active": active, "mode": mode.value, "targets": stack.targets}
        print_json(facts | {"pids": _pids(stack)})
        return
    rows = [
        (name, stack.targets[name if name != "single" else "policy"], stack.pid(name))
        for name in stack.names
    ]
    print_rows("Detent is up", ("process", "address", "pid"), rows)
    console.print(f"{_SAID[mode]}; Ctrl-C stops everything")


def _pids(stack: Stack) -> dict[str, int]:
    return {name: stack.pid(name) for name in stack.names}
