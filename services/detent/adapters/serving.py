"""Hold an artifact that has proved itself, ready to answer."""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from detent.adapters.artifact_store import Artifact
from detent.adapters.certifying import certify
from detent.adapters.explaining import Explainer, explainer_of
from detent.adapters.graph_gate import examined
from detent.adapters.onnx_session import Floats, GraphContract, OnnxSession, open_session
from detent.contracts.certificate import DeterminismCertificate
from detent.contracts.reasons import Reason
from detent.contracts.signals import DirectionSignal, HeadSignal
from detent.core.signals.columns import Integers, columns_of
from detent.core.signals.heads import HeadMap, head_map

# Fewer rows are mapped one by one: what an array costs, it costs however short it is.
ARRAY_ROWS_MIN = 4


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """Holds a verified artifact with its session and the map of its head.

    Attributes:
        artifact: The verified artifact.
        session: Its graph, which runs only in the sizes that the certificate names.
        head: Its calibration and output contract.
        certificate: What the session proved.
        run_s: What a run of each size took when nothing else was asked, seconds.
        explainer: What weighs the features of an answer; None where there are too few.
    """

    artifact: Artifact
    session: OnnxSession
    head: HeadMap
    certificate: DeterminismCertificate
    run_s: Mapping[int, float]
    explainer: Explainer | None = None

    @property
    def width(self) -> int:
        """Count the values of one row."""
        return len(self.artifact.manifest.input_features)

    def answers(self, rows: Sequence[bytes]) -> list[HeadSignal | Reason]:
        """Infer and calibrate, one answer per row; no row depends on another.

        Args:
            rows: At least one model input, little-endian float32, of the graph's width.

        Raises:
            InternalError: The runtime failed, for all rows at once.
        """
        inputs = np.frombuffer(b"".join(rows), "<f4").reshape(len(rows), self.width)
        return self.answers_of(self.session.outputs(inputs))

    def columns_of(self, outputs: Sequence[Floats]) -> Mapping[str, Integers] | None:
        """Give the answers of all rows as columns, where that can be done; see `columns`."""
        return None if len(outputs[0]) < ARRAY_ROWS_MIN else columns_of(self.head, outputs)

    def answers_of(self, outputs: Sequence[Floats]) -> list[HeadSignal | Reason]:
        """Give the signal of each row that the graph was run over, or why it has none."""
        columns = self.columns_of(outputs)
        return self.row_answers_of(outputs) if columns is None else direction_signals(columns)

    def row_answers_of(self, outputs: Sequence[Floats]) -> list[HeadSignal | Reason]:
        """Give the same, each row by itself."""
        rows = zip(*(output.tolist() for output in outputs), strict=True)
        return [self.head.answer(row) for row in rows]


def direction_signals(columns: Mapping[str, Integers]) -> list[HeadSignal | Reason]:
    """Give the signals that columns hold; directions are the ones that are mapped so."""
    pairs = zip(*[column.tolist() for column in columns.values()], strict=True)
    return [
        DirectionSignal(p_hat_raw_bps=p_hat_raw_bps, p_hat_bps=p_hat_bps)
        for p_hat_raw_bps, p_hat_bps in pairs
    ]


def open_serving(
    artifact: Artifact, *, execution_provider: str = "cpu", threads: int = 1
) -> Serving:
    """Load a verified artifact and let it prove itself.

    Args:
        artifact: What `read_artifact` gave; its model is not read again.
        execution_provider: `cpu` or `cuda`.
        threads: Threads of one run.

    Raises:
        ArtifactInvalid: The graph cannot run here, does not give the integers that it gave
            when the artifact was built, or does not give the same bits twice.
    """
    head = head_map(artifact.manifest, artifact.calibration)
    graph = GraphContract.of(artifact.manifest)
    # Another process looks first: this one shows the runtime nothing that could hurt it.
    found = examined(
        artifact.model,
        input_name=graph.input_name,
        output_name=graph.output_name,
        row_shape=graph.row_shape,
        rows=[row.values for row in artifact.golden.rows],
    )

    def opened(threads: int) -> OnnxSession:
        return open_session(
            artifact.model, graph, execution_provider=execution_provider, threads=threads
        )

    session, certificate, run_s = certify(
        artifact, head, opened, execution_provider=execution_provider, threads=threads
    )
    return Serving(
        artifact=artifact,
        session=session,
        head=head,
        certificate=certificate,
        run_s=run_s,
        explainer=explainer_of(artifact, session, found.form),
    )
