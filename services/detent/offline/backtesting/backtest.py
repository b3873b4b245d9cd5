"""Compose a back-test: bars, strategist, binding and signals into a setup; model beside proxy."""

from pathlib import Path

import msgspec
from msgspec import structs

from detent.contracts.binding import PROXY_BINDING, ModelBinding
from detent.contracts.errors import DataInvalid
from detent.contracts.plan import Plan, PolicyConfig, RiskLimits
from detent.core.ledger.record import bind_plan
from detent.offline.backtesting.account import Costs
from detent.offline.backtesting.engine import Ran, Setup
from detent.offline.backtesting.execution import Execution
from detent.offline.backtesting.folder import BacktestRun, run_into
from detent.offline.backtesting.market import Market, market_of
from detent.offline.backtesting.signals import ModelSignals, Signals, proxy_columns
from detent.offline.backtesting.stored_signals import StoredSignals
from detent.offline.backtesting.strategy import TriggerParameters, trigger_columns, vol_columns
from detent.offline.bars import BarTable
from detent.offline.samples import Progress

MODEL, PROXY = "model", "proxy"
ORIGIN_ARTIFACT, ORIGIN_STORED, ORIGIN_NONE = "artifact", "stored", "none"


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """States what a person decides about a back-test.

    Attributes:
        name: Name of the run; plans are named after it.
        policy_config: How a signal becomes a weight.
        risk_limits: What bounds every weight.
        trigger: What permits a direction.
        trigger_file: The file of a rule by file, or None.
        vol_bars: Returns of the volatility forecast.
        costs: What trading costs.
        cash: Quote units at the start.
        execution: How is filled.
        max_signal_age_ms: How old a stored signal may be, or None.
        records: Whether every decision is recorded.
    """

    name: str
    policy_config: PolicyConfig
    risk_limits: RiskLimits = RiskLimits()
    trigger: TriggerParameters = TriggerParameters()
    trigger_file: Path | None = None
    vol_bars: int = 96
    costs: Costs = Costs()
    cash: float = 1_000_000.0
    execution: Execution = Execution.NEXT_BAR
    max_signal_age_ms: int | None = None
    records: bool = True


class Compared(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Holds runs side by side: of the proxy, and of the model where there is one."""

    runs: dict[str, tuple[BacktestRun, Ran]]


def plan_named(
    question: Question, market: Market, *, source: str, max_age_ms: int | None = None
) -> Plan:
    """Give the plan of one run."""
    return Plan(
        plan_id=f"{question.name}-{source}",
        book=f"backtest-{question.name}-{source}",
        symbols=market.symbols,
        bar_interval_ms=market.interval_ms,
        triggers=(question.trigger.trigger,),
        policy_config=question.policy_config,
        risk_limits=question.risk_limits,
        max_feature_age_ms=max_age_ms,
    )


def proxy_setup(question: Question, market: Market) -> Setup:
    """Give the run of the proxy; no code of a model takes part in it (R80)."""
    plan = plan_named(question, market, source=PROXY)
    return Setup(
        bound=bind_plan(plan, PROXY_BINDING),
        market=market,
        trigger=trigger_columns(market, question.trigger, question.trigger_file),
        vol_hat_ppm=vol_columns(
            market, window_bars=question.vol_bars, unit=question.policy_config.vol_unit
        ),
        signals=Signals(model=None, proxy=proxy_columns(market)),
        costs=question.costs,
        cash=question.cash,
        execution=question.execution,
        trigger_parameters=question.trigger,
        vol_bars=question.vol_bars,
    )


def model_setup(
    question: Question, base: Setup, binding: ModelBinding, answers: ModelSignals
) -> Setup:
    """Give the run of a model beside that of the proxy: all but the binding is the same.

    Raises:
        DataInvalid: The binding is of another horizon than the policy config.
    """
    if binding.horizon_id != question.policy_config.horizon_id:
        found, expected = question.policy_config.horizon_id, binding.horizon_id
        message = f"horizon_id: found {found}, expected the artifact's {expected}"
        raise DataInvalid(message, found=found, expected=expected)
    plan = plan_named(question, base.market, source=MODEL, max_age_ms=question.max_signal_age_ms)
    return structs.replace(
        base,
        bound=bind_plan(plan, binding),
        signals=Signals(model=answers, proxy=base.signals.proxy),
    )


def stored_answers(signals: StoredSignals, market: Market, question: Question) -> ModelSignals:
    """Give what stored signals say of each bar."""
    return signals.over(market, max_age_ms=question.max_signal_age_ms)


def backtest(
    question: Question,
    table: BarTable,
    *,
    out: Path,
    artifact: Path | None = None,
    signals: Path | None = None,
    progress: Progress,
) -> Compared:
    """Run the proxy and, where an artifact is named, the model beside it.

    Args:
        question: What a person decided.
        table: The bars.
        out: Folder; each run gets a folder of its own in it.
        artifact: Directory of the bound artifact; None runs the proxy alone.
        signals: A file of the artifact's stored signals; None asks the artifact itself.
        progress: Told of (stage, done, in all).

    Raises:
        DataInvalid: A file cannot be used, or the bars do not fit.
        ArtifactInvalid: The artifact is not what it says.
    """
    if question.max_signal_age_ms is not None and signals is None:
        found, expected = f"{question.max_signal_age_ms} without signals", "a file of them"
        raise DataInvalid(f"max_signal_age_ms: found {found}, expected {expected}", found=found)
    market = market_of(table)
    base = proxy_setup(question, market)
    setups = {PROXY: (base, PROXY)}
    if artifact is not None:
        # Imported here: without a model no code of one is loaded.
        from detent.offline.backtesting.bound_model import bound_answers  # noqa: PLC0415

        binding, answers, origin = bound_answers(
            artifact, signals, table, market, question=question, progress=progress
        )
        setups[MODEL] = (model_setup(question, base, binding, answers), origin)
    elif signals is not None:
        found, expected = "no artifact", "the artifact that gave the signals"
        raise DataInvalid(f"signals: found {found}, expected {expected}", found=found)
    return Compared(
        runs={
            source: run_into(
                out / source,
                setup,
                signal_origin=origin,
                records=question.records,
                progress=progress,
            )
            for source, (setup, origin) in setups.items()
        }
    )
