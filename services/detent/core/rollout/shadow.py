"""Say whom to ask about a bar that somebody else decided, and pair the two answers.

Nothing here comes before a decision: its arguments are records that are durable.

Source: seed 003, milestone M8-02b and section 12.5.4; rows R85 and R115; DESIGN section 3.
"""

from collections.abc import Mapping, Sequence

from msgspec import structs

from detent.contracts.binding import SignalSource
from detent.contracts.decision import DecisionKind, DecisionRecord
from detent.contracts.rollout import PlanRollout
from detent.contracts.shadow import ShadowSignal
from detent.core.ledger.record import BoundPlan, bind_plan
from detent.core.rollout.gates import ACTIVE_ACK, Enablement
from detent.core.signals.choice import ModelOutcome


def shadow_enablement(enablement: Enablement) -> Enablement:
    """Give the switches of a model that runs unused: what it may not do is act.

    The kill switches and the first key hold for it as for any other. The second key, the
    acknowledgement and the environments are about acting.
    """
    return structs.replace(
        enablement, active_enabled=True, active_ack=ACTIVE_ACK, allowed_environments=()
    )


def shadow_plans(bound: BoundPlan, *, own: bool) -> tuple[BoundPlan, ...]:
    """Give a plan under each binding that is asked unused about its bars.

    How a rollout stands says who may decide; whoever is asked unused is asked all the same, so
    that what was taken back can still be compared.

    Args:
        bound: The plan.
        own: Whether the process is on the rung SHADOW, where a plan's own model is asked so.
    """
    plans = []
    if own and bound.binding.signal_source is SignalSource.MODEL:
        plans.append(structs.replace(bound, rollout=None, shadow_binding=None))
    if bound.shadow_binding is not None:
        plans.append(bind_plan(bound.plan, bound.shadow_binding))
    return tuple(plans)


def is_shadowed(record: DecisionRecord) -> bool:
    """Say whether a decision is one that a model is asked about: an emergency asks nobody."""
    return record.kind is DecisionKind.BAR


def shadow_signals(
    decided: Sequence[tuple[DecisionRecord, str]],
    outcomes: Mapping[str, ModelOutcome] | None,
    *,
    asked: BoundPlan,
    rollout: PlanRollout | None,
    latency_us: int,
) -> tuple[ShadowSignal, ...]:
    """Pair what was said unused with what was used.

    Args:
        decided: Records of one bar with their hashes.
        outcomes: What came of asking, by symbol; None for the proxy, whose answer every
            record holds.
        asked: The plan under the binding that was asked.
        rollout: Which arm of which rollout decided; None for a plan of its own.
        latency_us: How long asking took.
    """
    binding = asked.binding
    is_model = binding.signal_source is SignalSource.MODEL
    signals = []
    for record, record_hash in decided:
        used = record.signal
        answer = _proxys(record) if outcomes is None else outcomes[record.row.symbol]
        signal = ShadowSignal(
            binding_hash=asked.binding_hash,
            plan_id=record.plan_id,
            symbol=record.row.symbol,
            ts_ms=record.ts_ms,
            kind=record.kind,
            record_hash=record_hash,
            used_source=used.signal_source,
            used_p_hat_bps=used.p_hat_bps,
            used_reason=used.fallback_reason,
            model_id=binding.model_id if is_model else None,
            horizon_bars=binding.horizon_bars,
            features_hash=answer.features_hash,
            p_hat_raw_bps=answer.p_hat_raw_bps,
            p_hat_bps=answer.p_hat_bps,
            reason=answer.reason,
            latency_us=latency_us,
            rollout=rollout,
        )
        signals.append(signal)
    return tuple(signals)


def _proxys(record: DecisionRecord) -> ModelOutcome:
    p_hat_bps = record.signal.proxy_p_hat_bps
    return ModelOutcome(p_hat_raw_bps=p_hat_bps, p_hat_bps=p_hat_bps)
