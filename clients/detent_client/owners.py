"""Remember which replica owns a plan, and how to reach each of them."""

from collections import OrderedDict

import grpc
from opentelemetry.trace import Tracer

from detent.contracts.errors import NotOwner
from detent.rpc.channel import RemoteService, open_channel

PLANS_MAX = 10_000
REPLICAS_MAX = 64


class Owners:
    """Owns the channels to the replicas that an answer named."""

    def __init__(self, tracer: Tracer) -> None:
        """Know nobody."""
        self._tracer = tracer
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._services: dict[str, RemoteService] = {}
        self._targets: OrderedDict[str, str] = OrderedDict()

    @property
    def channels(self) -> tuple[grpc.aio.Channel, ...]:
        """Give the channels, to close them."""
        return tuple(self._channels.values())

    def service(self, plan_id: str) -> RemoteService | None:
        """Give the policy service of a plan's owner, if somebody was sent on to it."""
        target = self._targets.get(plan_id)
        return self._services[target] if target is not None else None

    def follow(self, plan_id: str, refusal: NotOwner) -> RemoteService:
        """Give the policy service that a refusal names, and remember it.

        Raises:
            NotOwner: The refusal names no address, or there are too many of them.
        """
        target = refusal.metadata.get("owner_target", "")
        service = self.at(target)
        if service is None:
            raise refusal
        self._targets[plan_id] = target
        if len(self._targets) > PLANS_MAX:
            self._targets.popitem(last=False)
        return service

    def at(self, target: str) -> RemoteService | None:
        """Give the policy service at an address; None for no address, or for too many of them."""
        if target not in self._services:
            if not target or len(self._services) >= REPLICAS_MAX:
                return None
            channel = open_channel(target)
            self._channels[target] = channel
            self._services[target] = RemoteService(channel, "PolicyService", self._tracer)
        return self._services[target]
