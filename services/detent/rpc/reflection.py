"""Answer `grpc.reflection.v1alpha`: the contract, read from the server."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from grpc_reflection.v1alpha import reflection, reflection_pb2

from detent.rpc.http2.stream import Ended, Route, Stream

NAME: str = reflection.SERVICE_NAME


def routes(names: Sequence[str]) -> dict[str, Route]:
    """Give what serves the protocol's method, for services of these full names."""
    servicer: Any = reflection.aio.ReflectionServicer(names)

    async def serve(stream: Stream) -> Ended:
        async def requests() -> AsyncIterator[Any]:
            async for content in stream.messages():
                yield reflection_pb2.ServerReflectionRequest.FromString(content)

        async for response in servicer.ServerReflectionInfo(requests(), None):
            await stream.send(response.SerializeToString())
        return Ended()

    path = f"/{NAME}/ServerReflectionInfo"
    return {path: Route(serve=serve, takes_stream=True, gives_stream=True)}
