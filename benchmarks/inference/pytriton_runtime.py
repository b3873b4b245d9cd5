"""Serve the graph with PyTriton, as its documentation says: with its dynamic batcher and without.

Runs in PyTriton's environment, where nothing of ours is installed:
`python pytriton_runtime.py MODEL_NAME MODEL_FILE GRPC_PORT FOLDER`. The model that is batched has
`_batching` behind its name. The one that nobody asks waits, and costs the other nothing.
"""

import pathlib
import signal
import sys
from typing import Any

import numpy as np
import onnxruntime
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.proxy.types import Request
from pytriton.triton import Triton, TritonConfig

OUTPUT_NAME = "probabilities"
BATCHING = "_batching"
# Sixteen calls of 256 rows fit into one batch.
BATCH_ROWS_MAX = 4_096


def main() -> None:
    """Serve until the process is ended."""
    model_name, model_file, grpc_port, folder = sys.argv[1:]
    # It cleans up behind itself on an interrupt only.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model_file, sess_options=options, providers=["CPUExecutionProvider"]
    )
    given, wanted = session.get_inputs()[0], session.get_outputs()[0]
    width, classes = given.shape[1], wanted.shape[1]

    def infer(requests: list[Request]) -> list[dict[str, Any]]:
        return [
            {OUTPUT_NAME: session.run([OUTPUT_NAME], {given.name: request[given.name]})[0]}
            for request in requests
        ]

    @batch
    def infer_batch(**inputs: Any) -> dict[str, Any]:
        return {OUTPUT_NAME: session.run([OUTPUT_NAME], inputs)[0]}

    config = TritonConfig(
        grpc_address="127.0.0.1",
        grpc_port=int(grpc_port),
        allow_http=False,
        allow_metrics=False,
        log_verbose=0,
    )
    with Triton(config=config, workspace=pathlib.Path(folder)) as triton:
        triton.bind(
            model_name=model_name,
            infer_func=infer,
            inputs=[Tensor(name=given.name, dtype=np.float32, shape=(-1, width))],
            outputs=[Tensor(name=OUTPUT_NAME, dtype=np.float32, shape=(-1, classes))],
            config=ModelConfig(batching=False),
        )
        triton.bind(
            model_name=model_name + BATCHING,
            infer_func=infer_batch,
            inputs=[Tensor(name=given.name, dtype=np.float32, shape=(width,))],
            outputs=[Tensor(name=OUTPUT_NAME, dtype=np.float32, shape=(classes,))],
            config=ModelConfig(max_batch_size=BATCH_ROWS_MAX),
        )
        triton.serve()


if __name__ == "__main__":
    main()
