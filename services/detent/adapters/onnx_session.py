"""Run a pinned graph with ONNX Runtime, or say which gate keeps it from running.

The runtime is optional: without it the process starts, answers its health check and
refuses to infer. It is given the bytes that were hashed, and never a path.
"""

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from detent.adapters.artifact_store import Artifact
from detent.contracts.errors import ArtifactInvalid, InternalError
from detent.contracts.manifest import Manifest
from detent.contracts.reasons import Reason
from detent.contracts.signals import HeadSignal
from detent.core.signals.heads import HeadMap, head_map

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# Matrix kernels sum in another order for a single row than for several, which shows in the
# last bit. Batches are padded to multiples of this, so no row is ever computed alone.
ROWS_BLOCK = 16
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


class OnnxSession(msgspec.Struct, frozen=True, kw_only=True):
    """Holds a loaded graph whose input and output are those it was said to have.

    Attributes:
        execution_provider: The provider that runs the graph, as the runtime names it.
        graph: Its input and output.
        session: The runtime's session.
        errors: What the runtime raises.
    """

    execution_provider: str
    graph: GraphContract
    session: Any
    errors: tuple[type[Exception], ...]

    def probabilities(self, rows: Sequence[bytes]) -> NDArray[np.float32]:
        """Run the graph once and give its first output; see `outputs`."""
        return self.outputs(rows)[0]

    def outputs(self, rows: Sequence[bytes]) -> tuple[NDArray[np.float32], ...]:
        """Run the graph once.

        Args:
            rows: Model inputs, little-endian float32, each of 4 bytes per value.

        Returns:
            Per output of the contract, shape (n, columns), float32. A row's values do not
            depend on the others.

        Raises:
            InternalError: The runtime failed, or gave another shape than it declared.
        """
        count, graph = len(rows), self.graph
        padding = -count % ROWS_BLOCK
        inputs = np.frombuffer(b"".join([*rows, *[rows[-1]] * padding]), dtype="<f4")
        names = [name for name, _ in graph.outputs]
        try:
            outputs = self.session.run(
                names, {graph.input_name: inputs.reshape(-1, *graph.row_shape)}
            )
        except self.errors as error:
            raise InternalError("the ONNX session failed", error=error) from error
        for found, (_, columns) in zip(outputs, graph.outputs, strict=True):
            shape = (count + padding, columns)
            if found.shape != shape or found.dtype != np.float32:
                raise InternalError(
                    "the ONNX session gave another shape",
                    found=f"{found.shape} {found.dtype}",
                    expected=f"{shape} float32",
                )
        return tuple(found[:count] for found in outputs)


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """Holds a verified artifact with its session and the map of its head, ready to answer.

    Attributes:
        artifact: The verified artifact.
        session: Its graph.
        head: Its calibration and output contract.
    """

    artifact: Artifact
    session: OnnxSession
    head: HeadMap

    def answers(self, rows: Sequence[bytes]) -> list[HeadSignal | Reason]:
        """Infer and calibrate, one answer per row; no row depends on another.

        Args:
            rows: At least one model input, little-endian float32, of the graph's width.

        Raises:
            InternalError: The runtime failed, for all rows at once.
        """
        outputs = [found.tolist() for found in self.session.outputs(rows)]
        return [self.head.answer(row) for row in zip(*outputs, strict=True)]


def open_serving(artifact: Artifact, *, execution_provider: str = "cpu") -> Serving:
    """Load a verified artifact and let it prove itself on its golden rows.

    Args:
        artifact: What `read_artifact` gave; its model is not read again.
        execution_provider: `cpu` or `cuda`.

    Raises:
        ArtifactInvalid: The graph cannot run here, or does not give the integers that it
            gave when the artifact was built.
    """
    serving = Serving(
        artifact=artifact,
        session=open_session(
            artifact.model,
            GraphContract.of(artifact.manifest),
            execution_provider=execution_provider,
        ),
        head=head_map(artifact.manifest, artifact.calibration),
    )
    golden = artifact.golden.rows
    try:
        batched = serving.answers([row.values for row in golden])
        alone = [serving.answers([row.values])[0] for row in golden]
    except InternalError as error:
        raise _refused(error.message, "the golden rows", Reason.CERTIFICATE_FAILED) from error
    for index, row in enumerate(golden):
        for how, found in (("in a batch", batched[index]), ("alone", alone[index])):
            if found != row.answer:
                what = f"{found} for golden row {index} {how}"
                raise _refused(what, str(row.answer), Reason.CERTIFICATE_FAILED)
    return serving


def open_session(model: bytes, graph: GraphContract, *, execution_provider: str) -> OnnxSession:
    """Load a graph and check that it is what it was said to be.

    One thread and sequential execution: the order of additions, and so the last bit of a
    sum, must not depend on scheduling.

    Args:
        model: The bytes that were hashed.
        graph: The input and output that it must have.
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
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    # Errors and worse: what matters is raised, and the log is ours.
    options.log_severity_level = 3
    errors = _runtime_errors()
    try:
        # Without this the runtime would print, and go on with another provider by itself.
        session = runtime.InferenceSession(
            model, sess_options=options, providers=[wanted], enable_fallback=0
        )
    except errors as error:
        raise _refused(str(error), "a graph that loads", Reason.MODEL_NOT_LOADED) from error
    provider = session.get_providers()[0]
    if provider != wanted:
        raise _refused(provider, wanted, Reason.ONNX_UNAVAILABLE)
    _check_input(session.get_inputs(), graph)
    _check_outputs(session.get_outputs(), graph)
    return OnnxSession(execution_provider=provider, graph=graph, session=session, errors=errors)


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
