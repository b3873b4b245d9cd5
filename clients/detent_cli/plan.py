"""Open, read, replace and close plans, and count replans: `detent plan ...`."""

import time
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated

import typer
from msgspec import structs

from detent.contracts.binding import PROXY_BINDING, ModelBinding
from detent.contracts.calls.replanning import ReplacePlanResponse
from detent.contracts.canonical import parse_json
from detent.contracts.errors import DataInvalid, InvalidField, PlanNotFound
from detent.contracts.json_codec import from_json, to_json
from detent.contracts.plan import Plan, PlanStatus
from detent.contracts.rollout import RolloutArm, base_plan_id
from detent.core.rollout.plan_arms import candidate_plan_id
from detent_cli.asking import POLICY, Target, ask_policy
from detent_cli.output import (
    JsonFlag,
    bad,
    print_facts,
    print_json,
    print_rows,
    reported,
)
from detent_client import DetentClient, OpenedPlan, read_binding

app = typer.Typer(help="Open, read, replace and close plans.", no_args_is_help=True)
PlanFile = Annotated[
    Path, typer.Option("--plan", help="The plan as canonical JSON, as `get --json` prints it.")
]
Artifact = Annotated[
    Path | None, typer.Option(help="Folder of the artifact to bind; without one the proxy.")
]
UnderRollout = Annotated[
    str | None,
    typer.Option("--rollout", help="Rollout whose bindings are taken, instead of an artifact."),
]
TWO_BINDINGS = "--proxy, --artifact and --rollout name several bindings, expected one"


@app.command("open", epilog="Example: detent plan open --plan plan.json --rollout r7")
def open_plan(
    *,
    plan_file: PlanFile,
    artifact: Artifact = None,
    rollout: UnderRollout = None,
    target: Target = POLICY,
    as_json: JsonFlag = False,
) -> None:
    """Open a plan and freeze it under its binding, or under those of a rollout."""
    if artifact is not None and rollout is not None:
        raise typer.BadParameter(TWO_BINDINGS)
    with reported(as_json=as_json):
        if rollout is not None:
            plan = _read_plan(plan_file)
            arms = ask_policy(target, lambda client: client.open_under_rollout(plan, rollout))
            _print_arms(arms, as_json=as_json)
            return
        plan, binding = _read_plan(plan_file), _binding(artifact)
        opened = ask_policy(target, lambda client: client.open_plan(plan, binding))
    facts = {"plan_id": opened.plan.plan_id, "binding_hash": opened.binding_hash}
    if as_json:
        print_json(facts)
    else:
        print_facts("Opened", [(name.replace("_", " "), value) for name, value in facts.items()])


@app.command("get")
def get_plan(
    plan_id: Annotated[str, typer.Argument(help="The plan.")],
    *,
    target: Target = POLICY,
    as_json: JsonFlag = False,
) -> None:
    """Print a plan as it was opened."""
    with reported(as_json=as_json):
        found = ask_policy(target, lambda client: client.get_plan(plan_id))
    if as_json:
        print_json(to_json(found))
        return
    plan, config = found.plan, found.plan.policy_config
    print_facts(
        f"Plan {plan.plan_id}",
        (
            ("status", found.status),
            ("book", plan.book),
            ("symbols", ", ".join(plan.symbols)),
            ("triggers", ", ".join(trigger.trigger_id for trigger in plan.triggers)),
            ("signal source", found.model_binding.signal_source),
            ("model", found.model_binding.model_id or "none"),
            ("horizon", config.horizon_id),
            ("binding", found.binding_hash),
            ("policy config", found.policy_config_hash),
        ),
    )


@app.command("replace")
def replace_plan(
    plan_id: Annotated[str, typer.Argument(help="The plan that decides now.")],
    new_plan_id: Annotated[str, typer.Argument(help="Its successor's name, never used before.")],
    *,
    plan_file: Annotated[
        Path | None,
        typer.Option("--plan", help="What should decide, as JSON; by default the same plan."),
    ] = None,
    artifact: Artifact = None,
    rollout: UnderRollout = None,
    proxy: Annotated[
        bool, typer.Option("--proxy", help="Go back to the proxy; nothing else changes.")
    ] = False,
    at_ms: Annotated[
        int | None, typer.Option(help="Instant of the replan in data time; by default now.")
    ] = None,
    note: Annotated[str, typer.Option(help="Why, in a few words.")] = "",
    target: Target = POLICY,
    as_json: JsonFlag = False,
) -> None:
    """Put a plan in the place of another, in one step; what changes nothing is suppressed."""
    ts_ms = at_ms if at_ms is not None else time.time_ns() // 1_000_000

    async def asked(client: DetentClient) -> ReplacePlanResponse:
        found = await client.get_plan(plan_id)
        if found.rollout is not None and plan_file is None:
            # The plan of one arm says nothing of the symbols of the other.
            raise InvalidField("plan", plan_id, "the whole plan in a file: it is an arm's")
        wanted = _read_plan(plan_file) if plan_file is not None else found.plan
        wanted = structs.replace(wanted, plan_id=new_plan_id)
        opened = OpenedPlan(plan=found.plan, binding_hash=found.binding_hash)
        if rollout is not None:
            response, _ = await client.replace_under_rollout(
                opened, wanted, rollout, ts_ms=ts_ms, note=note
            )
            return response
        binding = _binding(artifact) if artifact is not None else found.model_binding
        replanned = await client.replace_plan(
            opened, wanted, PROXY_BINDING if proxy else binding, ts_ms=ts_ms, note=note
        )
        return replanned.response

    if proxy + (artifact is not None) + (rollout is not None) > 1:
        raise typer.BadParameter(TWO_BINDINGS)
    with reported(as_json=as_json):
        answer = ask_policy(target, asked)
    if as_json:
        print_json(to_json(answer))
        return
    print_facts(
        f"Replan of {plan_id}",
        (
            ("outcome", answer.outcome),
            ("reason", answer.skip_reason or "none"),
            *(("decides now", f"{arm.plan_id} {', '.join(arm.symbols)}") for arm in answer.arms),
            ("binding", answer.binding_hash),
            ("policy config", answer.policy_config_hash),
        ),
    )


