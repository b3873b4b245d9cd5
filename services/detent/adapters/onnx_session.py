"""Run a pinned graph with ONNX Runtime, or say which gate keeps it from running.

The runtime is optional: without it the process starts, answers its health check and
refuses to infer. It is given the bytes that were hashed, and never a path.
"""

import dataclasses
import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detent.adapters.artifact_store import Artifact
from detent.contracts.errors import ArtifactInvalid, InternalError
from detent.contracts.manifest import Manifest
from detent.contracts.reasons import Reason
from detent.contracts.signals import DirectionSignal
from detent.core.signals.calibration import Calibrator

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# Matrix kernels sum in another order for a single row than for several, which shows in the
# last bit. Batches are padded to multiples of this, so no row is ever computed alone.
ROWS_BLOCK = 16
DTYPE = "tensor(float)"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OnnxSession:
    """Holds a loaded graph whose inputs and outputs are those of its manifest.

    Attributes:
        execution_provider: The provider that runs the graph, as the runtime names it.
        input_name: Name of the input, shape (n, features), float32.
        output_name: Name of the output, shape (n, classes), float32.
        width: Number of features.
        classes: Number of classes.
    """

    execution_provider: str
    input_name: str
    output_name: str
    width: int
    classes: int
    session: Any
    errors: tuple[type[Exception], ...]

    def probabilities(self, rows: Sequence[bytes]) -> NDArray[np.float32]:
        """Run the graph once.

        Args:
            rows: Model inputs, little-endian float32, each of `4 * width` bytes.

        Returns:
            Shape (n, classes), float32. A row's values do not depend on the others.

        Raises:
            InternalError: The runtime failed, or gave another shape than it declared.
        """
        count = len(rows)
        padding = -count % ROWS_BLOCK
        inputs = np.frombuffer(b"".join([*rows, *[rows[-1]] * padding]), dtype="<f4")
        feed = {self.input_name: inputs.reshape(count + padding, self.width)}
        try:
            outputs = self.session.run([self.output_name], feed)
        except self.errors as error:
            raise InternalError("the ONNX session failed", error=error) from error
        found: NDArray[np.float32] = outputs[0]
        if found.shape != (count + padding, self.classes) or found.dtype != np.float32:
            raise InternalError(
                "the ONNX session gave another shape",
                found=f"{found.shape} {found.dtype}",
                expected=f"{(count + padding, self.classes)} float32",
            )
        return found[:count]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """Holds a verified artifact with its session and calibrator, ready to answer.

    Attributes:
        artifact: The verified artifact.
        session: Its graph.
        calibrator: Its calibration.
    """

    artifact: Artifact
    session: OnnxSession
    calibrator: Calibrator

    def directions(self, rows: Sequence[bytes]) -> list[DirectionSignal | Reason]:
        """Infer and calibrate, one answer per row; no row depends on another.

        Args:
            rows: At least one model input, little-endian float32, of the graph's width.

        Raises:
            InternalError: The runtime failed, for all rows at once.
        """
        up = self.session.probabilities(rows)[:, -1]
        return [self.calibrator.direction(p_hat_raw) for p_hat_raw in up.tolist()]


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
            artifact.model, artifact.manifest, execution_provider=execution_provider
        ),
        calibrator=Calibrator.of(artifact.calibration),
    )
    golden = artifact.golden.rows
    try:
        batched = serving.directions([row.values for row in golden])
        alone = [serving.directions([row.values])[0] for row in golden]
    except InternalError as error:
        raise _refused(error.message, "the golden rows", Reason.CERTIFICATE_FAILED) from error
    for index, row in enumerate(golden):
        for how, found in (("in a batch", batched[index]), ("alone", alone[index])):
            if found != row.direction:
                what = f"{found} for golden row {index} {how}"
                raise _refused(what, str(row.direction), Reason.CERTIFICATE_FAILED)
    return serving


def open_session(model: bytes, manifest: Manifest, *, execution_provider: str) -> OnnxSession:
    """Load a graph and check that it is what its manifest says.

    One thread and sequential execution: the order of additions, and so the last bit of a
    sum, must not depend on scheduling.

    Args:
        model: The bytes that were hashed.
        manifest: Names of the input, its features, the output and its classes.
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
        session = runtime.InferenceSession(model, sess_options=options, providers=[wanted])
    except errors as error:
        raise _refused(str(error), "a graph that loads", Reason.MODEL_NOT_LOADED) from error
    provider = session.get_providers()[0]
    if provider != wanted:
        raise _refused(provider, wanted, Reason.ONNX_UNAVAILABLE)
    width, classes = len(manifest.input_features), len(manifest.output_classes)
    _check_tensor("input", session.get_inputs(), manifest.input_name, width)
    _check_tensor("output", session.get_outputs(), manifest.output_name, classes)
    return OnnxSession(
        execution_provider=provider,
        input_name=manifest.input_name,
        output_name=manifest.output_name,
        width=width,
        classes=classes,
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


def _check_tensor(what: str, found: Sequence[Any], name: str, width: int) -> None:
    shown = ", ".join(f"{tensor.name} {tensor.type} {tensor.shape}" for tensor in found)
    expected = f"only {name} {DTYPE} [any, {width}]"
    if len(found) != 1:
        raise _refused(f"{what}: {shown}", expected, Reason.MODEL_NOT_LOADED)
    tensor = found[0]
    match list(tensor.shape):
        case [str() | None, int(columns)]:
            fits = columns == width
        case _:
            fits = False
    if not fits or tensor.name != name or tensor.type != DTYPE:
        raise _refused(f"{what}: {shown}", expected, Reason.MODEL_NOT_LOADED)


def _refused(found: str, expected: str, gate_reason: Reason) -> ArtifactInvalid:
    return ArtifactInvalid(
        f"model.onnx: found {found}, expected {expected}",
        gate_reason=gate_reason,
        file="model.onnx",
        found=found,
        expected=expected,
    )
