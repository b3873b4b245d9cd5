"""Serves the inference process's two services from the test's own process, over real gRPC."""

from __future__ import annotations

from typing import Any, Self

import grpc
import numpy as np
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from tests.unit.artifacts import artifact, model_inputs

from detent.api.inference import grpc_service_pb2 as pb
from detent.rpc.serve import Server, ServerOptions
from detent.rpc.status import from_rpc_error
from detent.rpc.tracing import no_tracer
from detent.servers.inference.handler import InferenceHandler
from detent.servers.inference.main import health_of, services_of
from detent.servers.inference.open_inference import DESCRIPTOR

_METHODS = {method.input_type.name: method for method in DESCRIPTOR.methods}


class InferenceHost:
    """Is the inference process without the process."""

    def __init__(self, handler: InferenceHandler) -> None:
        options = ServerOptions(listen="127.0.0.1:0", reflection=True, drain_grace_s=0.0)
        self._server = Server(options, services_of(handler), no_tracer())
        self._health = health_of(handler.serving)
        self.target = ""
        self.channel: Any = None

    async def __aenter__(self) -> Self:
        self.target = await self._server.start()
        self._server.set_serving(self._health)
        self.channel = grpc.aio.insecure_channel(self.target)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()
        await self._server.drain()

    async def ask(self, message: Message, *, timeout_s: float | None = 5.0) -> Any:
        """Send a message of the protocol to its method and give the answer.

        Raises:
            DetentError: What the server refused it with.
        """
        method = _METHODS[message.DESCRIPTOR.name]
        call = self.channel.unary_unary(
            f"/{DESCRIPTOR.full_name}/{method.name}",
            request_serializer=type(message).SerializeToString,
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        try:
            return await call(message, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error("inference", error) from error


def infer_request(
    rows: list[bytes], *, name: str, binding_hash: str, raw: bool = True
) -> pb.ModelInferRequest:
    """Ask for some rows in one of the two forms."""
    request = pb.ModelInferRequest(model_name=name, id="bar 7")
    request.parameters["binding_hash"].string_param = binding_hash
    shape = (len(rows), len(rows[0]) // 4)
    tensor = request.inputs.add(name="input", datatype="FP32", shape=shape)
    if raw:
        request.raw_input_contents.append(b"".join(rows))
    else:
        tensor.contents.fp32_contents.extend(np.frombuffer(b"".join(rows), "<f4").tolist())
    return request


def request_of(count: int = 3, *, raw: bool = True) -> pb.ModelInferRequest:
    """Ask the small artifact of the unit tests for the first rows of its bars."""
    rows = [row.values for row in model_inputs()[:count]]
    pinned = artifact().pinned
    return infer_request(
        rows, name=pinned.manifest.model_name, binding_hash=pinned.binding_hash, raw=raw
    )
