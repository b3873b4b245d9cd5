"""Say how much each feature weighs in an answer: exactly where the graph's form is known.

The form comes from the examiner. It is believed where it gives what the session gives, on the
golden rows and on the baseline; otherwise, and for every other graph, each feature is left out in
turn and the session is asked again, which is no exact answer and says so.

Source: row R27; decision 0023.
"""

from collections.abc import Sequence
from enum import StrEnum

import msgspec
import numpy as np
from numpy.typing import NDArray

from detent.adapters.artifact_store import Artifact
from detent.adapters.graph_form import linked, read_form
from detent.adapters.onnx_session import Floats, OnnxSession
from detent.contracts.calls.inference import AttributionFacts
from detent.contracts.canonical import sha256_hex
from detent.contracts.errors import ArtifactInvalid
from detent.contracts.reasons import Reason
from detent.contracts.signals import TOP_FEATURES_COUNT
from detent.core.signals.attributions import occluded, top_features
from detent.core.signals.shapley import LinearScores, Scores

# Probabilities of float32 against those of float64.
TOLERANCE = 1e-4
COMPARED_ROWS_MAX = 128
# Copies of a row that the session is given at once, the row itself included.
ROWS_PER_RUN = 256


class AttributionMethod(StrEnum):
    """Names how weights are found."""

    LINEAR = "shapley_linear"
    TREES = "shapley_trees"
    OCCLUSION = "occlusion"


class Explainer(msgspec.Struct, frozen=True, kw_only=True):
    """Weighs the features of one artifact's answers.

    Attributes:
        names: Names of the features, in the order of the feature set.
        baseline: What a row is measured from, shape (width,), float32.
        scores: The graph's scores, where they can be split exactly; else None.
        session: The certified session, which is asked again where they cannot.
    """

    names: tuple[str, ...]
    baseline: Floats
    scores: Scores | None
    session: OnnxSession

    @property
    def method(self) -> AttributionMethod:
        """Name how weights are found."""
        if self.scores is None:
            return AttributionMethod.OCCLUSION
        if isinstance(self.scores, LinearScores):
            return AttributionMethod.LINEAR
        return AttributionMethod.TREES

    @property
    def facts(self) -> AttributionFacts:
        """State how weights are found, for those who read them."""
        return AttributionFacts(
            method=self.method.value,
            exact=self.scores is not None,
            baseline_hash=sha256_hex(self.baseline.astype("<f4").tobytes()),
        )

    def contributions(self, row: Floats, column: int) -> NDArray[np.float64]:
        """Give what each feature adds to the score of a class, shape (features,).

        Args:
            row: Shape (width,), float32, finite.
            column: The class.

        Raises:
            InternalError: The runtime failed.
        """
        if self.scores is not None:
            return self.scores.contributions(row, self.baseline, column)
        columns = len(self.names)
        found = np.zeros(columns)
        for first in range(0, columns, ROWS_PER_RUN - 1):
            stop = min(columns, first + ROWS_PER_RUN - 1)
            copies = occluded(row, self.baseline, columns=columns, first=first, stop=stop)
            asked = np.concatenate([row[np.newaxis], copies])
            p = self.session.outputs(asked)[0][:, column].astype(np.float64)
            found[first:stop] = p[0] - p[1:]
        return found

    def top(self, row: Floats, answered: Floats) -> tuple[tuple[str, ...], tuple[int, ...]] | None:
        """Give the three heaviest features of an answer, and their weights times 1000.

        Args:
            row: What the graph was given, shape (width,).
            answered: What its first output was, shape (classes,); what is explained is
                the class that is most probable there, the first on a tie.

        Returns:
            None where the graph gives no number without some feature.
        """
        known = np.where(np.isnan(answered), -np.inf, answered)
        return top_features(self.names, self.contributions(row, int(known.argmax())))


def explainer_of(artifact: Artifact, session: OnnxSession, form: bytes) -> Explainer | None:
    """Give what weighs an artifact's features; None where it has fewer than three.

    Args:
        artifact: The verified artifact.
        session: Its certified session.
        form: What the examiner says that its graph computes.

    Raises:
        ArtifactInvalid: The baseline of the golden set is no row of numbers.
    """
    manifest = artifact.manifest
    # A window's features are its columns, each over all of its time.
    names = artifact.pinned.feature_set.feature_names
    if not manifest.input_shape:
        names = manifest.input_features
    if len(names) < TOP_FEATURES_COUNT:
        return None
    golden = [np.frombuffer(row.values, "<f4") for row in artifact.golden.rows]
    baseline = baseline_of(artifact.golden.baseline, golden)
    read = None
    if not manifest.input_shape:
        width, classes = len(manifest.input_features), len(manifest.output_classes)
        read = read_form(form, width=width, classes=classes)
    if read is not None and not _is_true(read, session, [baseline, *golden[:COMPARED_ROWS_MAX]]):
        read = None
    scores = None if read is None else read[0]
    return Explainer(names=names, baseline=baseline, scores=scores, session=session)


def baseline_of(given: bytes | None, golden: Sequence[Floats]) -> Floats:
    """Give the row that others are measured from: the artifact's, or the mean of its golden rows.

    Raises:
        ArtifactInvalid: It is not a row of numbers.
    """
    if given is None:
        return np.asarray(np.stack(golden).mean(axis=0, dtype=np.float64), dtype=np.float32)
    baseline = np.frombuffer(given, "<f4")
    if not np.isfinite(baseline).all():
        raise ArtifactInvalid(
            "golden.json: found a baseline that is no number, expected finite numbers",
            gate_reason=Reason.MANIFEST_INVALID,
            file="golden.json",
            found="a baseline that is no number",
            expected="finite numbers",
        )
    return baseline


def _is_true(read: tuple[Scores, str], session: OnnxSession, rows: Sequence[Floats]) -> bool:
    """Say whether a form gives what the session gives."""
    scores, link = read
    served = session.outputs(np.stack(rows))[0]
    found = np.stack([linked(scores.scores(row), link) for row in rows])
    return bool(np.all(np.abs(found - served) <= TOLERANCE))
