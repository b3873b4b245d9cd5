"""Run every setting in every window: chosen on the bars before, measured on the bars after."""

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from detent.contracts.errors import DataInvalid
from detent.contracts.units import PPM_ONE
from detent.core.evaluation.deflated_sharpe import deflated_sharpe, return_moments
from detent.core.evaluation.walk_forward import Split, walk_forward
from detent.offline.backtesting.backtest import Question
from detent.offline.backtesting.results import plain
from detent.offline.bars import BarTable
from detent.offline.samples import Progress
from detent.offline.sweeping.grid import Axis, Setting, settings_of
from detent.offline.sweeping.ground import Ground, ground_of
from detent.offline.sweeping.report import (
    Account,
    Outcome,
    SweepReport,
    Trial,
    Window,
    joined,
    outcome_of,
    sharpe_or_least,
)

STAGE = "sweep"
# Share of the predicted bars that a window trains on, and how many windows follow, unless told.
TRAIN_SHARE = 0.4
WINDOWS = 5


class SweepRequest(msgspec.Struct, frozen=True, kw_only=True):
    """States what a person decides about a sweep.

    Attributes:
        question: Costs, trigger, execution, and the policy config that the axes change.
        axes: What is swept.
        train_bars: Bars that a setting is chosen on; None for `TRAIN_SHARE` of those predicted.
        test_bars: Bars that it is measured on, which is also the step; None for as many as give
            `WINDOWS` windows.
    """

    question: Question
    axes: tuple[Axis, ...]
    train_bars: int | None = None
    test_bars: int | None = None

    @property
    def settings(self) -> tuple[Setting, ...]:
        """Give every combination; raises as `settings_of` does."""
        return settings_of(self.axes, self.question.policy_config)


class Swept(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Holds a report with the accounts that its pictures are drawn from, out of sample."""

    report: SweepReport
    model: Account
    proxy: Account


def sweep(
    request: SweepRequest,
    artifact: Path,
    table: BarTable,
    *,
    begin: Callable[[], object] = lambda: None,
    progress: Progress,
) -> Swept:
    """Sweep settings over the bars that a model's run predicted out of fold.

    Args:
        request: What a person decided.
        artifact: The model's directory, its run beside it.
        table: The bars that its data set was made from.
        begin: Called once everything is there, before the first setting is tried: what is refused
            until then has shown nobody anything.
        progress: Told of (stage, runs done, in all).

    Raises:
        ArtifactInvalid: The artifact is not what it says.
        DataInvalid: Its run is missing or another's, the bars are others, or are too few; or an
            earlier sweep does not say what it tried.
        InvalidField: A setting is out of its range.
    """
    settings = request.settings
    ground = ground_of(request.question, artifact, table)
    splits = splits_of(request, ground)
    interval_ms = ground.base.market.interval_ms
    begin()
    done, total = 0, (2 * len(splits) + 1) * len(settings)

    def accounts(bars: range) -> list[Account]:
        nonlocal done
        found = []
        for setting in settings:
            found.append(ground.account(setting, bars, of_model=True))
            done += 1
            progress(STAGE, done, total)
        return found

    windows: list[Window] = []
    models, proxies = [], []
    for split in splits:
        before = [outcome_of(one, interval_ms) for one in accounts(split.train[0])]
        after = accounts(split.test[0])
        chosen = best_of(before)
        proxy = ground.account(settings[chosen], split.test[0], of_model=False)
        windows.append(
            _window(
                ground,
                len(windows),
                split,
                trials=[
                    Trial(setting=place, in_sample=was, out_of_sample=outcome_of(came, interval_ms))
                    for place, (was, came) in enumerate(zip(before, after, strict=True))
                ],
                chosen=chosen,
                proxy=proxy,
            )
        )
        models.append(after[chosen])
        proxies.append(proxy)
    newest = range(len(ground.base.market.ts_ms))[-len(splits[0].train[0]) :]
    latest = best_of([outcome_of(one, interval_ms) for one in accounts(newest)])
    model, proxy = joined(models), joined(proxies)
    report = _report(request, ground, tuple(windows), chosen=latest, model=model, proxy=proxy)
    return Swept(report=report, model=model, proxy=proxy)


def splits_of(request: SweepRequest, ground: Ground) -> tuple[Split, ...]:
    """Cut the bars into windows; between choosing and measuring lies the label's horizon.

    Raises:
        DataInvalid: There are too few bars for one window.
    """
    bar_count, purged = len(ground.base.market.ts_ms), ground.record.purge_bars
    train_bars = request.train_bars or max(1, int(TRAIN_SHARE * bar_count))
    test_bars = request.test_bars or max(1, (bar_count - train_bars - purged) // WINDOWS)
    splits = tuple(
        walk_forward(bar_count, train_rows=train_bars, test_rows=test_bars, purged_rows=purged)
    )
    if not splits:
        found = f"{bar_count} bars that were predicted"
        expected = f"at least {train_bars} to choose on, {purged} between and {test_bars} to test"
        raise DataInvalid(f"found {found}, expected {expected}", found=found, expected=expected)
    return splits


def best_of(outcomes: Sequence[Outcome]) -> int:
    """Give the setting with the highest Sharpe ratio; the first of equals."""
    return max(range(len(outcomes)), key=lambda place: (sharpe_or_least(outcomes[place]), -place))


def _window(
    ground: Ground,
    number: int,
    split: Split,
    *,
    trials: list[Trial],
    chosen: int,
    proxy: Account,
) -> Window:
    times_ms = ground.base.market.ts_ms
    train, test = split.train[0], split.test[0]
    return Window(
        number=number,
        train_start_ts_ms=int(times_ms[train[0]]),
        train_end_ts_ms=int(times_ms[train[-1]]),
        test_start_ts_ms=int(times_ms[test[0]]),
        test_end_ts_ms=int(times_ms[test[-1]]),
        chosen=chosen,
        trials=tuple(trials),
        proxy=outcome_of(proxy, ground.base.market.interval_ms),
    )


def _report(
    request: SweepRequest,
    ground: Ground,
    windows: tuple[Window, ...],
    *,
    chosen: int,
    model: Account,
    proxy: Account,
) -> SweepReport:
    market, record, question = ground.base.market, ground.record, request.question
    trigger = question.trigger.trigger
    moments = return_moments(model.returns)
    trial_count = record.trial_count + ground.earlier_trials + len(request.settings)
    return SweepReport(
        name=question.name,
        model_id=record.model_id,
        model_version_hash=record.model_version_hash,
        dataset_hash=record.dataset_hash,
        data_hash=record.data_hash,
        symbols=market.symbols,
        bar_interval_ms=market.interval_ms,
        trigger=trigger.trigger_id,
        trigger_hash=trigger.parameters_hash,
        execution=question.execution.value,
        fee_bps=plain(question.costs.fee_bps),
        slippage_bps=plain(question.costs.slippage_bps),
        trigger_parameters=question.trigger,
        vol_bars=question.vol_bars,
        cash=plain(question.cash),
        axes=request.axes,
        settings=request.settings,
        windows=windows,
        chosen=chosen,
        model=outcome_of(model, market.interval_ms),
        proxy=outcome_of(proxy, market.interval_ms),
        trial_count=trial_count,
        deflated_sharpe_ppm=(
            None if moments is None else round(deflated_sharpe(moments, trial_count) * PPM_ONE)
        ),
    )
