"""Read what a person asks of a back-test: names, a policy file, an artifact's horizon."""

from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from msgspec import structs

from detent.adapters.artifact_store import read_pinned_manifest
from detent.contracts.canonical import parse_json
from detent.contracts.errors import DataInvalid, InvalidField
from detent.contracts.json_codec import from_json
from detent.contracts.plan import PolicyConfig
from detent.offline.backtesting.account import Costs
from detent.offline.backtesting.backtest import Question
from detent.offline.backtesting.execution import Execution
from detent.offline.backtesting.strategy import TriggerParameters, TriggerRule
from detent.offline.cells import file_sha256

Kind = TypeVar("Kind", bound=StrEnum)
# What a policy config is named after where no artifact gives a horizon.
HORIZON_DEFAULT = "backtest"


def question_of(
    *,
    name: str,
    policy: Path | None,
    artifact: Path | None,
    trigger: str,
    trigger_bars: int | None,
    trigger_file: Path | None,
    shorts: bool | None,
    vol_bars: int,
    execution: str,
    costs: Costs,
    cash: float,
    max_signal_age_ms: int | None,
    records: bool,
) -> Question:
    """Give the question that options ask; what is None is as `TriggerParameters` has it.

    Raises:
        DataInvalid: The policy file or the trigger's file cannot be read.
        InvalidField: A name or number is not what it should be.
    """
    return Question(
        name=name,
        policy_config=_policy(policy, artifact),
        trigger=_trigger(
            _named(TriggerRule, "trigger", trigger),
            window_bars=trigger_bars,
            shorts=shorts,
            file=trigger_file,
        ),
        trigger_file=trigger_file,
        vol_bars=vol_bars,
        costs=costs,
        cash=cash,
        execution=_named(Execution, "execution", execution),
        max_signal_age_ms=max_signal_age_ms,
        records=records,
    )


def _trigger(
    rule: TriggerRule, *, window_bars: int | None, shorts: bool | None, file: Path | None
) -> TriggerParameters:
    """Give a rule's parameters; one that the rule would not look at is refused."""
    asked = {"window_bars": window_bars, "shorts": shorts}
    given = {name: value for name, value in asked.items() if value is not None}
    if given and rule is not TriggerRule.TREND:
        name, value = next(iter(given.items()))
        raise InvalidField(name, value, f"nothing beside the rule {rule}: it is the trend's")
    read = file if rule is TriggerRule.FILE else None
    return structs.replace(
        TriggerParameters(rule=rule, file_sha256=None if read is None else file_sha256(read)),
        **given,
    )


def _policy(policy: Path | None, artifact: Path | None) -> PolicyConfig:
    if policy is None:
        horizon_id = HORIZON_DEFAULT
        if artifact is not None:
            horizon_id = read_pinned_manifest(artifact).manifest.horizon_id
        return PolicyConfig(horizon_id=horizon_id)
    try:
        return from_json(PolicyConfig, parse_json(policy.name, policy.read_bytes()))
    except OSError as error:
        found, expected = type(error).__name__, "a policy config in JSON"
        message = f"{policy.name}: found {found}, expected {expected}"
        raise DataInvalid(message, found=found, expected=expected) from error


def _named(kind: type[Kind], field: str, name: str) -> Kind:
    try:
        return kind(name)
    except ValueError as error:
        raise InvalidField(field, name, f"one of {', '.join(kind)}") from error
