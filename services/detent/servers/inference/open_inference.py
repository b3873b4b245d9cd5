"""Answer the Open Inference Protocol, for clients that speak it, under our own binding.

Beside `InferenceService`, on the same port and through the same session. What differs from other
servers of the protocol: `ModelInfer` names its binding, outputs are integers, and nothing can be
loaded or unloaded over the wire (ADR 0022).
"""

import logging
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Protocol

from google.protobuf.descriptor import ServiceDescriptor

from detent.adapters.serving import Serving
from detent.api.inference import grpc_service_pb2 as pb
from detent.contracts import events
from detent.contracts.errors import (
    ArtifactInvalid,
    DeadlineExceeded,
    DetentError,
    InternalError,
    InvalidField,
    ModelNotReady,
    Overloaded,
)
from detent.contracts.manifest import Manifest
from detent.contracts.reasons import Reason
from detent.contracts.signals import HeadSignal
from detent.rpc.call import Call
from detent.rpc.call_lines import say
from detent.rpc.serve import Service
from detent.rpc.tracing import annotate
from detent.servers.inference.answered import Answered
from detent.servers.inference.handler import provenance
from detent.servers.inference.run_queue import Floats, Ran
from detent.servers.inference.tensors import (
    OutputTensor,
    columns_of,
    describe_tensors,
    name_outputs,
    read_rows,
    wanted_outputs,
    write_elements,
)

NAME = "GRPCInferenceService"
DESCRIPTOR: ServiceDescriptor = pb.DESCRIPTOR.services_by_name[NAME]
SERVER_NAME = "detent"
PLATFORM = "onnxruntime_onnx"
BINDING = "binding_hash"
EXTENSIONS = (BINDING,)
ID_CHARS_MAX = 256
# Callers ask for few numbers of rows, again and again.
FORMS_MAX = 256
# What a row's reason means for the call; any other is the model's or the runtime's failure.
_ERRORS: dict[Reason, type[DetentError]] = {
    Reason.INFERENCE_DEADLINE: DeadlineExceeded,
    Reason.INFERENCE_OVERLOADED: Overloaded,
}

log = logging.getLogger(__name__)


class Signals(Protocol):
    """Is the part of the inference handler that this protocol needs."""

    @property
    def serving(self) -> Serving | ArtifactInvalid:
        """Give the artifact that is served, or why there is none."""

    def bound(self, binding_hash: str) -> Serving:
        """Give the artifact that a binding names, or refuse."""

    async def run(self, inputs: Floats, call: Call) -> Ran:
        """Run the graph over rows that are whole and finite."""

    async def answers_of(self, serving: Serving, ran: Ran, *, count: int) -> Answered:
        """Map what a run gave to signals and reasons."""


class OpenInferenceHandler:
    """Translates between the protocol's tensors and the one artifact that is served."""

    def __init__(self, signals: Signals, *, server_version: str) -> None:
        """Take what answers rows, and the version that the server states."""
        self._signals = signals
        self._server_version = server_version
        self._formed: Serving | None = None
        self._forms: dict[tuple[int | str, ...], bytes] = {}

    async def server_live(self, query: pb.ServerLiveRequest, call: Call) -> pb.ServerLiveResponse:
        """Say that the process is up: it answers."""
        return pb.ServerLiveResponse(live=True)

    async def server_ready(
        self, query: pb.ServerReadyRequest, call: Call
    ) -> pb.ServerReadyResponse:
        """Say whether a verified artifact is served."""
        return pb.ServerReadyResponse(ready=not isinstance(self._signals.serving, ArtifactInvalid))

    async def model_ready(self, query: pb.ModelReadyRequest, call: Call) -> pb.ModelReadyResponse:
        """Say whether this model, at this version, is the one that is served."""
        serving = self._signals.serving
        ready = not isinstance(serving, ArtifactInvalid) and _names(
            serving.artifact.manifest, query.name, query.version
        )
        return pb.ModelReadyResponse(ready=ready)

    async def server_metadata(
        self, query: pb.ServerMetadataRequest, call: Call
    ) -> pb.ServerMetadataResponse:
        """Describe the server."""
        return pb.ServerMetadataResponse(
            name=SERVER_NAME, version=self._server_version, extensions=EXTENSIONS
        )

    async def model_metadata(
        self, query: pb.ModelMetadataRequest, call: Call
    ) -> pb.ModelMetadataResponse:
        """Describe the model's tensors, and what it is pinned to.

        Raises:
            InvalidField: Another model or version is served.
            ModelNotReady: No artifact is served.
        """
        serving = self._signals.serving
        if isinstance(serving, ArtifactInvalid):
            raise ModelNotReady("no artifact is served", gate_reason=serving.gate_reason)
        manifest = serving.artifact.manifest
        _check_name(manifest, "name", query.name, "version", query.version)
        response = pb.ModelMetadataResponse(
            name=manifest.model_name, versions=(manifest.model_version,), platform=PLATFORM
        )
        describe_tensors(response, manifest)
        _write_pins(response, serving)
        response.parameters["head"].string_param = manifest.head
        response.parameters["answers"].string_param = "integers; no float leaves the service"
        return response

    async def model_infer(self, query: pb.ModelInferRequest, call: Call) -> pb.ModelInferResponse:
        """Infer and calibrate every row, or refuse the call.

        The protocol has no refusal of a single row, and a number that stands for one would
        sooner or later be traded on. So one bad row refuses the call, and is named.

        Raises:
            BindingMismatch: The binding is missing or not the one served.
            ModelNotReady: No artifact is served.
            InvalidField: The request does not fit the model, or a row holds no number.
            DeadlineExceeded: The answer would come too late.
            Overloaded: Too many calls wait for the session.
            InternalError: The model or the runtime failed for some row.
        """
        serving = self._signals.bound(_binding_of(query))
        manifest = serving.artifact.manifest
        _check_name(manifest, "model_name", query.model_name, "model_version", query.model_version)
        _check_parameters(query)
        annotate(call.trace, provenance(manifest))
        outputs = wanted_outputs(query, manifest)
        rows = read_rows(query, manifest)
        # There is no symbol and no instant here, so no features hash: the log says for which
        # bytes the answer was, before it is known whether there is one.
        inputs_sha256 = sha256(rows.tobytes()).hexdigest()
        ran = await self._signals.run(rows, call)
        columns = None if isinstance(ran.outputs, Reason) else ran.columns
        answers: Sequence[HeadSignal | Reason] = ()
        if columns is None:
            answers = (await self._signals.answers_of(serving, ran, count=len(rows))).answers
        _log_run(serving, query.id, inputs_sha256, ran, answers, row_count=len(rows))
        signals = [answer for answer in answers if not isinstance(answer, Reason)]
        if len(signals) != len(answers):
            raise _refused(answers)
        response = pb.ModelInferResponse.FromString(self._form(serving, outputs, count=len(rows)))
        if query.id:
            response.id = query.id
        given = columns or columns_of(outputs, signals)
        write_elements(response, outputs, given, raw=bool(query.raw_input_contents))
        return response

    def _form(self, serving: Serving, outputs: Sequence[OutputTensor], *, count: int) -> bytes:
        """Give what all answers of one form have in common, as the wire carries it."""
        if self._formed is not serving or len(self._forms) >= FORMS_MAX:
            self._formed, self._forms = serving, {}
        key: tuple[int | str, ...] = (count, *[output.name for output in outputs])
        form = self._forms.get(key)
        if form is None:
            manifest = serving.artifact.manifest
            response = pb.ModelInferResponse(
                model_name=manifest.model_name, model_version=manifest.model_version
            )
            _write_pins(response, serving)
            name_outputs(response, outputs, count=count)
            form = self._forms[key] = response.SerializeToString()
        return form


