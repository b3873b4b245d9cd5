"""Measure a candidate: everything that the gates of promotion judge."""

import msgspec
import numpy as np

from detent.contracts.errors import InvalidField
from detent.core.evaluation.equity import EquityCurve
from detent.core.evaluation.measures import (
    LearningMeasures,
    Measures,
    OriginMeasures,
    SampleMeasures,
    ScoreComparison,
)
from detent.core.evaluation.simplicity import is_simpler
from detent.offline.promotion.scores import (
    RESAMPLES,
    Predictions,
    common_rows,
    compare_scores,
    measure_calibration,
)
from detent.offline.promotion.trading import measure_trading

PROXY = "the proxy"


class Champion(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what the model in production said of the same bars.

    Attributes:
        model_id: Its name.
        model_version_hash: Its manifest hash, 64 hex.
        architecture_id: What it is.
        predictions: Its rows.
    """

    model_id: str
    model_version_hash: str
    architecture_id: str
    predictions: Predictions


def measure_candidate(
    origin: OriginMeasures,
    found: Predictions | None,
    *,
    model: EquityCurve | None,
    proxy: EquityCurve | None,
    data_span_ms: int,
    bar_interval_ms: int,
    horizon_bars: int,
    trial_count: int | None,
    learning: LearningMeasures | None,
    champion: Champion | None = None,
    architecture_id: str = "",
    resamples: int = RESAMPLES,
) -> Measures:
    """Measure whatever there is; what there is not stays unmeasured.

    Args:
        origin: What the candidate is and what it was made from.
        found: Its rows out of fold; None or none of them measures nothing.
        model: Its account in a back-test.
        proxy: The proxy's account over the same bars.
        data_span_ms: Time that its rows cover.
        bar_interval_ms: Length of a bar.
        horizon_bars: How far ahead a label looks.
        trial_count: Trials that it is the best of.
        learning: Whether its trades kept learning apart.
        champion: The model in production, if there is one.
        architecture_id: What the candidate is.
        resamples: How often bars are drawn anew.

    Raises:
        InvalidField: The back-tests are not of the same bars, the champion has no row in
            common, or a value is no probability.
    """
    rows = found if found is not None and len(found) else None
    trading = None
    if model is not None and proxy is not None:
        trading = measure_trading(
            model,
            proxy,
            bar_interval_ms=bar_interval_ms,
            horizon_bars=horizon_bars,
            trial_count=trial_count,
            resamples=resamples,
        )
    against_proxy = None
    if rows is not None:
        against_proxy = compare_scores(
            rows, rows.proxy_p, horizon_bars=horizon_bars, baseline=PROXY, resamples=resamples
        )
    return Measures(
        origin=origin,
        sample=None if rows is None else _sample(rows, data_span_ms),
        calibration=None if rows is None else measure_calibration(rows, horizon_bars),
        proxy=against_proxy,
        champion=(
            None
            if champion is None or rows is None
            else _against(champion, rows, architecture_id, horizon_bars, resamples)
        ),
        trading=trading,
        learning=learning,
    )


def _against(
    champion: Champion, rows: Predictions, architecture_id: str, horizon_bars: int, resamples: int
) -> ScoreComparison:
    common, champion_p = common_rows(rows, champion.predictions)
    if not len(common):
        raise InvalidField("champion", "no row in common", f"rows of {champion.model_id} as well")
    return compare_scores(
        common,
        champion_p,
        horizon_bars=horizon_bars,
        baseline=champion.model_id,
        baseline_version_hash=champion.model_version_hash,
        is_simpler=is_simpler(architecture_id, champion.architecture_id),
        resamples=resamples,
    )


def _sample(rows: Predictions, data_span_ms: int) -> SampleMeasures:
    ups = int(np.sum(rows.labels))
    return SampleMeasures(
        row_count=len(rows),
        rarer_count=min(ups, len(rows) - ups),
        bar_count=len(np.unique(rows.ts_ms)),
        data_span_ms=data_span_ms,
    )
