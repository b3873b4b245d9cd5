"""Ask a server for its health: `python -m detent.rpc.probe HOST:PORT [SERVICE]`.

Exits 0 when it serves, 1 when it does not or cannot be reached, 2 on wrong usage.
"""

import sys
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

TIMEOUT_S = 2.0


def is_serving(target: str, service: str) -> bool:
    """Say whether the service at an address answers that it serves."""
    with grpc.insecure_channel(target) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        check: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = check.Check(request, timeout=TIMEOUT_S)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def main(arguments: list[str]) -> int:
    """Probe the address in the arguments and give the exit code."""
    match arguments:
        case [target]:
            return 0 if is_serving(target, "") else 1
        case [target, service]:
            return 0 if is_serving(target, service) else 1
        case _:
            sys.stderr.write("usage: python -m detent.rpc.probe HOST:PORT [SERVICE]\n")
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
