"""Serve a graph with grpcio and ONNX Runtime and nothing else: what one would write in an hour.

A synchronous server of ten threads, bytes in and bytes out. It checks no binding, calibrates
nothing, bounds no queue and logs no line.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import onnxruntime

from benchmarks.inference.graph import INPUT_NAME, OUTPUT_NAME, WIDTH

SERVICE = "bench.Plain"
METHOD = "Infer"
THREADS = 10
BYTES_MAX = 16 * 1024 * 1024


def main() -> None:
    """Serve until the process is ended."""
    port, model_file = sys.argv[1:]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model_file, sess_options=options, providers=["CPUExecutionProvider"]
    )

    def infer(request: bytes, _context: Any) -> bytes:
        rows = np.frombuffer(request, "<f4").reshape(-1, WIDTH)
        probabilities = session.run([OUTPUT_NAME], {INPUT_NAME: rows})[0]
        return bytes(probabilities[:, -1].tobytes())

    server = grpc.server(
        ThreadPoolExecutor(max_workers=THREADS),
        options=[("grpc.max_receive_message_length", BYTES_MAX)],
    )
    method: Any = grpc.unary_unary_rpc_method_handler(infer)
    handler = grpc.method_handlers_generic_handler(SERVICE, {METHOD: method})
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
