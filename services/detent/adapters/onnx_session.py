"""Run a pinned graph with ONNX Runtime, or say which gate keeps it from running.

The runtime is optional: without it the process starts, answers its health check and
refuses to infer. It is given the bytes that were hashed, and never a path.
"""

import functools
import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from detent.contracts.errors import ArtifactInvalid, InternalError
from detent.contracts.manifest import Manifest
from detent.contracts.reasons import Reason
from detent.core.signals.batch_shapes import BATCH_SHAPES, Part, parts_of

Floats = NDArray[np.float32]

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# An accelerator may not choose its kernels by trying them out, nor round inputs to TF32.
PROVIDER_OPTIONS: dict[str, dict[str, str]] = {
    "cpu": {},
    "cuda": {
        "use_tf32": "0",
        "cudnn_conv_algo_search": "DEFAULT",
        "do_copy_in_default_stream": "1",
    },
}
DTYPE = "tensor(float)"


class GraphContract(msgspec.Struct, frozen=True, kw_only=True):
    """States the one input and the outputs that a graph must have.

    Attributes:
        input_name: Name of the input, shape (n, width), float32.
        width: Number of values of a row.
        output_name: Name of the first output, shape (n, classes), float32.
        classes: Number of classes.
        input_shape: Shape of a row where it is a window, (rows, features); empty for
            (width,).
        further_outputs: Name and number of columns of each further output, likewise.
    """

    input_name: str
    width: int
    output_name: str
    classes: int
    input_shape: tuple[int, ...] = ()
    further_outputs: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, manifest: Manifest) -> "GraphContract":
        """Read it off a manifest."""
        return cls(
            input_name=manifest.input_name,
            width=len(manifest.input_features),
            output_name=manifest.output_name,
            classes=len(manifest.output_classes),
            input_shape=manifest.input_shape,
            further_outputs=tuple(
                (output.name, len(output.classes)) for output in manifest.further_outputs
            ),
        )

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Give the shape of one row of the input."""
        return self.input_shape or (self.width,)

    @property
    def outputs(self) -> tuple[tuple[str, int], ...]:
        """Give name and number of columns of every output that is asked for, in order."""
        return ((self.output_name, self.classes), *self.further_outputs)

    @property
    def output_names(self) -> list[str]:
        """Give the name of every output that is asked for, in order."""
        return [name for name, _ in self.outputs]


class OnnxSession(msgspec.Struct, frozen=True, kw_only=True):
    """Holds a loaded graph whose input and outputs are those it was said to have.

    Attributes:
        execution_provider: The provider that runs the graph, as the runtime names it.
        runtime: Name and version of the runtime.
        threads: Threads that one run may use.
        graph: Its input and outputs.
        session: The runtime's session.
        errors: What the runtime raises.
        batch_shapes: Rows that a run may have, ascending.
    """

    execution_provider: str
    runtime: str
    threads: int
    graph: GraphContract
    session: Any
    errors: tuple[type[Exception], ...]
    batch_shapes: tuple[int, ...] = BATCH_SHAPES[:1]

    def probabilities(self, rows: Sequence[bytes]) -> Floats:
        """Run the graph over rows of bytes and give its first output; see `outputs`."""
        return self.outputs(np.frombuffer(b"".join(rows), "<f4").reshape(len(rows), -1))[0]

    def outputs(self, inputs: Floats) -> tuple[Floats, ...]:
        """Run the graph over some rows, in runs of the sizes that may run.

        Args:
            inputs: Shape (n, width), float32, n at least 1.

        Returns:
            Per output of the contract, shape (n, columns), float32. A row's values do not
            depend on the others.

        Raises:
            InternalError: The runtime failed, or gave another shape than it declared.
        """
        parts = _parts(len(inputs), self.batch_shapes)
        if len(parts) == 1:
            return self._part(inputs, parts[0])
        runs = [self._part(inputs[part.start : part.stop], part) for part in parts]
        return tuple(np.concatenate(columns) for columns in zip(*runs, strict=True))

    def _part(self, inputs: Floats, part: Part) -> tuple[Floats, ...]:
        count = part.stop - part.start
        if count == 1 < part.shape:
            inputs = inputs.repeat(part.shape, axis=0)
        elif count < part.shape:
            padded = np.empty((part.shape, inputs.shape[1]), np.float32)
            padded[:count], padded[count:] = inputs, inputs[-1]
            inputs = padded
        outputs = self._run(inputs.reshape(part.shape, *self.graph.row_shape))
        for found, (_, columns) in zip(outputs, self.graph.outputs, strict=True):
            shape = (part.shape, columns)
            if found.shape != shape or found.dtype != np.float32:
                raise InternalError(
                    "the ONNX session gave another shape",
                    found=f"{found.shape} {found.dtype}",
                    expected=f"{shape} float32",
                )
        return tuple([found[:count] for found in outputs])

    def _run(self, inputs: Floats) -> list[Floats]:
        graph = self.graph
        try:
            if self.execution_provider == PROVIDERS["cpu"]:
                found = self.session.run(graph.output_names, {graph.input_name: inputs})
            else:
                # One copy in and one out, on the stream of the run.
                binding = self.session.io_binding()
                binding.bind_cpu_input(graph.input_name, np.ascontiguousarray(inputs))
                for name in graph.output_names:
                    binding.bind_output(name)
                self.session.run_with_iobinding(binding)
                found = binding.copy_outputs_to_cpu()
        except self.errors as error:
            raise InternalError("the ONNX session failed", error=error) from error
        return list(found)


@functools.lru_cache(maxsize=1_024)
def _parts(count: int, shapes: tuple[int, ...]) -> tuple[Part, ...]:
    """Give the runs that a batch is cut into; callers ask for few sizes, again and again."""
    return tuple(parts_of(count, shapes))


def open_session(
    model: bytes, graph: GraphContract, *, execution_provider: str, threads: int = 1
) -> OnnxSession:
    """Load a graph and check that it is what it was said to be.

    Sequential execution and, unless said otherwise, one thread: the order of additions, and
    so the last bit of a sum, must not depend on scheduling.

    Args:
        model: The bytes that were hashed.
        graph: The input and outputs that it must have.
        threads: Threads of one run; more than one is for a certificate to allow.
        execution_provider: `cpu` or `cuda`. There is no quiet step down from one to
            the other: another provider gives other bits.

    Raises:
        ArtifactInvalid: The runtime or the provider is not there, or the graph does not
            load or fit.
    """
    runtime = _import_runtime()
    if execution_provider not in PROVIDERS:
        found = f"execution provider {execution_provider!r}"
        raise _refused(found, " or ".join(PROVIDERS), Reason.ONNX_UNAVAILABLE)
    wanted = PROVIDERS[execution_provider]
    if wanted not in runtime.get_available_providers():
        found = ", ".join(runtime.get_available_providers())
        raise _refused(found, wanted, Reason.ONNX_UNAVAILABLE)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    # Errors and worse: what matters is raised, and the log is ours.
    options.log_severity_level = 3
    # The runtime would recognise a format of its own by its bytes, which nobody has audited.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    errors = _runtime_errors()
    try:
        # Without this the runtime would print, and go on with another provider by itself.
        session = runtime.InferenceSession(
            model,
            sess_options=options,
            providers=[(wanted, PROVIDER_OPTIONS[execution_provider])],
            enable_fallback=0,
        )
    except errors as error:
        raise _refused(str(error), "a graph that loads", Reason.MODEL_NOT_LOADED) from error
    provider = session.get_providers()[0]
    if provider != wanted:
        raise _refused(provider, wanted, Reason.ONNX_UNAVAILABLE)
    _check_input(session.get_inputs(), graph)
    _check_outputs(session.get_outputs(), graph)
    return OnnxSession(
        execution_provider=provider,
        runtime=f"{runtime.__name__} {runtime.__version__}",
        threads=threads,
        graph=graph,
        session=session,
        errors=errors,
    )


def _import_runtime() -> ModuleType:
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise _refused(str(error), "onnxruntime", Reason.ONNX_UNAVAILABLE) from error


def _runtime_errors() -> tuple[type[Exception], ...]:
    """List what the runtime raises: its own classes derive from `Exception` directly."""
    state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    own = [
        member
        for member in vars(state).values()
        if isinstance(member, type) and issubclass(member, Exception)
    ]
    return (*own, RuntimeError, ValueError, TypeError, MemoryError)


def _check_input(found: Sequence[Any], graph: GraphContract) -> None:
    if len(found) != 1 or not _fits(found[0], graph.input_name, graph.row_shape):
        expected = f"only {graph.input_name} {DTYPE} [any, {_dimensions(graph.row_shape)}]"
        raise _refused(f"input: {_shown(found)}", expected, Reason.MODEL_NOT_LOADED)


def _check_outputs(found: Sequence[Any], graph: GraphContract) -> None:
    """Refuse a graph that lacks an output; what else it offers is never asked for."""
    for name, columns in graph.outputs:
        if not any(_fits(tensor, name, (columns,)) for tensor in found):
            expected = f"{name} {DTYPE} [any, {columns}]"
            raise _refused(f"output: {_shown(found)}", expected, Reason.MODEL_NOT_LOADED)


def _fits(tensor: Any, name: str, row_shape: tuple[int, ...]) -> bool:
    rows, *dimensions = list(tensor.shape) or [0]
    any_count = rows is None or isinstance(rows, str)
    # A dimension that is a name or None is not a number, and so not one of ours.
    alike = any_count and tuple(dimensions) == row_shape
    return alike and bool(tensor.name == name and tensor.type == DTYPE)


def _shown(found: Sequence[Any]) -> str:
    return ", ".join(f"{tensor.name} {tensor.type} {tensor.shape}" for tensor in found)


def _dimensions(row_shape: tuple[int, ...]) -> str:
    return ", ".join(str(size) for size in row_shape)


def _refused(found: str, expected: str, gate_reason: Reason) -> ArtifactInvalid:
    return ArtifactInvalid(
        f"model.onnx: found {found}, expected {expected}",
        gate_reason=gate_reason,
        file="model.onnx",
        found=found,
        expected=expected,
    )
