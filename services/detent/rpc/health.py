"""Answer `grpc.health.v1`: what of this process serves, by name."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from grpc_health.v1 import health_pb2

from detent.rpc.http2.stream import Ended, Route, Stream

NAME = "grpc.health.v1.Health"
NOT_FOUND, UNAVAILABLE = 5, 14
# The published types do not know the protocol's newest method.
pb: Any = health_pb2
_Status = pb.HealthCheckResponse


class Health:
    """Holds what serves, and tells those who watch."""

    def __init__(self) -> None:
        """Start with nothing; the process as a whole, named by nothing, is up."""
        self._statuses: dict[str, int] = {"": _Status.SERVING}
        self._changed = asyncio.Event()
        self._is_ending = False

    def set(self, serving: Mapping[str, bool]) -> None:
        """Say per name whether it serves; ignored once the process ends."""
        if not self._is_ending:
            for name, is_serving in serving.items():
                self._statuses[name] = _Status.SERVING if is_serving else _Status.NOT_SERVING
            self._tell()

    def end(self) -> None:
        """Say of everything, for good, that it no longer serves."""
        self._is_ending = True
        self._statuses = dict.fromkeys(self._statuses, _Status.NOT_SERVING)
        self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def routes(self) -> dict[str, Route]:
        """Give what serves the protocol's methods."""
        return {
            f"/{NAME}/Check": Route(serve=self._check),
            f"/{NAME}/List": Route(serve=self._list),
            f"/{NAME}/Watch": Route(serve=self._watch, gives_stream=True),
        }

    async def _check(self, stream: Stream) -> Ended:
        status = self._statuses.get(pb.HealthCheckRequest.FromString(stream.message).service)
        if status is None:
            return Ended(code=NOT_FOUND, message="no such service here")
        return Ended(answer=_Status(status=status).SerializeToString())

    async def _list(self, stream: Stream) -> Ended:
        del stream
        statuses = {name: _Status(status=status) for name, status in self._statuses.items()}
        return Ended(answer=pb.HealthListResponse(statuses=statuses).SerializeToString())

    async def _watch(self, stream: Stream) -> Ended:
        name = pb.HealthCheckRequest.FromString(stream.message).service
        async for status in self._of(name):
            await stream.send(_Status(status=status).SerializeToString())
        # Who watches would otherwise hold up a drain to the end of its grace.
        return Ended(code=UNAVAILABLE, message="the process ends")

    async def _of(self, name: str) -> AsyncIterator[int]:
        """Give the status of a name whenever it changes, until the process ends.

        A name that is not known has a status too.
        """
        last: int | None = None
        while True:
            changed = self._changed
            status = self._statuses.get(name, _Status.SERVICE_UNKNOWN)
            if status != last:
                yield status
            last = status
            if self._is_ending:
                return
            await changed.wait()
