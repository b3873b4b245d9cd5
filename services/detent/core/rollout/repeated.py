"""Count how often one model was taken back by what is automatic, since a person released it.

Source: RELIABILITY A4; decision D18.
"""

from collections.abc import Iterable

from detent.contracts.kill_switch import KillPosition, KillScope, KillSwitch
from detent.contracts.rollout import Rollout, RolloutAction, RolloutEvent
from detent.core.rollout.kill_state import AUTOMATIC


def automatic_rollbacks(
    rollouts: Iterable[Rollout],
    history: Iterable[RolloutEvent],
    switches: Iterable[KillSwitch],
    *,
    model_id: str,
) -> int:
    """Count them.

    Args:
        rollouts: Every rollout.
        history: Every change of them.
        switches: Every kill switch as it stands, the released ones too.
        model_id: The candidate.
    """
    names = {one.rollout_id for one in rollouts if one.candidate_binding.model_id == model_id}
    released_ms = max(
        (
            switch.at_ms
            for switch in switches
            if (switch.scope, switch.key) == (KillScope.MODEL, model_id)
            and switch.position is KillPosition.RELEASED
        ),
        default=-1,
    )
    return sum(
        event.rollout_id in names
        and event.action is RolloutAction.ROLLED_BACK
        and event.actor.startswith(AUTOMATIC)
        and event.at_ms > released_ms
        for event in history
    )
