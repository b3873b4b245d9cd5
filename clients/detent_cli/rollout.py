"""Roll a candidate out in small steps and back in one: `detent rollout start|percent|...`."""

import asyncio
import contextlib
import json
import tempfile
from decimal import Decimal, DecimalException
from pathlib import Path
from typing import Annotated, Any

import typer

from detent.contracts.binding import PROXY_BINDING, ModelBinding
from detent.contracts.calls.rollout import (
    PromoteRolloutRequest,
    RollBackRequest,
    SetCanaryPercentRequest,
    StartRolloutRequest,
)
from detent.contracts.errors import DeadlineExceeded, InvalidField, ServiceUnavailable
from detent.contracts.json_codec import to_json
from detent.contracts.rollout import RampCaps, RampStep, Rollout, RolloutStage, StepPower
from detent.contracts.units import BPS_ONE, INT64_MAX, PPM_ONE
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
from detent_client import ClientOptions, DetentClient, read_binding

app = typer.Typer(
    help="Roll a model out by percent of the symbols, and take it back.", no_args_is_help=True
)
RolloutId = Annotated[str, typer.Argument(help="Name of the rollout.")]
Revision = Annotated[
    int | None,
    typer.Option(help="The revision that you have seen; without it, that of a look right now."),
]
Override = Annotated[
    str | None,
    typer.Option(help="Why the present step is cut short or one is left out; it is recorded."),
]
Evidence = Annotated[
    Path | None, typer.Option(help="File of JSON that the decision goes by; it is kept.")
]
HOUR_MS = 3_600_000
PROXY = "proxy"
STEP_PARTS_MIN, STEP_PARTS_MAX = 2, 4
SYMBOLS_SHOWN = 3
# Given as whole numbers of basis points and parts per million.
PERCENT_BPS = BPS_ONE // 100
PERCENT_PPM = PPM_ONE // 100


@app.command(
    epilog="Example: detent rollout start r7 --book main --symbols BTCUSDT,ETHUSDT"
    " --stable artifacts/direction_v1.0.0 --candidate artifacts/direction_v1.1.0"
    ' --step 0,24 --step 50,48,5 --step 100,48 --actor ada --reason "better Brier"'
)
def start(
    rollout_id: RolloutId,
    *,
    book: Annotated[str, typer.Option(help="Whose plans it is for.")],
    symbols: Annotated[str, typer.Option(help="What the book trades, with commas between.")],
    stable: Annotated[str, typer.Option(help="Folder of what answers now, or `proxy`.")],
    candidate: Annotated[Path, typer.Option(help="Folder of what is rolled out.")],
    actor: Actor,
    reason: Reason,
    step: Annotated[
        list[str] | None,
        typer.Option(
            help="PERCENT,HOURS[,MAX_WEIGHT_PERCENT[,MAX_EXPOSURE_PERCENT]]; several, rising to"
            " 100. Without any: 0, 5, 25, 50 and 100 percent, a day each."
        ),
    ] = None,
    salt: Annotated[str, typer.Option(help="Other buckets than the name gives.")] = "",
    target: Target = POLICY,
    as_json: JsonFlag = False,
) -> None:
    """Start a rollout in shadow, and print what each step of it can tell."""
    with reported(as_json=as_json):
        request = StartRolloutRequest(
            rollout_id=rollout_id,
            book=book,
            symbols=tuple(name for name in symbols.split(",") if name),
            stable_binding=_binding(stable),
            candidate_binding=_read("candidate", candidate),
            salt=salt,
            ramp=tuple(_step(text) for text in step or ()),
            actor=actor,
            reason=reason,
        )
        answer = ask_policy(target, lambda client: client.start_rollout(request))
        if as_json:
            print_json(to_json(answer))
            return
        _print_rollout(answer.rollout)
        _print_power(answer.steps)


@app.command(
    epilog='Example: detent rollout percent r7 5 --revision 3 --actor ada --reason "day of shadow"'
)
def percent(
    rollout_id: RolloutId,
    share: Annotated[str, typer.Argument(help="Percent of the symbols, such as 5 or 2.5.")],
    *,
    actor: Actor,
    reason: Reason,
    revision: Revision = None,
    override: Override = None,
    target: Target = POLICY,
    as_json: JsonFlag = False,
) -> None:
    """Set the candidate's share of the symbols, for plans that are opened afterwards."""
    with reported(as_json=as_json):
        request = SetCanaryPercentRequest(
            rollout_id=rollout_id,
            canary_bps=_share(share, "percent", PERCENT_BPS),
            seen_revision=_seen(target, rollout_id, revision),
            actor=actor,
            reason=reason,
            override_reason=override,
        )
        answer = ask_policy(target, lambda client: client.set_canary_percent(request))
        if as_json:
            print_json(to_json(answer))
            return
        _print_rollout(answer.rollout)
        _print_power((answer.step,))


