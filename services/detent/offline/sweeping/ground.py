"""Gather what all settings of a sweep share: the bars that were predicted, and what was said.

What the model says is what its run predicted out of fold, so nothing is measured on a bar that it
was trained on. Triggers, volatilities and the proxy look back over the start of a window, as they
would live; the account starts flat.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from detent.adapters.artifact_store import PinnedManifest, read_pinned_manifest
from detent.contracts.binding import PROXY_BINDING
from detent.contracts.errors import DataInvalid
from detent.contracts.units import BPS_ONE
from detent.core.ledger.record import bind_plan
from detent.offline.backtesting.backtest import MODEL, PROXY, Question, plan_named, proxy_setup
from detent.offline.backtesting.engine import Setup, run
from detent.offline.backtesting.market import Market, market_of
from detent.offline.backtesting.signals import ModelSignals, Signals
from detent.offline.backtesting.stored_signals import StoredSignal, StoredSignals
from detent.offline.bars import BarTable
from detent.offline.cells import invalid
from detent.offline.promotion.run_folder import (
    PREDICTIONS_FILE,
    RUN_FILE,
    read_predictions,
    run_folder_of,
)
from detent.offline.promotion.scores import Predictions
from detent.offline.sweeping.grid import Setting
from detent.offline.sweeping.report import Account, account_of
from detent.offline.sweeping.trials import swept_trials
from detent.offline.walk_forward.record import RunRecord, parse_run


class Ground(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Holds what all settings share.

    Attributes:
        question: What a person decided.
        record: The run that made the model.
        pinned: The artifact.
        base: The proxy's run over all bars from the first that was predicted to the last.
        calibrated: What the model said, by its fold's calibration.
        raw: The same without one.
        earlier_trials: Settings of every sweep that was logged before.
    """

    question: Question
    record: RunRecord
    pinned: PinnedManifest
    base: Setup
    calibrated: ModelSignals
    raw: ModelSignals
    earlier_trials: int

    def account(self, setting: Setting, bars: range, *, of_model: bool) -> Account:
        """Run a setting over some bars, starting flat."""
        question = structs.replace(self.question, policy_config=setting.policy_config)
        plan = plan_named(question, self.base.market, source=MODEL if of_model else PROXY)
        binding = self.pinned.binding if of_model else PROXY_BINDING
        rows = slice(bars.start, bars.stop)
        said = None
        if of_model:
            said = signals_in(self.calibrated if setting.calibrated else self.raw, rows)
        setup = structs.replace(
            self.base,
            bound=bind_plan(plan, binding),
            market=market_in(self.base.market, rows),
            trigger=self.base.trigger[rows],
            vol_hat_ppm=self.base.vol_hat_ppm[rows],
            signals=Signals(model=said, proxy=self.base.signals.proxy[rows]),
        )
        return account_of(run(setup).curve)


def ground_of(question: Question, artifact: Path, table: BarTable) -> Ground:
    """Gather it.

    Raises:
        ArtifactInvalid: The artifact is not what it says.
        DataInvalid: Its run is missing, another's, or of other bars; or an earlier sweep does not
            say what it tried.
    """
    pinned = read_pinned_manifest(artifact)
    folder = run_folder_of(artifact)
    record = _record(folder, pinned.manifest.model_version_hash, table)
    said = read_predictions(folder)
    if said is None:
        raise invalid(folder.name, f"no {PREDICTIONS_FILE}", "what the run predicted out of fold")
    market = market_of(table)
    whole = proxy_setup(question, market)
    bars = np.flatnonzero((market.ts_ms >= said.ts_ms.min()) & (market.ts_ms <= said.ts_ms.max()))
    rows = slice(int(bars[0]), int(bars[-1]) + 1)
    base = structs.replace(
        whole,
        market=market_in(market, rows),
        trigger=whole.trigger[rows],
        vol_hat_ppm=whole.vol_hat_ppm[rows],
        signals=Signals(model=None, proxy=whole.signals.proxy[rows]),
    )
    raw = np.rint(said.p_raw * BPS_ONE).astype(np.int64)
    calibrated = np.rint(said.p * BPS_ONE).astype(np.int64)
    return Ground(
        question=question,
        record=record,
        pinned=pinned,
        base=base,
        calibrated=_answers(said, raw, calibrated, base.market),
        raw=_answers(said, raw, raw, base.market),
        earlier_trials=swept_trials(artifact),
    )


def market_in(market: Market, rows: slice) -> Market:
    """Give some bars of a market."""
    return structs.replace(
        market,
        ts_ms=market.ts_ms[rows],
        open=market.open[rows],
        close=market.close[rows],
        present=market.present[rows],
        funding=None if market.funding is None else market.funding[rows],
    )


def signals_in(said: ModelSignals, rows: slice) -> ModelSignals:
    """Give what a model said of some bars."""
    return ModelSignals(
        p_hat_raw_bps=said.p_hat_raw_bps[rows],
        p_hat_bps=said.p_hat_bps[rows],
        refusal=said.refusal[rows],
    )


def _record(folder: Path, model_version_hash: str, table: BarTable) -> RunRecord:
    path = folder / RUN_FILE
    try:
        record = parse_run(path.read_bytes())
    except OSError as error:
        raise invalid(path.name, type(error).__name__, "the run beside the artifact") from error
    for name, found, expected in (
        ("run", record.model_version_hash, model_version_hash),
        ("bars", table.data_hash, record.data_hash),
    ):
        if found != expected:
            message = f"{name}: found {found}, expected {expected}"
            raise DataInvalid(message, found=found, expected=expected)
    return record


def _answers(
    said: Predictions,
    raw: NDArray[np.int64],
    chosen: Sequence[int] | NDArray[np.int64],
    market: Market,
) -> ModelSignals:
    """Lay predictions out over bars; one that is older than its bar does not count."""
    signals: dict[str, list[StoredSignal]] = {}
    columns = (said.symbols.tolist(), said.ts_ms.tolist(), raw.tolist(), list(chosen))
    for symbol, ts_ms, raw_bps, p_hat_bps in zip(*columns, strict=True):
        signals.setdefault(symbol, []).append(
            StoredSignal(ts_ms=ts_ms, p_hat_raw_bps=raw_bps, p_hat_bps=int(p_hat_bps))
        )
    return StoredSignals(signals).over(market, max_age_ms=0)
