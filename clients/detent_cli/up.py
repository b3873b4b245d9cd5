"""Start everything on one machine: `detent up`."""

import os
import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from detent.contracts.errors import InvalidField
from detent.core.rollout.gates import ACTIVE_ACK
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
from detent_cli.stack import Stack, StackOptions

WATCH_S = 1.0
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
    if ack not in ("", ACTIVE_ACK):
        errors.print(bad("BAD_ACK"), f"found {ack!r}, expected {ACTIVE_ACK} or nothing")
        raise typer.Exit(EXIT_ERROR)
    with reported(as_json=as_json):
        environment = _from_ml_settings(ml_settings)
        served = served_artifact(artifact, registry, name, state)
        stack = Stack(
            StackOptions(
                artifact_dir=served.resolve(),
                state_dir=state.resolve(),
                candidate_dir=candidate.resolve() if candidate is not None else None,
                control_url=control,
                single=single,
                # Nobody rolls out what nobody watches.
                monitor=monitor or bool(control),
                active=ack == ACTIVE_ACK,
                ml_settings=ml_settings.resolve() if ml_settings is not None else None,
                environment=environment,
                ports={
                    "feature": feature_port,
                    "inference": inference_port,
                    "policy": policy_port,
                    "monitor": monitor_port,
                },
            )
        )
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    with reported(as_json=as_json), stack:
        _say(stack, active=ack == ACTIVE_ACK, as_json=as_json)
        while not stopping.wait(WATCH_S):
            ended = [name for name in stack.names if not stack.is_running(name)]
            if ended:
                errors.print(bad(f"{', '.join(ended)} ended"), f"see the log in {state}")
                raise typer.Exit(EXIT_ERROR)


def _from_ml_settings(path: Path | None) -> dict[str, str]:
    """Give what a file sets of the other processes, as far as no variable does."""
    if path is None:
        return {}
    # Needs the packages of a server, which a bare client has not.
    from detent.adapters.ml_settings import read_ml_settings  # noqa: PLC0415

    settings = read_ml_settings(path)
    found = {LATENCY: str(settings.max_inference_latency_ms)}
    return {name: value for name, value in found.items() if name not in os.environ}


def served_artifact(
    artifact: Path | None, registry: str | None, name: str | None, state: Path
) -> Path:
    """Give the artifact that was named, or a verified copy of the one in production.

    It is asked for once: what comes to production later is served after the next start.

    Raises:
        InvalidField: Both were named, or neither.
        DetentError: There is none in production, or it is not what was registered.
    """
    if artifact is not None and registry is None and name is None:
        return artifact
    if artifact is not None or registry is None or name is None:
        raise InvalidField("--artifact", artifact, "either it, or --registry and --name")
    from detent.adapters.control_database import ControlDatabase  # noqa: PLC0415
    from detent.adapters.model_registry import ModelRegistry  # noqa: PLC0415
    from detent.offline.registry.artifact_url import load_artifact  # noqa: PLC0415

    pointer = ModelRegistry(ControlDatabase(registry)).production(name).pointer
    digest = pointer.model_version_hash
    return load_artifact(pointer.artifact_url, state / "artifacts", model_version_hash=digest)


def _say(stack: Stack, *, active: bool, as_json: bool) -> None:
    if as_json:
        print_json({"active": active, "targets": stack.targets, "pids": _pids(stack)})
        return
    rows = [
        (name, stack.targets[name if name != "single" else "policy"], stack.pid(name))
        for name in stack.names
    ]
    print_rows("Detent is up", ("process", "address", "pid"), rows)
    mode = "the model may act" if active else "proxy only (no acknowledgement given)"
    console.print(f"{mode}; Ctrl-C stops everything")


def _pids(stack: Stack) -> dict[str, int]:
    return {name: stack.pid(name) for name in stack.names}
