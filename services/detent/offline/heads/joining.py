"""Join graphs that read the same input into one that gives all of their outputs."""

from collections.abc import Sequence

from onnx import ModelProto, compose

from detent.offline.walk_forward.export import INPUT_NAME, only_outputs


def joined(parts: Sequence[tuple[bytes, str, str]], *, name: str) -> bytes:
    """Join graphs.

    Args:
        parts: Each a graph, the output that is wanted of it, and what that is called then.
        name: Name of the whole graph.

    Returns:
        The graph with one input and the outputs in the order of the parts.
    """
    whole = ModelProto()
    opsets: dict[str, int] = {}
    for number, (text, output, called) in enumerate(parts):
        prefix = f"part{number}_"
        part = compose.add_prefix(ModelProto.FromString(text), prefix)
        for node in part.graph.node:
            for place, item in enumerate(node.input):
                node.input[place] = INPUT_NAME if item == prefix + INPUT_NAME else item
            for place, item in enumerate(node.output):
                node.output[place] = called if item == prefix + output else item
        if number == 0:
            whole.ir_version = part.ir_version
            whole.graph.input.extend(part.graph.input)
            whole.graph.input[0].name = INPUT_NAME
        whole.graph.node.extend(part.graph.node)
        whole.graph.initializer.extend(part.graph.initializer)
        for value in part.graph.output:
            if value.name == prefix + output:
                value.name = called
                whole.graph.output.append(value)
        for opset in part.opset_import:
            opsets[opset.domain] = max(opsets.get(opset.domain, 0), opset.version)
    whole.graph.name = name
    for domain, version in sorted(opsets.items()):
        whole.opset_import.add(domain=domain, version=version)
    return only_outputs(whole, tuple(called for _, _, called in parts))
