"""Write a small temporal convolution over windows of 64 rows of 12 features, with drawn weights.

What it answers means nothing; what it costs is what a trained one of its size costs.
"""

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from benchmarks.inference.graph import INPUT_NAME, OUTPUT_NAME, SEED

WINDOW_ROWS, FEATURES, CHANNELS, KERNEL = 64, 12, 32, 3
DILATIONS = (1, 2, 4)
CLASSES = 2


def convolution_model() -> bytes:
    """Give the graph: dilated convolutions over time, their mean, a linear layer, a softmax."""
    chance = np.random.default_rng(SEED)
    weights, nodes = [], [helper.make_node("Transpose", [INPUT_NAME], ["h0"], perm=[0, 2, 1])]

    def weight(name: str, *shape: int) -> str:
        drawn: NDArray[np.float32] = chance.normal(0.0, 0.2, shape).astype(np.float32)
        weights.append(numpy_helper.from_array(drawn, name))
        return name

    width = FEATURES
    for layer, dilation in enumerate(DILATIONS):
        inputs = [f"h{layer}", weight(f"w{layer}", CHANNELS, width, KERNEL)]
        reach = dilation * (KERNEL - 1)
        nodes += [
            helper.make_node("Conv", inputs, [f"c{layer}"], dilations=[dilation], pads=[reach, 0]),
            helper.make_node("Relu", [f"c{layer}"], [f"h{layer + 1}"]),
        ]
        width = CHANNELS
    nodes += [
        helper.make_node("ReduceMean", [f"h{len(DILATIONS)}"], ["mean"], axes=[2], keepdims=0),
        helper.make_node(
            "Gemm", ["mean", weight("out", CHANNELS, CLASSES), weight("bias", CLASSES)], ["score"]
        ),
        helper.make_node("Softmax", ["score"], [OUTPUT_NAME], axis=1),
    ]
    rows = ["n", WINDOW_ROWS, FEATURES]
    graph = helper.make_graph(
        nodes,
        "bench",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, rows)],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, ["n", CLASSES])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString(deterministic=True))
