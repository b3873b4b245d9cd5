"""Asks a server what a user of `tritonclient` would, and prints what came back as JSON.

Runs in an environment of its own, where neither Detent nor the project's libraries are: what it
knows of the server is what the published client knows. Standard input says whom to ask.
"""

import asyncio
import base64
import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio
from tritonclient.grpc import service_pb2


def fields_of(message: Any) -> dict[str, list[Any]]:
    """Describe the fields of a message, and of the messages in it, by number."""
    found = {
        message.full_name: sorted(
            [field.number, field.name, field.type, field.label] for field in message.fields
        )
    }
    for nested in message.nested_types:
        if not nested.GetOptions().map_entry:
            found |= fields_of(nested)
    return found


def inputs_of(asked: Any) -> list[Any]:
    """Give the rows as the client's input."""
    values = np.frombuffer(base64.b64decode(asked["rows"]), "<f4").reshape(-1, asked["width"])
    given = tritonclient.grpc.InferInput(asked["input"], list(values.shape), "FP32")
    given.set_data_from_numpy(values)
    return [given]


def infer(client: Any, asked: Any, **options: Any) -> dict[str, Any]:
    """Infer and give the outputs, or how the client says that it was refused."""
    try:
        result = client.infer(asked["name"], inputs_of(asked), **options)
    except tritonclient.grpc.InferenceServerException as error:
        return {"status": error.status(), "message": error.message()}
    return outputs_of(result)


def outputs_of(result: Any) -> dict[str, Any]:
    """Give the outputs as lists, with what stands beside them."""
    response = result.get_response()
    return {
        "id": response.id,
        "version": response.model_version,
        "parameters": {name: value.string_param for name, value in response.parameters.items()},
        "outputs": {
            output.name: result.as_numpy(output.name).tolist() for output in response.outputs
        },
        "dtypes": [str(result.as_numpy(output.name).dtype) for output in response.outputs],
    }


async def infer_async(asked: Any, **options: Any) -> dict[str, Any]:
    """Infer by the asynchronous client."""
    async with tritonclient.grpc.aio.InferenceServerClient(asked["target"]) as client:
        return outputs_of(await client.infer(asked["name"], inputs_of(asked), **options))


def refusal_of(call: Callable[..., Any], *arguments: str) -> str:
    """Give the status with which a call is refused."""
    try:
        call(*arguments)
    except tritonclient.grpc.InferenceServerException as error:
        return error.status()
    return "OK"


def main() -> None:
    """Ask everything once."""
    asked = json.load(sys.stdin)
    name, binding = asked["name"], {"binding_hash": asked["binding_hash"]}
    client = tritonclient.grpc.InferenceServerClient(asked["target"])
    wanted = [tritonclient.grpc.InferRequestedOutput("p_hat_bps")]
    report = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready(name, asked["version"]),
        "other_ready": client.is_model_ready("another"),
        "server": client.get_server_metadata(as_json=True),
        "model": client.get_model_metadata(name, as_json=True),
        "answer": infer(client, asked, request_id="7", parameters=binding),
        "versioned": infer(
            client, asked, model_version=asked["version"], outputs=wanted, parameters=binding
        ),
        "asynchronous": asyncio.run(infer_async(asked, parameters=binding)),
        "unbound": infer(client, asked),
        "misbound": infer(client, asked, parameters={"binding_hash": "0" * 64}),
        "load": refusal_of(client.load_model, name),
        "unload": refusal_of(client.unload_model, name),
        "index": refusal_of(client.get_model_repository_index),
        "fields": {
            full_name: found
            for message in service_pb2.DESCRIPTOR.message_types_by_name.values()
            for full_name, found in fields_of(message).items()
        },
    }
    client.close()
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main()
