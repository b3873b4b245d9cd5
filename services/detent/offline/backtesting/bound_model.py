"""Give a bound artifact's answers over bars: asked anew, or as they were stored."""

from pathlib import Path

from detent.adapters.artifact_store import read_artifact, read_pinned_manifest
from detent.contracts.binding import ModelBinding
from detent.offline.backtesting.backtest import (
    ORIGIN_ARTIFACT,
    ORIGIN_NONE,
    ORIGIN_STORED,
    Question,
    stored_answers,
)
from detent.offline.backtesting.market import Market
from detent.offline.backtesting.signals import ModelSignals
from detent.offline.backtesting.stored_signals import StoredSignals, load_stored_signals
from detent.offline.bars import BarTable
from detent.offline.samples import Progress


def bound_answers(
    artifact: Path,
    signals: Path | None,
    table: BarTable,
    market: Market,
    *,
    question: Question,
    progress: Progress,
) -> tuple[ModelBinding, ModelSignals, str]:
    """Give the binding, what the model said of each bar, and where that comes from.

    A file of signals that is not there is no error: nothing was stored, so the proxy answers
    every bar (R79).

    Raises:
        ArtifactInvalid: The artifact is not what it says.
        DataInvalid: The signals cannot be read, or the bars do not fit the artifact.
    """
    if signals is not None:
        binding = read_pinned_manifest(artifact).binding
        if not signals.exists():
            return binding, stored_answers(StoredSignals(), market, question), ORIGIN_NONE
        stored = load_stored_signals(signals)
        return binding, stored_answers(stored, market, question), ORIGIN_STORED
    # Imported here: stored signals need no runtime.
    from detent.adapters.serving import open_serving  # noqa: PLC0415
    from detent.offline.backtesting.model_signals import model_signals  # noqa: PLC0415

    serving = open_serving(read_artifact(artifact))
    answers = model_signals(serving, table, market, hashed=question.records, progress=progress)
    return serving.artifact.pinned.binding, answers, ORIGIN_ARTIFACT
