"""Ask an artifact the same twice, in two processes, and compare what comes out bit by bit.

The first run asks row by row, the second all rows at once: what a row's company, a restart or a
leftover of the first run could change, it changes here.

Source: seed 003, section 12.3.3; rows R46, R49 and R152.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from detent.adapters.artifact_store import read_artifact
from detent.contracts.calls.feature import ModelInput
from detent.contracts.canonical import JsonValue, canonical_hash, sha256_hex
from detent.contracts.errors import ArtifactInvalid, DataInvalid
from detent.contracts.json_codec import to_json
from detent.contracts.reasons import Reason
from detent.core.features.offline_rows import iter_model_inputs
from detent.offline.commands import load_table, verify_artifact

OUTPUT_SCHEMA = "detent.determinism_output.v1"
RUNS = ("row by row", "all at once")


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Says what two runs gave.

    Attributes:
        row_count: Rows that were asked.
        input_hash: SHA-256 of all inputs, 64 hex.
        output_hashes: SHA-256 of all integer answers, per run; empty text where a run failed.
        failures: What failed, per run; empty text where nothing did.
        certificate_hash: What the session proved; empty text where it proved nothing.
    """

    row_count: int
    input_hash: str
    output_hashes: tuple[str, ...]
    failures: tuple[str, ...]
    certificate_hash: str

    @property
    def passes(self) -> bool:
        """Say whether every run answered, and all alike."""
        return not any(self.failures) and len(set(self.output_hashes)) == 1


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """Tells a run what to do."""

    artifact: str
    execution_provider: str
    rows_at_once: int
    rows: tuple[bytes, ...]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Tells what a run gave."""

    output_hash: str = ""
    certificate_hash: str = ""
    failure: str = ""


def verify_determinism(
    path: Path, *, fixture: Path | None = None, execution_provider: str = "cpu"
) -> Verdict:
    """Run an artifact twice over the same rows, each time in a process of its own.

    Args:
        path: The artifact's directory.
        fixture: Bars whose model inputs are asked; without it the golden rows are.
        execution_provider: `cpu` or `cuda`.

    Raises:
        ArtifactInvalid: The artifact is not what it says.
        DataInvalid: The bars cannot be read, or give no input.
    """
    artifact = read_artifact(path)
    rows = [row.values for row in artifact.golden.rows]
    if fixture is not None:
        table = load_table(fixture)
        rows = [
            outcome.values
            for _, bars in sorted(table.bars.items())
            for outcome in iter_model_inputs(artifact.pinned.feature_set, bars)
            if isinstance(outcome, ModelInput)
        ]
    if not rows:
        raise DataInvalid(f"{fixture}: found no model input, expected at least one")
    outcomes = [
        _run(
            Task(
                artifact=str(path.absolute()),
                execution_provider=execution_provider,
                rows_at_once=size,
                rows=tuple(rows),
            )
        )
        for size in (1, len(rows))
    ]
    return Verdict(
        row_count=len(rows),
        input_hash=sha256_hex(b"".join(rows)),
        output_hashes=tuple(outcome.output_hash for outcome in outcomes),
        failures=tuple(outcome.failure for outcome in outcomes),
        certificate_hash=outcomes[0].certificate_hash,
    )


def outcome_of(task: Task) -> Outcome:
    """Do one run in this process."""
    try:
        serving = verify_artifact(Path(task.artifact), execution_provider=task.execution_provider)
    except ArtifactInvalid as error:
        if error.gate_reason is not Reason.CERTIFICATE_FAILED:
            raise
        return Outcome(failure=error.message)
    answers: list[JsonValue] = [
        answer.value if isinstance(answer, Reason) else to_json(answer)
        for start in range(0, len(task.rows), task.rows_at_once)
        for answer in serving.answers(task.rows[start : start + task.rows_at_once])
    ]
    return Outcome(
        output_hash=canonical_hash(OUTPUT_SCHEMA, {"answers": answers}),
        certificate_hash=serving.certificate.certificate_hash,
    )


def _run(task: Task) -> Outcome:
    words: Sequence[str] = (sys.executable, "-m", "detent.offline.determinism")
    done = subprocess.run(  # noqa: S603 - our own words
        words, input=msgspec.msgpack.encode(task), check=True, capture_output=True
    )
    return msgspec.msgpack.decode(done.stdout, type=Outcome)


if __name__ == "__main__":
    given = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Task)
    sys.stdout.buffer.write(msgspec.msgpack.encode(outcome_of(given)))
