"""Ask an artifact about every bar, in batches: the session, map and gates that serve it live."""

import numpy as np

from detent.adapters.serving import Serving
from detent.contracts.binding import Head
from detent.contracts.errors import DataInvalid
from detent.contracts.reasons import Reason
from detent.contracts.signals import DirectionSignal
from detent.core.features.rolling import RowBlock, iter_row_blocks
from detent.core.policy.columns import ABSENT
from detent.offline.backtesting.market import Ints, Market
from detent.offline.backtesting.signals import REFUSAL_CODES, ModelSignals, no_answers
from detent.offline.bars import BarTable
from detent.offline.feature_sets import check_bars_fit
from detent.offline.samples import Progress

# Rows of one run of the session.
BATCH_ROWS = 1_024
STAGE = "signals"


def model_signals(
    serving: Serving, table: BarTable, market: Market, *, hashed: bool, progress: Progress
) -> ModelSignals:
    """Give the model's answer, or the reason why there is none, on every bar.

    Args:
        serving: A verified artifact of the direction head.
        table: The bars.
        market: The same bars, laid out.
        hashed: Whether the hash of what the model was given is wanted, as records are.
        progress: Told of (stage, bars done, bars in all).

    Raises:
        DataInvalid: The bars do not fit the artifact.
    """
    artifact = serving.artifact
    if artifact.manifest.head is not Head.DIRECTION:
        found, expected = artifact.manifest.head, Head.DIRECTION
        message = f"head: found {found}, expected {expected}: no other head scales a position"
        raise DataInvalid(message, found=found, expected=expected)
    check_bars_fit(artifact.pinned.feature_set, table.interval_ms)
    answers = no_answers(market.close.shape, Reason.FEATURES_MISSING, hashed=hashed)
    done = 0
    for column, symbol in enumerate(market.symbols):
        for block in iter_row_blocks(
            artifact.pinned.feature_set, table.bars[symbol], hashed=hashed
        ):
            rows = np.searchsorted(market.ts_ms, np.array(block.ts_ms, dtype=np.int64))
            _fill(serving, answers, block, rows=rows, column=column)
            done += len(block.ts_ms)
            progress(STAGE, done, table.bar_count)
    return answers


def _fill(
    serving: Serving, answers: ModelSignals, block: RowBlock, *, rows: Ints, column: int
) -> None:
    ready = np.array([refusal is None for refusal in block.refusals])
    for place in np.flatnonzero(~ready).tolist():
        refusal = block.refusals[place]
        assert refusal is not None
        answers.refusal[rows[place], column] = REFUSAL_CODES[refusal]
    if answers.features_hash is not None:
        answers.features_hash[rows, column] = [one or "" for one in block.features_hashes]
    places = np.flatnonzero(ready)
    for start in range(0, len(places), BATCH_ROWS):
        chosen = places[start : start + BATCH_ROWS]
        outputs = serving.session.outputs(np.ascontiguousarray(block.values[chosen]))
        for place, answer in zip(chosen.tolist(), serving.answers_of(outputs), strict=True):
            at = rows[place], column
            if isinstance(answer, Reason):
                answers.refusal[at] = REFUSAL_CODES[answer]
                continue
            assert isinstance(answer, DirectionSignal)
            answers.p_hat_raw_bps[at] = answer.p_hat_raw_bps
            answers.p_hat_bps[at] = answer.p_hat_bps
            answers.refusal[at] = ABSENT
