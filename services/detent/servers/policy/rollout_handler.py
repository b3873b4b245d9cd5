"""Serve the operator: switch models off and release them, everywhere at once."""

from detent.contracts.calls.rollout import (
    GetKillSwitchesRequest,
    GetKillSwitchesResponse,
    SetKillSwitchRequest,
    SetKillSwitchResponse,
    SharedKillState,
)
from detent.contracts.kill_switch import KillScope, KillSource, LocalKill
from detent.core.rollout.kill_state import EVERYTHING, KillReading, is_stale
from detent.rpc.call import Call
from detent.servers.policy.kill_switches import KillSwitches
from detent.servers.policy.model_path import ModelPath


class RolloutHandler:
    """Changes the shared switches and says what this process obeys."""

    def __init__(self, kills: KillSwitches, path: ModelPath) -> None:
        """Take the switches of this process, and the path that they gate."""
        self._kills = kills
        self._path = path

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