@app.command(
    epilog='Example: detent rollout promote r7 --revision 9 --actor ada --reason "held two days"'
)
def promote(
    rollout_id: RolloutId,
    *,
    actor: Actor,
    reason: Reason,
    revision: Revision = None,
    override: Override = None,
    evidence: Evidence = None,
    target: Target = POLICY,
    as_json: JsonFlag = False,
) -> None:
    """Make the candidate what all symbols of the book use."""
    with reported(as_json=as_json):
        request = PromoteRolloutRequest(
            rollout_id=rollout_id,
            seen_revision=_seen(target, rollout_id, revision),
            actor=actor,
            reason=reason,
            override_reason=override,
            evidence=_evidence(evidence),
        )
        answer = ask_policy(target, lambda client: client.promote_rollout(request))
        if as_json:
            print_json(to_json(answer))
            return
        _print_rollout(answer.rollout)


@app.command(epilog='Example: detent rollout rollback r7 --actor ada --reason "Brier is worse"')
def rollback(
    rollout_id: RolloutId,
    *,
    actor: Actor,
    reason: Reason,
    evidence: Evidence = None,
    target: Target = POLICY,
    control: Control = None,
    as_json: JsonFlag = False,
) -> None:
    """Take the candidate back; done when no replica decides by it under this rollout."""
    with reported(as_json=as_json):
        request = RollBackRequest(
            rollout_id=rollout_id, actor=actor, reason=reason, evidence=_evidence(evidence)
        )
        try:
            answer: Any = ask_policy(target, lambda client: client.roll_back(request))
        except (ServiceUnavailable, DeadlineExceeded) as error:
            if control is None:
                raise
            say_direct(error)
            answer = _store(control).roll_back(
                rollout_id, actor=actor, reason=reason, evidence=request.evidence
            )
        counts = {"applied": answer.applied_count, "leased_out": answer.leased_out_count}
        if as_json:
            print_json({"rollout": to_json(answer.rollout)} | counts)
            return
        _print_rollout(answer.rollout)
        print_facts(
            "Obeyed by",
            (
                ("replicas that obey", counts["applied"]),
                ("replicas whose lease ran out", counts["leased_out"]),
            ),
        )


@app.command(epilog="Example: detent rollout history r7")
def history(rollout_id: RolloutId, *, target: Target = POLICY, as_json: JsonFlag = False) -> None:
    """Show every change of a rollout, by whom and why."""
    with reported(as_json=as_json):
        answer = ask_policy(target, lambda client: client.get_rollout(rollout_id))
        if as_json:
            print_json(to_json(answer))
            return
        _print_rollout(answer.rollout)
        rows = [
            (
                one.revision,
                second_text(one.at_ms),
                one.action,
                _percent(one.canary_bps),
                one.actor,
                one.reason,
                one.override_reason,
                "kept" if one.evidence else "",
            )
            for one in answer.history
        ]
        names = ("revision", "when", "what", "share", "by", "reason", "override", "evidence")
        print_rows("History", names, rows, numbers=("revision", "share"))


@app.command(name="list", epilog="Example: detent rollout list --book main")
def list_rollouts(
    *,
    book: Annotated[str, typer.Option(help="One book; without it, all.")] = "",
    target: Target = POLICY,
    as_json: JsonFlag = False,
) -> None:
    """List the rollouts, newest change first."""
    with reported(as_json=as_json):
        answer = ask_policy(target, lambda client: client.list_rollouts(book))
        if as_json:
            print_json(to_json(answer))
            return
        rows = [
            (
                one.rollout_id,
                one.book,
                _stage(one),
                _percent(one.canary_bps),
                second_text(one.since_ms),
                one.revision,
            )
            for one in answer.rollouts
        ]
        names = ("rollout", "book", "stage", "share", "since", "revision")
        print_rows("Rollouts", names, rows, numbers=("share", "revision"))


@app.command(epilog="Example: detent rollout watch --book main")
def watch(
    *,
    book: Annotated[str, typer.Option(help="One book; without it, all.")] = "",
    after: Annotated[int, typer.Option(help="Go on after this revision.")] = 0,
    changes: Annotated[
        int, typer.Option(min=0, help="End after so many changes; 0 never ends.")
    ] = 0,
    target: Target = POLICY,
    as_json: JsonFlag = False,
) -> None:
    """Print every rollout as it changes, one line each, until interrupted."""
    with reported(as_json=as_json), contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_watch(target, book, after, changes, as_json=as_json))


