"""Switch models off at once, release them, see what is off: `detent kill on|off|status`."""

from typing import Annotated, Any

import typer

from detent.contracts.calls.rollout import SetKillSwitchRequest
from detent.contracts.errors import DeadlineExceeded, ServiceUnavailable
from detent.contracts.json_codec import to_json
from detent.contracts.kill_switch import KillPosition, KillSwitch, parse_scope
from detent_cli.acting import Actor, Control, Reason, say_direct
from detent_cli.asking import POLICY, Target, ask_policy
from detent_cli.instants import second_text
from detent_cli.output import (
    JsonFlag,
    bad,
    console,
    good,
    print_facts,
    print_json,
    print_rows,
    reported,
)

app = typer.Typer(help="Switch models off, everywhere at once.", no_args_is_help=True)
Scope = Annotated[str, typer.Option(help="global, model:ID, plan:ID or symbol:NAME.")]


@app.command()
def on(
    *,
    scope: Scope,
    actor: Actor,
    reason: Reason,
    target: Target = POLICY,
    control: Control = None,
    as_json: JsonFlag = False,
) -> None:
    """Switch models off in a scope; done when no replica decides by them any more."""
    with reported(as_json=as_json):
        _change(
            _request(scope, KillPosition.OFF, None, actor, reason), target, control, as_json=as_json
        )


@app.command()
def off(
    *,
    scope: Scope,
    actor: Actor,
    reason: Reason,
    epoch: Annotated[int, typer.Option(help="The epoch that you have seen and release.")],
    target: Target = POLICY,
    control: Control = None,
    as_json: JsonFlag = False,
) -> None:
    """Release a switch by its epoch, as `detent kill status` shows it."""
    with reported(as_json=as_json):
        request = _request(scope, KillPosition.RELEASED, epoch, actor, reason)
        _change(request, target, control, as_json=as_json)


@app.command()
def status(*, target: Target = POLICY, control: Control = None, as_json: JsonFlag = False) -> None:
    """Show every switch, who obeys them, and what one process has off by itself."""
    with reported(as_json=as_json):
        try:
            answer = ask_policy(target, lambda client: client.get_kill_switches())
        except (ServiceUnavailable, DeadlineExceeded) as error:
            if control is None:
                raise
            say_direct(error)
            store = _store(control)
            switches, readers = store.switches(), store.readers()
            facts: dict[str, Any] = {}
        else:
            switches, readers = list(answer.kill_switches), list(answer.readers)
            facts = {"shared_state": str(answer.shared_state)}
            facts["local_kills"] = to_json(answer)["local_kills"]
    if as_json:
        listed = {"kill_switches": switches, "readers": readers}
        print_json(facts | {name: [to_json(one) for one in all_] for name, all_ in listed.items()})
        return
    columns = ("scope", "model", "epoch", "by", "since", "reason")
    print_rows("Kill switches", columns, [_row(switch) for switch in switches])
    rows = [(one.reader_id, one.revision, second_text(one.seen_ms)) for one in readers]
    print_rows("Replicas", ("replica", "obeys change", "said so"), rows)
    if facts:
        console.print(f"shared state: {facts['shared_state']}")
        for kill in facts["local_kills"]:
            console.print(bad("off here"), f"by {kill['source']}: {kill['scope']} {kill['key']}")


def _request(
    scope: str, position: KillPosition, epoch: int | None, actor: str, reason: str
) -> SetKillSwitchRequest:
    kind, key = parse_scope(scope)
    return SetKillSwitchRequest(
        scope=kind, key=key, position=position, seen_epoch=epoch, actor=actor, reason=reason
    )


def _change(
    request: SetKillSwitchRequest, target: str, control: str | None, *, as_json: bool
) -> None:
    try:
        answer: Any = ask_policy(target, lambda client: client.set_kill_switch(request))
    except (ServiceUnavailable, DeadlineExceeded) as error:
        if control is None:
            raise
        say_direct(error)
        answer = _store(control).change(
            request.scope,
            request.key,
            position=request.position,
            seen_epoch=request.seen_epoch,
            actor=request.actor,
            reason=request.reason,
        )
    switch: KillSwitch = answer.kill_switch
    if as_json:
        counts = {"applied": answer.applied_count, "leased_out": answer.leased_out_count}
        print_json({"kill_switch": to_json(switch)} | counts)
        return
    facts = (
        ("scope", f"{switch.scope} {switch.key}"),
        ("model", _position(switch)),
        ("epoch", switch.epoch),
        ("by", switch.actor),
        ("reason", switch.reason),
        ("replicas that obey", answer.applied_count),
        ("replicas whose lease ran out", answer.leased_out_count),
    )
    print_facts("Kill switch", facts)


def _store(control: str) -> Any:
    """Open the switches; a file that is not there would be made, and nobody would obey it."""
    from detent.adapters.control_database import ControlDatabase  # noqa: PLC0415
    from detent.adapters.kill_store import KillStore  # noqa: PLC0415

    return KillStore(ControlDatabase(control, must_exist=True))


def _row(switch: KillSwitch) -> tuple[object, ...]:
    scope = f"{switch.scope}:{switch.key}" if switch.key else str(switch.scope)
    since = second_text(switch.at_ms)
    return scope, _position(switch), switch.epoch, switch.actor, since, switch.reason


def _position(switch: KillSwitch) -> object:
    return bad("off") if switch.is_on else good("released")
