"""Serve the operator: roll candidates out and back, switch models off and release them."""

from collections.abc import AsyncGenerator, Mapping

from detent.contracts.calls.rollout import (
    GetKillSwitchesRequest,
    GetKillSwitchesResponse,
    GetRolloutRequest,
    GetRolloutResponse,
    ListRolloutsRequest,
    ListRolloutsResponse,
    PromoteRolloutRequest,
    PromoteRolloutResponse,
    RollBackRequest,
    RollBackResponse,
    SetCanaryPercentRequest,
    SetCanaryPercentResponse,
    SetKillSwitchRequest,
    SetKillSwitchResponse,
    SharedKillState,
    StartRolloutRequest,
    StartRolloutResponse,
    WatchRolloutRequest,
    WatchRolloutResponse,
)
from detent.contracts.kill_switch import KillScope, KillSource, LocalKill
from detent.contracts.rollout import DEFAULT_RAMP, Rollout
from detent.contracts.units import TS_MS_MIN
from detent.core.rollout.kill_state import EVERYTHING, KillReading, is_stale
from detent.core.rollout.power import ramp_power, step_power
from detent.rpc.call import Call
from detent.servers.policy.held import HeldBinding, check_alike
from detent.servers.policy.kill_switches import KillSwitches
from detent.servers.policy.model_path import ModelPath
from detent.servers.policy.rollouts import Rollouts


class RolloutHandler:
    """Changes rollouts and shared switches, and says what this process obeys."""

    def __init__(
        self,
        kills: KillSwitches,
        path: ModelPath,
        *,
        rollouts: Rollouts,
        held: Mapping[str, HeldBinding],
    ) -> None:
        """Take switches and rollouts of this process, the path that they gate, and what is held.

        Args:
            kills: The switches.
            path: How the model is asked.
            rollouts: The rollouts.
            held: The bindings that the held manifests give, by hash.
        """
        self._kills = kills
        self._path = path
        self._rollouts = rollouts
        self._held = held

    # Rollouts

    async def start_rollout(self, query: StartRolloutRequest, call: Call) -> StartRolloutResponse:
        """Start a rollout in shadow, and say what can be told at each step of it."""
        stable = query.stable_binding.effective
        check_alike(stable, query.candidate_binding, self._held)
        asked = Rollout(
            rollout_id=query.rollout_id,
            book=query.book,
            symbols=query.symbols,
            stable_binding=stable,
            candidate_binding=query.candidate_binding,
            salt=query.salt or query.rollout_id,
            ramp=query.ramp or DEFAULT_RAMP,
            # Set when it is kept.
            since_ms=TS_MS_MIN,
        )
        rollout = await self._rollouts.start(asked, actor=query.actor, reason=query.reason)
        steps = ramp_power(rollout.symbols, salt=rollout.salt, ramp=rollout.ramp)
        return StartRolloutResponse(rollout=rollout, steps=steps)

    async def set_canary_percent(
        self, query: SetCanaryPercentRequest, call: Call
    ) -> SetCanaryPercentResponse:
        """Set the candidate's share of the symbols."""
        rollout = await self._rollouts.set_percent(query)
        step = step_power(rollout.symbols, salt=rollout.salt, canary_bps=rollout.canary_bps)
        return SetCanaryPercentResponse(rollout=rollout, step=step)

    async def promote_rollout(
        self, query: PromoteRolloutRequest, call: Call
    ) -> PromoteRolloutResponse:
        """Make the candidate what all symbols use."""
        return PromoteRolloutResponse(rollout=await self._rollouts.promote(query))

    async def roll_back(self, query: RollBackRequest, call: Call) -> RollBackResponse:
        """Take the candidate back; answered when that holds everywhere."""
        done = await self._rollouts.roll_back(query)
        return RollBackResponse(
            rollout=done.rollout,
            applied_count=done.applied_count,
            leased_out_count=done.leased_out_count,
        )

    async def get_rollout(self, query: GetRolloutRequest, call: Call) -> GetRolloutResponse:
        """Give a rollout with its history."""
        rollout = await self._rollouts.get(query.rollout_id)
        history = await self._rollouts.history(query.rollout_id)
        return GetRolloutResponse(rollout=rollout, history=tuple(history))

    async def list_rollouts(self, query: ListRolloutsRequest, call: Call) -> ListRolloutsResponse:
        """List the rollouts of a book, or of all."""
        return ListRolloutsResponse(rollouts=tuple(await self._rollouts.rollouts(query.book)))

    def watch_rollout(
        self, query: WatchRolloutRequest, call: Call
    ) -> AsyncGenerator[WatchRolloutResponse, None]:
        """Tell of changes until the caller leaves."""
        return self._rollouts.watch(query)

    # Kill switches

    async def set_kill_switch(
        self, query: SetKillSwitchRequest, call: Call
    ) -> SetKillSwitchResponse:
        """Change a shared switch; answered when it holds everywhere."""
        done = await self._kills.change(
            query.scope,
            query.key,
            position=query.position,
            seen_epoch=query.seen_epoch,
            actor=query.actor,
            reason=query.reason,
        )
        return SetKillSwitchResponse(
            kill_switch=done.kill_switch,
            applied_count=done.applied_count,
            leased_out_count=done.leased_out_count,
        )

    async def get_kill_switches(
        self, query: GetKillSwitchesRequest, call: Call
    ) -> GetKillSwitchesResponse:
        """Give the shared switches as this process read them, and what it has off by itself."""
        reading = self._kills.reading()
        state = SharedKillState.NONE
        if reading.shared is not None:
            stale = is_stale(reading.shared, reading.now_s)
            state = SharedKillState.STALE if stale else SharedKillState.FRESH
        readers = await self._kills.readers() if state is SharedKillState.FRESH else []
        return GetKillSwitchesResponse(
            kill_switches=self._kills.switches,
            readers=tuple(readers),
            local_kills=self._local(reading),
            shared_state=state,
        )

    def _local(self, reading: KillReading) -> tuple[LocalKill, ...]:
        found: list[tuple[KillSource, tuple[KillScope, str]]] = []
        if self._path.kill_switch_env():
            found.append((KillSource.ENVIRONMENT, EVERYTHING))
        if self._path.enablement.kill_switch:
            found.append((KillSource.CONFIG, EVERYTHING))
        found += [(KillSource.FILE, key) for key in sorted(reading.file)]
        found += [(KillSource.LATCH, key) for key in sorted(reading.latched)]
        return tuple(
            LocalKill(source=source, scope=scope, key=key) for source, (scope, key) in found
        )
