"""Serve the graph with MLServer, as its documentation says for a runtime of one's own.

Runs in MLServer's environment, where nothing of ours is installed.
"""

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

OUTPUT_NAME = "probabilities"


class OnnxModel(MLModel):
    """Runs one graph."""

    async def load(self) -> bool:
        """Load the graph that the model's settings name."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            self.settings.parameters.uri,
            sess_options=options,
            providers=["CPUExecutionProvider"],
        )
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Run the graph on the one input."""
        given = payload.inputs[0]
        values = NumpyCodec.decode_input(given)
        probabilities = self._session.run([OUTPUT_NAME], {given.name: values})[0]
        output = NumpyCodec.encode_output(OUTPUT_NAME, probabilities)
        return InferenceResponse(model_name=self.name, outputs=[output])
