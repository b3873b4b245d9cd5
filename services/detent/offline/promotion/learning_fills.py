"""Count the fills of a model that mixed learning with profit (R130).

Rows are read as they are: what our own code would refuse is what is looked for.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from detent.adapters.ledger_reading import SqliteReader, canonical_texts
from detent.contracts.canonical import parse_json
from detent.contracts.errors import DetentError
from detent.contracts.learning import LEARNING_BOOK_PREFIX
from detent.core.evaluation.measures import LearningMeasures
from detent.offline.attributing import fact_rows
from detent.offline.backtesting.folder import LEDGER_FILE
from detent.offline.cells import invalid

Fields = dict[str, Any]
_PLANS = "SELECT plan FROM plan_log WHERE event = 'opened'"


def read_learning(files: list[Path], backtest: Path | None = None) -> LearningMeasures | None:
    """Count fills that do not say what they belong to, or say another thing than their plan.

    Args:
        files: Fills as `RecordFills` takes them.
        backtest: Folder of the model's back-test, with its fills in its ledger.

    Returns:
        The counts; None where there is neither a file nor a ledger.

    Raises:
        DataInvalid: A file or the ledger cannot be read.
    """
    ledger = None if backtest is None else backtest / LEDGER_FILE
    if ledger is not None and not ledger.is_file():
        ledger = None
    if not files and ledger is None:
        return None
    kept_apart = [is_kept_apart(fill) for path in files for _, fill in fact_rows(path)]
    if ledger is not None:
        kept_apart.extend(_of_ledger(ledger))
    return LearningMeasures(fill_count=len(kept_apart), untagged_count=kept_apart.count(False))


def _of_ledger(path: Path) -> Iterator[bool]:
    """Say of each fill whether it keeps apart, and takes from the budget of its own plan."""
    try:
        reader = SqliteReader(path)
        plans = [parse_json("plan", text.encode()) for (text,) in reader.query(_PLANS)]
        opened = {plan.get("plan_id"): plan for plan in plans}
        for text in canonical_texts(reader, "fills", ""):
            fill: Fields = dict(parse_json("fill", text))
            yield is_kept_apart(fill) and _is_of_plan(fill, opened.get(fill.get("plan_id")))
    except DetentError as error:
        raise invalid(path.name, error.message, "a ledger that can be read") from error


def is_kept_apart(fill: Fields) -> bool:
    """Say whether a fill of a learning book names its experiment, and no other one does."""
    tags = fill.get("learning")
    names = isinstance(tags, dict) and bool(tags.get("experiment_id"))
    learns = str(fill.get("book", "")).startswith(LEARNING_BOOK_PREFIX)
    return names if learns else "book" in fill and tags is None


def _is_of_plan(fill: Fields, plan: Fields | None) -> bool:
    """Say whether book and experiment are the plan's, whose budget bounded what was bought."""
    if plan is None or fill.get("book") != plan.get("book"):
        return False
    learning = plan.get("learning")
    tags = learning.get("tags") if isinstance(learning, dict) else None
    return bool(fill.get("learning") == tags)
