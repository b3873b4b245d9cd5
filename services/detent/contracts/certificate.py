"""Hold what a session proved of itself before it was allowed to answer.

Two replicas that hold the same certificate give the same bytes: same model, same provider, same
runtime, same instructions, same sizes of runs, and the same outputs where it was tried.

Source: DESIGN promise P6 and section 3; seed 003, section 12.3.
"""

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from detent.contracts.canonical import canonical_hash
from detent.contracts.checks import (
    check_count,
    check_hash16,
    check_hash64,
    check_int,
    check_name,
    check_text,
)
from detent.contracts.errors import InvalidField
from detent.contracts.json_codec import to_json
from detent.contracts.units import INT32_MAX

THREADS_MAX = 1_024
SHAPES_MAX = 16
SHAPE_ROWS_MAX = 65_536


class DeterminismCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """States on what an artifact reproduced its golden rows, and what came out bit by bit.

    Attributes:
        model_version_hash: SHA-256 of the canonical manifest.
        model_hash: First 16 hex of the SHA-256 of `model.onnx`.
        execution_provider: What ran the graph, as the runtime names it.
        device: The processor or the accelerator, as it names itself.
        instruction_set: Machine and vector extensions that kernels choose by.
        runtime: Name and version of the runtime.
        threads: Threads that one run may use.
        batch_shapes: Rows that a run may have, ascending; each gave the same bits.
        golden_row_count: Golden rows that were reproduced in integers.
        probe_row_count: Rows whose outputs were compared bit by bit, golden rows included.
        outputs_digest: SHA-256 of the raw outputs of the probes, 64 hex.
        answers_digest: SHA-256 of the integer answers to the golden rows, 64 hex.
    """

    SCHEMA: ClassVar[str] = "detent.certificate.v1"

    model_version_hash: str
    model_hash: str
    execution_provider: str
    device: str
    instruction_set: str
    runtime: str
    threads: int
    batch_shapes: tuple[int, ...]
    golden_row_count: int
    probe_row_count: int
    outputs_digest: str
    answers_digest: str

    def __post_init__(self) -> None:
        """Refuse a certificate that leaves open what it is for."""
        check_hash64("model_version_hash", self.model_version_hash)
        check_hash16("model_hash", self.model_hash)
        check_name("execution_provider", self.execution_provider)
        check_text("device", self.device)
        check_text("instruction_set", self.instruction_set)
        check_text("runtime", self.runtime)
        check_int("threads", self.threads, 1, THREADS_MAX)
        check_shapes("batch_shapes", self.batch_shapes)
        check_int("golden_row_count", self.golden_row_count, 1, INT32_MAX)
        check_int("probe_row_count", self.probe_row_count, self.golden_row_count, INT32_MAX)
        check_hash64("outputs_digest", self.outputs_digest)
        check_hash64("answers_digest", self.answers_digest)

    @property
    def certificate_hash(self) -> str:
        """Hash the certificate, in canonical form, to 64 hex."""
        return canonical_hash(self.SCHEMA, to_json(self))


def check_shapes(field: str, shapes: Sequence[int]) -> None:
    """Refuse shapes that are none, too many, or not in ascending order.

    Raises:
        InvalidField: What is wrong.
    """
    check_count(field, shapes, 1, SHAPES_MAX)
    for shape in shapes:
        check_int(field, shape, 1, SHAPE_ROWS_MAX)
    if list(shapes) != sorted(set(shapes)):
        raise InvalidField(field, shapes, "ascending, each once")