@app.command("close")
def close_plan(
    plan_id: Annotated[str, typer.Argument(help="The plan.")],
    *,
    target: Target = POLICY,
    as_json: JsonFlag = False,
) -> None:
    """Close a plan: it decides nothing more. The other arm of a rollout is a plan of its own."""

    async def asked(client: DetentClient) -> tuple[str, str | None]:
        found = await client.get_plan(plan_id)
        opened = OpenedPlan(plan=found.plan, binding_hash=found.binding_hash)
        status = (await client.close_plan(opened)).status
        arm = found.rollout.arm if found.rollout is not None else None
        return status, await _other_open_arm(client, plan_id, arm)

    with reported(as_json=as_json):
        status, still_open = ask_policy(target, asked)
    if as_json:
        other = {} if still_open is None else {"still_open": still_open}
        print_json({"plan_id": plan_id, "status": status} | other)
        return
    facts: list[tuple[str, object]] = [("status", status)]
    if still_open is not None:
        facts.append(("still open", bad(still_open)))
    print_facts(f"Plan {plan_id}", facts)


async def _other_open_arm(client: DetentClient, plan_id: str, arm: RolloutArm | None) -> str | None:
    """Name the plan of the other arm while it decides; None for a plan of its own."""
    if arm is None:
        return None
    base = base_plan_id(plan_id)
    other = base if arm is RolloutArm.CANDIDATE else candidate_plan_id(base)
    try:
        found = await client.get_plan(other)
    except PlanNotFound:
        return None
    return other if found.status is PlanStatus.OPEN else None


@app.command()
def metrics(
    book: Annotated[str, typer.Argument(help="The book.")],
    *,
    place: Annotated[
        str,
        typer.Option("--from", help="The ledger: a file, or postgresql:// with what was shipped."),
    ],
    since: Annotated[str, typer.Option(help="First UTC day, as in 2026-11-21.")] = "",
    until: Annotated[str, typer.Option(help="First UTC day that is left out.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Count the replans of a book per UTC day, from what the ledger keeps of them."""
    from detent.adapters.ledger_reading import open_reader, replan_rows  # noqa: PLC0415
    from detent.core.replanning.measures import measure_replans  # noqa: PLC0415

    with reported(as_json=as_json):
        found = measure_replans(
            book,
            replan_rows(open_reader(place), book),
            since_ts_ms=_day_ms("since", since),
            until_ts_ms=_day_ms("until", until),
        )
    if as_json:
        print_json(to_json(found))
        return
    print_facts(
        f"Replans of {book}",
        (
            ("replans", found.replan_count),
            ("replan rate per day", f"{found.replan_rate_per_day:.3f}"),
            ("no change, suppressed", found.no_change_replan_suppressed_count),
            *((f"skipped, {one.reason}", one.record_count) for one in found.skips),
        ),
    )
    print_rows(
        "By day",
        ("UTC day", "replaced", "suppressed", "skipped"),
        [
            (_day(one.day_ts_ms), one.replaced_count, one.suppressed_count, one.skipped_count)
            for one in found.days
        ],
    )


def _print_arms(arms: Sequence[OpenedPlan], *, as_json: bool) -> None:
    rows = [(one.plan.plan_id, one.binding_hash, ", ".join(one.plan.symbols)) for one in arms]
    names = ("plan_id", "binding_hash", "symbols")
    if as_json:
        print_json({"arms": [dict(zip(names, row, strict=True)) for row in rows]})
        return
    shown = [(plan_id, binding_hash[:16], symbols) for plan_id, binding_hash, symbols in rows]
    print_rows("Opened", ("plan id", "binding", "symbols"), shown)


def _binding(artifact: Path | None) -> ModelBinding:
    if artifact is None:
        return PROXY_BINDING
    try:
        return read_binding(artifact)
    except OSError as error:
        raise InvalidField("artifact", artifact, "the folder of an artifact") from error


def _read_plan(path: Path) -> Plan:
    """Read a plan from a file, alone or as `get --json` prints it.

    Raises:
        DataInvalid: The file cannot be read.
        InvalidField: It holds no plan.
    """
    try:
        fields = parse_json("plan", path.read_bytes())
    except OSError as error:
        raise DataInvalid(f"{path}: {type(error).__name__}, expected a plan as JSON") from error
    inner = fields.get("plan")
    return from_json(Plan, inner if isinstance(inner, dict) else fields)


def _day_ms(name: str, text: str) -> int | None:
    """Read the begin of a UTC day; empty is none."""
    if not text:
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError as error:
        raise DataInvalid(f"{name}: found {text!r}, expected a day as in 2026-11-21") from error
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000


def _day(ts_ms: int) -> str:
    return datetime.fromtimestamp(ts_ms // 1_000, tz=UTC).date().isoformat()
