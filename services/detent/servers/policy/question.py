"""Compare what is asked of a bar with what it was decided for: one key, one question."""

from collections.abc import Sequence

from detent.contracts.caller_feature import CallerFeature
from detent.contracts.decimals import format_decimal
from detent.contracts.decision import DecisionRow
from detent.contracts.errors import DecisionConflict
from detent.contracts.plan import ExitIntent

# Refusals of 5,000 rows still fit in one answer.
CALLER_FEATURES_SHOWN_MAX = 4
# What a key stands for; position and volatility may differ when a bar is asked again.
QUESTION_FIELDS = (
    "trigger_state",
    "active_trigger_ids",
    "exit_intent",
    "bar_close",
    "caller_features",
    "further_exit_intents",
)
EXIT_FIELDS = frozenset({"exit_intent", "further_exit_intents"})


def check_same_question(recorded: DecisionRow, asked: DecisionRow, *, ts_ms: int) -> None:
    """Refuse another question under the same key; position and volatility may differ.

    So may the order of triggers and of exits: whoever asks again after a restart may list
    them otherwise, and no order of them decides anything.

    Raises:
        DecisionConflict: The bar was decided for another question.
    """
    for field in QUESTION_FIELDS:
        if _asks_the_same(field, recorded, asked):
            continue
        found, expected = getattr(asked, field), getattr(recorded, field)
        if field == "caller_features":
            found = _differing(asked.caller_features, recorded.caller_features)
            expected = _differing(recorded.caller_features, asked.caller_features)
        raise DecisionConflict(
            f"{asked.symbol} at {ts_ms} was decided with {field} {expected}, not {found}",
            symbol=asked.symbol,
            ts_ms=ts_ms,
            field=field,
            found=found,
            expected=expected,
        )


def _asks_the_same(field: str, recorded: DecisionRow, asked: DecisionRow) -> bool:
    if getattr(asked, field) == getattr(recorded, field):
        return True
    if field == "active_trigger_ids":
        return set(asked.active_trigger_ids) == set(recorded.active_trigger_ids)
    return field in EXIT_FIELDS and _exits(asked) == _exits(recorded)


def _exits(row: DecisionRow) -> frozenset[ExitIntent | None]:
    """Give the exits of a row; one that is named twice counts once (ADR 0029)."""
    return frozenset((row.exit_intent, *row.further_exit_intents))


def _differing(these: Sequence[CallerFeature], those: Sequence[CallerFeature]) -> str:
    """Write the first caller features that others do not say alike."""
    known = frozenset(those)
    differing = [one for one in these if one not in known][:CALLER_FEATURES_SHOWN_MAX]
    return ", ".join(f"{one.name}={format_decimal(one.value)}" for one in differing) or "(missing)"
