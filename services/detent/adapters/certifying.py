"""Let a session prove, where it will serve, that it gives the same answers however it is asked.

The golden rows must give the integers of the build. Around them lie more rows, drawn from a
fixed seed, whose raw outputs must be the same bits from a second session, at every place of a
run, in every size of run, and with one thread as with several.
"""

import hashlib
import time
from collections.abc import Callable

import numpy as np
from msgspec import structs

from detent.adapters.artifact_store import Artifact
from detent.adapters.device import device_of
from detent.adapters.onnx_session import Floats, OnnxSession
from detent.contracts.canonical import JsonValue, canonical_hash
from detent.contracts.certificate import DeterminismCertificate
from detent.contracts.errors import ArtifactInvalid, InternalError
from detent.contracts.json_codec import to_json
from detent.contracts.reasons import Reason
from detent.core.signals.batch_shapes import BATCH_SHAPES
from detent.core.signals.heads import HeadMap

PROBE_ROWS = BATCH_SHAPES[-1]
PROBE_SEED = 20_260_101
# How far the drawn rows lie from the golden ones, as a share of each value.
PROBE_SPREAD = 0.25
# A row that is moved by this changes its place in every size of run.
SHIFT = 5
TIMED_RUNS = 5
ANSWERS_SCHEMA = "detent.certificate_answers.v1"

Certified = tuple[OnnxSession, DeterminismCertificate, dict[int, float]]


def certify(
    artifact: Artifact,
    head: HeadMap,
    opened: Callable[[int], OnnxSession],
    *,
    execution_provider: str,
    threads: int,
) -> Certified:
    """Give a session with the sizes of run that are safe, its certificate, and its speed.

    Args:
        artifact: The verified artifact.
        head: The map of its head.
        opened: Opens a session of its graph with so many threads.
        execution_provider: `cpu` or `cuda`.
        threads: Threads of one run.

    Raises:
        ArtifactInvalid: The golden rows give other integers, or the same rows other bits.
    """
    session = opened(threads)
    probes = probe_rows(artifact)
    try:
        session, outputs = _settled(session, probes)
        _check_same(outputs, _outputs(_like(opened(threads), session), probes), "loaded again")
        if threads > 1:
            single = _outputs(_like(opened(1), session), probes)
            _check_same(outputs, single, f"with 1 thread instead of {threads}")
        answers_digest = _check_golden(artifact, head, session)
        run_s = {shape: _timed(session, probes, shape) for shape in session.batch_shapes}
    except InternalError as error:
        raise _failed(error.message, "outputs for the golden rows") from error
    device = device_of(execution_provider)
    certificate = DeterminismCertificate(
        model_version_hash=artifact.manifest.model_version_hash,
        model_hash=artifact.manifest.model_hash,
        execution_provider=session.execution_provider,
        device=device.name,
        instruction_set=device.instruction_set,
        runtime=session.runtime,
        threads=threads,
        batch_shapes=session.batch_shapes,
        golden_row_count=len(artifact.golden.rows),
        probe_row_count=len(probes),
        outputs_digest=hashlib.sha256(outputs).hexdigest(),
        answers_digest=answers_digest,
    )
    return session, certificate, run_s


def probe_rows(artifact: Artifact) -> Floats:
    """Give the golden rows and rows around them, shape (`PROBE_ROWS`, width) or more."""
    golden = np.frombuffer(b"".join(row.values for row in artifact.golden.rows), "<f4")
    golden = golden.reshape(len(artifact.golden.rows), -1)
    drawn = max(0, PROBE_ROWS - len(golden))
    chance = np.random.default_rng(PROBE_SEED)
    base = golden[np.arange(drawn) % len(golden)]
    factors = chance.normal(1.0, PROBE_SPREAD, base.shape).astype(np.float32)
    return np.concatenate([golden, base * factors])


def _settled(session: OnnxSession, probes: Floats) -> tuple[OnnxSession, bytes]:
    """Find the sizes of run that give the same bits, and those bits.

    A graph for which the place in a run matters is run row by row.
    """
    smallest = BATCH_SHAPES[0]
    outputs = _of_shape(session, probes, smallest)
    if outputs is None:
        single = structs.replace(session, batch_shapes=(1,))
        return single, _outputs(single, probes)
    larger = [shape for shape in BATCH_SHAPES[1:] if _of_shape(session, probes, shape) == outputs]
    return structs.replace(session, batch_shapes=(smallest, *larger)), outputs


def _of_shape(session: OnnxSession, probes: Floats, shape: int) -> bytes | None:
    """Give the outputs of one size of run; None where a row's depend on its place."""
    sized = structs.replace(session, batch_shapes=(shape,))
    outputs = _outputs(sized, probes)
    moved = sized.outputs(np.roll(probes, SHIFT, axis=0))
    back = b"".join(np.roll(found, -SHIFT, axis=0).tobytes() for found in moved)
    return outputs if back == outputs else None


def _like(session: OnnxSession, settled: OnnxSession) -> OnnxSession:
    return structs.replace(session, batch_shapes=settled.batch_shapes)


def _outputs(session: OnnxSession, probes: Floats) -> bytes:
    return b"".join(found.tobytes() for found in session.outputs(probes))


def _check_same(outputs: bytes, other: bytes, how: str) -> None:
    if other != outputs:
        digest = hashlib.sha256(other).hexdigest()
        raise _failed(
            f"outputs {digest} {how}", f"the same bits {hashlib.sha256(outputs).hexdigest()}"
        )


def _check_golden(artifact: Artifact, head: HeadMap, session: OnnxSession) -> str:
    """Refuse golden rows that give other integers than at the build; give their digest."""
    golden = artifact.golden.rows
    rows = [np.frombuffer(row.values, "<f4") for row in golden]
    batched = session.outputs(np.stack(rows))
    answers: list[JsonValue] = []
    for index, (row, values) in enumerate(zip(golden, rows, strict=True)):
        alone = session.outputs(values[np.newaxis])
        for how, outputs, place in (("in a batch", batched, index), ("alone", alone, 0)):
            found = head.answer([output[place].tolist() for output in outputs])
            if found != row.answer:
                raise _failed(f"{found} for golden row {index} {how}", str(row.answer))
        answers.append(to_json(row.answer))
    return canonical_hash(ANSWERS_SCHEMA, {"answers": answers})


def _timed(session: OnnxSession, probes: Floats, shape: int) -> float:
    """Give the seconds of the fastest of a few runs of one size."""
    sized = structs.replace(session, batch_shapes=(shape,))
    times_s = []
    for _ in range(TIMED_RUNS):
        started_s = time.perf_counter()
        sized.outputs(probes[:shape])
        times_s.append(time.perf_counter() - started_s)
    return min(times_s)


def _failed(found: str, expected: str) -> ArtifactInvalid:
    return ArtifactInvalid(
        f"model.onnx: found {found}, expected {expected}",
        gate_reason=Reason.CERTIFICATE_FAILED,
        file="model.onnx",
        found=found,
        expected=expected,
    )
