"""Serve the graph with KServe, as its documentation says for a predictor of one's own.

Runs in KServe's environment, where nothing of ours is installed:
`python kserve_runtime.py MODEL_NAME MODEL_FILE GRPC_PORT HTTP_PORT`.
"""

import asyncio
import sys

import onnxruntime
import uvloop
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer

OUTPUT_NAME = "probabilities"
GRACE_S = 1


class OnnxModel(Model):
    """Runs one graph."""

    def __init__(self, name: str, model_file: str) -> None:
        """Load the graph."""
        super().__init__(name)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            model_file, sess_options=options, providers=["CPUExecutionProvider"]
        )
        self.ready = True

    def predict(
        self, payload: InferRequest, headers: dict[str, str] | None = None
    ) -> InferResponse:
        """Run the graph on the one input."""
        del headers
        given = payload.inputs[0]
        probabilities = self._session.run([OUTPUT_NAME], {given.name: given.as_numpy()})[0]
        output = InferOutput(
            name=OUTPUT_NAME, shape=list(probabilities.shape), datatype=given.datatype
        )
        output.set_data_from_numpy(probabilities)
        return InferResponse(response_id=payload.id, model_name=self.name, infer_outputs=[output])


def main() -> None:
    """Serve until the process is ended."""
    model_name, model_file, grpc_port, http_port = sys.argv[1:]
    # With one worker KServe runs on the loop of the policy: the fast one, which it depends on.
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    # It also asks for a current loop, which this policy does not make by itself.
    asyncio.set_event_loop(asyncio.new_event_loop())
    server = ModelServer(
        grpc_port=int(grpc_port),
        http_port=int(http_port),
        workers=1,
        enable_latency_logging=False,
        grace_period=GRACE_S,
    )
    server.start([OnnxModel(model_name, model_file)])


if __name__ == "__main__":
    main()