async def _watch(target: str, book: str, after: int, changes: int, *, as_json: bool) -> None:
    shown = 0
    with tempfile.TemporaryDirectory() as folder:
        options = ClientOptions(journal_file=Path(folder) / "journal", policy_target=target)
        async with DetentClient(options) as client:
            watching = client.watch_rollouts(book, after_revision=after)
            async with contextlib.aclosing(watching) as answers:
                async for answer in answers:
                    for one in answer.rollouts:
                        _print_change(one, as_json=as_json)
                    shown += len(answer.rollouts)
                    if changes and shown >= changes:
                        return


def _print_change(rollout: Rollout, *, as_json: bool) -> None:
    if as_json:
        print_json(to_json(rollout))
        return
    facts = (
        f"{rollout.revision} {second_text(rollout.since_ms)} {rollout.rollout_id} {rollout.book}"
    )
    console.print(facts, _stage(rollout), _percent(rollout.canary_bps))


def _print_rollout(rollout: Rollout) -> None:
    stable, candidate = rollout.stable_binding, rollout.candidate_binding
    facts = (
        ("rollout", rollout.rollout_id),
        ("book", rollout.book),
        ("stage", _stage(rollout)),
        ("share", _percent(rollout.canary_bps)),
        ("stable", f"{stable.model_id or PROXY} {stable.binding_hash[:16]}"),
        ("candidate", f"{candidate.model_id} {candidate.binding_hash[:16]}"),
        ("since", second_text(rollout.since_ms)),
        ("revision", rollout.revision),
    )
    print_facts("Rollout", facts)


def _print_power(steps: tuple[StepPower, ...]) -> None:
    """Say what would be found, and say so where next to nothing would."""
    rows = [
        (
            _percent(step.canary_bps),
            len(step.symbols),
            ", ".join(step.symbols[:SYMBOLS_SHOWN])
            + (" ..." if len(step.symbols) > SYMBOLS_SHOWN else ""),
            *(_found(step, effect_bps) for effect_bps in (100, 500, 2_000)),
        )
        for step in steps
    ]
    names = ("share", "symbols", "which", "1% worse", "5% worse", "20% worse")
    print_rows("What the test finds in 3, 7 and 21 days", names, rows, numbers=names[:2])


def _found(step: StepPower, effect_bps: int) -> str:
    found = [point for point in step.power if point.effect_bps == effect_bps]
    return " / ".join(_percent(point.power_bps) for point in found) or "nothing"


def _stage(rollout: Rollout) -> object:
    is_back = rollout.stage is RolloutStage.ROLLED_BACK
    return bad(rollout.stage) if is_back else good(rollout.stage)


def _seen(target: str, rollout_id: str, revision: int | None) -> int:
    if revision is not None:
        return revision
    return ask_policy(target, lambda client: client.get_rollout(rollout_id)).rollout.revision


def _binding(stable: str) -> ModelBinding:
    return PROXY_BINDING if stable == PROXY else _read("stable", Path(stable))


def _read(name: str, folder: Path) -> ModelBinding:
    try:
        return read_binding(folder)
    except OSError as error:
        raise InvalidField(name, folder, "the folder of an artifact") from error


def _evidence(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        text = path.read_text(encoding="ascii")
        json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidField("evidence", path, "a file of JSON in ASCII") from error
    return " ".join(text.split())


def _step(text: str) -> RampStep:
    parts = text.split(",")
    if not STEP_PARTS_MIN <= len(parts) <= STEP_PARTS_MAX:
        raise InvalidField("step", text, "PERCENT,HOURS[,MAX_WEIGHT[,MAX_EXPOSURE]]")
    share, hold, *most = parts
    caps = RampCaps()
    if most:
        weight_ppm, *sums_ppm = (_share(part, "step", PERCENT_PPM) for part in most)
        caps = RampCaps(
            max_weight_ppm=weight_ppm, max_exposure_ppm=sums_ppm[0] if sums_ppm else None
        )
    return RampStep(
        canary_bps=_share(share, "step", PERCENT_BPS),
        hold_ms=_share(hold, "step", HOUR_MS),
        caps=caps,
    )


def _share(text: str, name: str, unit: int) -> int:
    """Read a decimal number in a unit that makes it whole."""
    try:
        scaled = Decimal(text) * unit
        # Before it is written out: 1e999999 has a million digits.
        is_bounded = abs(scaled) <= INT64_MAX
    except DecimalException as error:
        raise InvalidField(name, text, "a number") from error
    if not is_bounded:
        raise InvalidField(name, text, f"a number of at most {INT64_MAX // unit}")
    whole = int(scaled)
    if whole != scaled:
        raise InvalidField(name, text, f"a number of which 1/{unit} is the least part")
    return whole


def _percent(bps: int) -> str:
    return f"{Decimal(bps) / PERCENT_BPS:g}%"


def _store(control: str) -> Any:
    from detent.adapters.control_database import ControlDatabase  # noqa: PLC0415
    from detent.adapters.rollout_store import RolloutStore  # noqa: PLC0415

    return RolloutStore(ControlDatabase(control, must_exist=True))
