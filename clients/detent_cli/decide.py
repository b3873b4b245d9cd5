"""Ask for one decision by hand: `detent decide`."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from detent.contracts.caller_feature import CallerFeature
from detent.contracts.decimals import parse_decimal
from detent.contracts.decision import Decision, DecisionRow
from detent.contracts.errors import InvalidField
from detent.contracts.json_codec import to_json
from detent.contracts.plan import PositionState, TriggerState
from detent_cli.asking import POLICY, Target
from detent_cli.output import JsonFlag, print_facts, print_json, reported, weight_text
from detent_client import ClientOptions, DetentClient, OpenedPlan


def decide(
    *,
    plan_id: Annotated[str, typer.Option(help="The open plan.")],
    symbol: Annotated[str, typer.Option(help="A symbol of the plan.")],
    ts_ms: Annotated[int, typer.Option(help="Close of the bar, Unix milliseconds.")],
    close: Annotated[str, typer.Option(help="Close of the bar, a plain decimal.")],
    trigger: Annotated[TriggerState, typer.Option(help="What the trigger permits.")],
    trigger_id: Annotated[
        list[str] | None, typer.Option(help="An active trigger; may be repeated.")
    ] = None,
    weight_ppm: Annotated[int, typer.Option(help="What is held now, ppm of equity.")] = 0,
    equity: Annotated[str, typer.Option(help="Equity, a plain decimal.")] = "100000",
    vol_hat_ppm: Annotated[
        int | None, typer.Option(help="Volatility in the plan's unit, ppm.")
    ] = None,
    caller: Annotated[
        list[str] | None,
        typer.Option(help="A feature that only you know, name=value; may be repeated."),
    ] = None,
    target: Target = POLICY,
    journal: Annotated[
        Path, typer.Option(help="Where the client keeps answers of its own.")
    ] = Path("var/detent/journal.jsonl"),
    as_json: JsonFlag = False,
) -> None:
    """Decide one symbol's bar and print the answer."""

    async def asked() -> Decision:
        options = ClientOptions(journal_file=journal, policy_target=target, deadline_s=2.0)
        async with DetentClient(options) as client:
            known = await client.get_plan(plan_id)
            row = DecisionRow(
                symbol=symbol,
                bar_close=parse_decimal("close", close),
                trigger_state=trigger,
                active_trigger_ids=tuple(trigger_id or ()),
                exit_intent=None,
                position=PositionState(
                    current_weight_ppm=weight_ppm, equity=parse_decimal("equity", equity)
                ),
                vol_hat_ppm=vol_hat_ppm,
                vol_unit=known.plan.policy_config.vol_unit,
                risk_overrides=None,
                caller_features=tuple(_caller_feature(text) for text in caller or ()),
            )
            opened = OpenedPlan(plan=known.plan, binding_hash=known.binding_hash)
            return await client.decide(opened, ts_ms=ts_ms, row=row)

    with reported(as_json=as_json):
        decision = asyncio.run(asked())
    if as_json:
        print_json(to_json(decision))
    else:
        _print_decision(decision)


def _print_decision(decision: Decision) -> None:
    source = decision.signal_source.value
    if decision.fallback_reason is not None:
        source = f"{source} ({decision.fallback_reason})"
    print_facts(
        f"{decision.symbol} at {decision.ts_ms}",
        (
            ("target weight", weight_text(decision.target_weight_final_ppm)),
            ("change", weight_text(decision.delta_weight_ppm)),
            ("order", decision.order_style),
            ("signal", source),
            ("p̂", f"{decision.p_hat_bps / 100:.2f} %"),
            ("strength", f"{decision.signal_strength_bps / 100:.2f} %"),
            ("reasons", ", ".join(decision.reasons) or "none"),
            ("usable until", decision.valid_until_ts_ms),
            ("record", decision.record_hash or "(journalled by the client)"),
        ),
    )


def _caller_feature(text: str) -> CallerFeature:
    """Read one `--caller`.

    Raises:
        InvalidField: The text is not a name, `=`, and a plain decimal.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise InvalidField("caller", text, "name=value")
    try:
        return CallerFeature(name=name, value=parse_decimal("value", value))
    except InvalidField as error:
        raise error.under("caller") from error