def service_of(signals: Signals, *, server_version: str) -> Service:
    """Give the protocol's service, to be served beside our own."""
    handler = OpenInferenceHandler(signals, server_version=server_version)
    return Service(name=NAME, handler=handler, foreign=DESCRIPTOR)


def _binding_of(query: pb.ModelInferRequest) -> str:
    """Read the binding; an entry that is missing or no text is no binding at all."""
    entry = query.parameters.get(BINDING)
    return "" if entry is None else entry.string_param


def _check_parameters(query: pb.ModelInferRequest) -> None:
    """Refuse what would change how others serve the call, and would change nothing here."""
    if len(query.parameters) > 1:
        unknown = sorted(set(query.parameters) - {BINDING})
        expected = f"{BINDING} alone; a deadline is the call's own"
        raise InvalidField("parameters", ", ".join(unknown), expected)
    if len(query.id) > ID_CHARS_MAX:
        raise InvalidField("id", f"{len(query.id)} characters", f"at most {ID_CHARS_MAX}")


def _names(manifest: Manifest, name: str, version: str) -> bool:
    known = version in ("", manifest.model_version) or version == manifest.model_version_hash
    return known and name == manifest.model_name


def _check_name(
    manifest: Manifest, name_field: str, name: str, version_field: str, version: str
) -> None:
    if _names(manifest, name, version):
        return
    if name != manifest.model_name:
        raise InvalidField(name_field, name, manifest.model_name)
    expected = f"{manifest.model_version}, {manifest.model_version_hash}, or none"
    raise InvalidField(version_field, version, expected)


def _write_pins(response: Any, serving: Serving) -> None:
    """Say in an answer which bytes it is from."""
    manifest = serving.artifact.manifest
    pins = {
        BINDING: serving.artifact.pinned.binding_hash,
        "model_version_hash": serving.artifact.pinned.binding.model_version_hash,
        "calibration_version": manifest.calibration_version,
        "feature_version": manifest.feature_version,
    }
    for name, value in pins.items():
        response.parameters[name].string_param = value


def _refused(answers: Sequence[HeadSignal | Reason]) -> DetentError:
    """Give the error of a call of which some row got a reason: the first such row's."""
    reasons = {index: answer for index, answer in enumerate(answers) if isinstance(answer, Reason)}
    row, reason = next(iter(reasons.items()))
    message = f"row {row}: {reason}; the whole call is refused"
    kind = _ERRORS.get(reason, InternalError)
    return kind(message, row=row, reason=reason, refused_count=len(reasons))


def _log_run(
    serving: Serving,
    request_id: str,
    inputs_sha256: str,
    ran: Ran,
    answers: Sequence[HeadSignal | Reason],
    *,
    row_count: int,
) -> None:
    pinned = serving.artifact.pinned
    refusals = [answer for answer in answers if isinstance(answer, Reason)] if answers else ()
    facts = {
        "binding_hash": pinned.binding_hash,
        "model_id": pinned.manifest.model_id,
        "model_hash": pinned.manifest.model_hash,
        "row_count": row_count,
        "refused_count": len(refusals),
        "refusals": sorted(set(refusals)) if refusals else (),
        "inputs_sha256": inputs_sha256,
        "request_id": request_id,
        "latency_us": ran.latency_us,
    }
    if refusals:
        log.error(events.ML_INFER_ERROR, exc_info=ran.error, extra=facts)
    else:
        say(log, events.ML_INFER_OK, facts)
