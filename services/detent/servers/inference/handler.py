"""Answer `InferenceService`: the pinned artifact's signal per row, or the row's reason.

Before it stands `core/features`, whose hash it checks again; after it `core/signals`.
"""

import asyncio
import functools
from collections.abc import Callable, Sequence
from itertools import repeat

import numpy as np
from msgspec import structs

from detent.adapters.serving import Serving, direction_signals
from detent.contracts.binding import Head, ModelBinding
from detent.contracts.calls.inference import (
    DescribeArtifactRequest,
    DescribeArtifactResponse,
    InferenceRow,
    InferSignalsRequest,
    InferSignalsResponse,
    SignalRow,
)
from detent.contracts.checks import is_hash64
from detent.contracts.errors import (
    ArtifactInvalid,
    BindingMismatch,
    ModelNotReady,
    SignalFailed,
)
from detent.contracts.manifest import Manifest, manifest_bytes
from detent.contracts.reasons import Reason
from detent.contracts.signals import HeadSignal, MlSignalSnapshot, by_head
from detent.core.features.model_input import features_hash
from detent.core.signals.batch_shapes import cost_s
from detent.core.signals.regime_fallback import LastRegimes, ends_the_call, fallback_signal
from detent.rpc.call import Call
from detent.rpc.tracing import annotate
from detent.servers.inference.answered import Answered, Answers
from detent.servers.inference.attributing import Attributing, check_explains
from detent.servers.inference.columns import infer_columns
from detent.servers.inference.run_log import LOGGED_HASHES_MAX, log_run
from detent.servers.inference.run_queue import Floats, QueueLimits, Ran, RunQueue

# As many as are calibrated before other calls get their turn: some milliseconds.
ROWS_PER_TURN = 128


class InferenceHandler:
    """Serves one artifact, or says which gate keeps it from being served."""

    def __init__(
        self,
        serving: Serving | ArtifactInvalid,
        *,
        max_inference_latency_ms: int = 10,
        limits: QueueLimits | None = None,
        clock: Callable[[], float],
    ) -> None:
        """Take what start-up gave.

        Args:
            serving: The artifact, or why there is none: the process then answers every
                call with that reason.
            max_inference_latency_ms: What one run may take inside.
            limits: What may wait and be joined; None for what suits one processor.
            clock: Monotonic clock in seconds.
        """
        self._latency_s_max = max_inference_latency_ms / 1000
        self._limits = limits or QueueLimits()
        self._clock = clock
        self._last = LastRegimes()
        self._attributing = Attributing(clock)
        self._serving = serving
        self._queue = self._queue_of(serving)

    def swap(self, serving: Serving) -> None:
        """Serve another artifact from now on; what the old one has begun, it finishes."""
        retired, self._serving, self._queue = self._queue, serving, self._queue_of(serving)
        if retired is not None:
            retired.close()

    def close(self) -> None:
        """Let go of the session; nothing can be asked afterwards."""
        self._attributing.close()
        if self._queue is not None:
            self._queue.close()

    def _queue_of(self, serving: Serving | ArtifactInvalid) -> RunQueue | None:
        if isinstance(serving, ArtifactInvalid):
            return None
        run_s = dict(serving.run_s)
        return RunQueue(
            serving.session.outputs,
            columns=serving.columns_of,
            limits=self._limits,
            cost_s=functools.lru_cache(lambda rows: cost_s(rows, run_s)),
            clock=self._clock,
        )

    async def infer_signals(self, query: InferSignalsRequest, call: Call) -> InferSignalsResponse:
        """Infer and calibrate one signal per row.

        A bad row gets its own reason and does not touch the good ones; those go through
        the session together. The answer has the form of the question, rows or columns.

        Raises:
            BindingMismatch: The binding is not the one served.
            ModelNotReady: No artifact is served.
            DeadlineExceeded: Too little of the caller's deadline is left.
            SignalFailed: A row has no answer, and the binding says that this ends the call.
            InvalidField: Attributions are asked for, of a model with too few features.
            Overloaded: Too many calls wait for their attributions.
        """
        serving = self.bound(query.binding_hash)
        if query.attributions:
            check_explains(serving)
        manifest = serving.artifact.manifest
        annotate(call.trace, provenance(manifest))
        if query.columns is not None:
            return await infer_columns(self, serving, self._last, query, call)
        # The hash comes first: whatever happens next, it can be said for which input.
        hashes = [_hash_of(row, manifest.feature_version) for row in query.rows]
        refusals = _refusals(query.rows, hashes, width=len(manifest.input_features))
        good = [index for index, refusal in enumerate(refusals) if refusal is None]
        values = [query.rows[index].model_input.values for index in good]
        run = await self.answered(serving, values, call)
        answers = iter(run.answers)
        rows = self._fall_back(
            serving,
            query.rows,
            [
                _signal_row(
                    serving, row, hashes[index], refusals[index] or next(answers), run.latency_us
                )
                for index, row in enumerate(query.rows)
            ],
        )
        # What failed is in the log before anyone is told, whatever the binding says (D12).
        _log_run(serving, rows, run)
        _end_if_bound(serving.artifact.pinned.binding, rows)
        if query.attributions and run.outputs is not None:
            # After the answers, of which it changes nothing.
            asked = dict(zip(good, zip(values, run.outputs, strict=True), strict=True))
            rows = await self._attributing.explained(serving, rows, asked, call)
        return InferSignalsResponse(
            binding_hash=query.binding_hash,
            model_version_hash=serving.artifact.pinned.binding.model_version_hash,
            calibration_version=manifest.calibration_version,
            rows=rows,
        )

    async def describe_artifact(
        self, query: DescribeArtifactRequest, call: Call
    ) -> DescribeArtifactResponse:
        """Describe the artifact that is served.

        Raises:
            BindingMismatch: The binding is not the one served.
            ModelNotReady: No artifact is served.
        """
        del call
        serving = self.bound(query.binding_hash)
        artifact = serving.artifact
        return DescribeArtifactResponse(
            binding_hash=query.binding_hash,
            model_binding=artifact.pinned.binding,
            model_hash=artifact.manifest.model_hash,
            calibration_method=artifact.calibration.method,
            execution_provider=serving.session.execution_provider,
            golden_row_count=len(artifact.golden.rows),
            manifest_json=manifest_bytes(artifact.manifest).decode("ascii"),
            certificate=serving.certificate,
            signer=artifact.pinned.signer,
            attributions=None if serving.explainer is None else serving.explainer.facts,
        )

    @property
    def serving(self) -> Serving | ArtifactInvalid:
        """Give the artifact that is served, or why there is none."""
        return self._serving

    def bound(self, binding_hash: str) -> Serving:
        """Give the artifact that a binding names; there is never another one instead.

        Raises:
            BindingMismatch: The binding is not the one served.
            ModelNotReady: No artifact is served.
        """
        serving = self._serving
        if isinstance(serving, ArtifactInvalid):
            if not is_hash64(binding_hash):
                raise BindingMismatch(binding_hash, "64 lowercase hex characters")
            # What is wrong with the files is for the operator's log, not for the caller.
            raise ModelNotReady("no artifact is served", gate_reason=serving.gate_reason)
        if binding_hash != serving.artifact.pinned.binding_hash:
            raise BindingMismatch(binding_hash, serving.artifact.pinned.binding_hash)
        return serving

    def _fall_back(
        self, serving: Serving, asked: Sequence[InferenceRow], rows: Sequence[SignalRow]
    ) -> tuple[SignalRow, ...]:
        """Put the head's fallback, where it has one, in the place of what the model refused."""
        binding = serving.artifact.pinned.binding
        for row in rows if binding.head is Head.REGIME else ():
            if row.signal is not None:
                self._last.remember(row.symbol, row.signal.ts, row.signal.answer)
        return tuple(
            row if row.refusal is None else self._stand_in(serving, binding, question, row)
            for question, row in zip(asked, rows, strict=True)
        )

    def _stand_in(
        self, serving: Serving, binding: ModelBinding, question: InferenceRow, row: SignalRow
    ) -> SignalRow:
        ts_ms = question.model_input.ts_ms
        signal = fallback_signal(binding, self._last, symbol=row.symbol, ts_ms=ts_ms)
        if signal is None:
            return row
        given = _signal_row(serving, question, row.features_hash, signal, 0)
        return structs.replace(given, fallback_reason=row.refusal)

    async def answered(self, serving: Serving, rows: Sequence[bytes], call: Call) -> Answered:
        """Infer and calibrate some rows, within the call's deadline and our own limit.

        Args:
            serving: What `bound` gave.
            rows: Model inputs, little-endian float32, finite, of the graph's width.
            call: Whose deadline counts.

        Raises:
            DeadlineExceeded: Too little of the caller's deadline is left.
        """
        if not rows:
            call.budget_s()
            return Answered(answers=[])
        inputs = np.frombuffer(b"".join(rows), "<f4").reshape(len(rows), serving.width)
        return await self.answers_of(serving, await self.run(inputs, call), count=len(rows))

    async def run(self, inputs: Floats, call: Call) -> Ran:
        """Run the graph over some rows, within the call's deadline and our own limit.

        Args:
            inputs: Shape (n, width), float32, finite, n at least 1.
            call: Whose deadline counts.

        Raises:
            DeadlineExceeded: Too little of the caller's deadline is left.
        """
        budget_s = min(call.budget_s(), self._latency_s_max)
        assert self._queue is not None, "what serves has a queue"
        ran = await self._queue.run(inputs, expires_s=self._clock() + budget_s)
        if ran.latency_us > self._latency_s_max * 1e6:
            return structs.replace(ran, outputs=Reason.INFERENCE_DEADLINE)
        return ran

    async def answers_of(self, serving: Serving, ran: Ran, *, count: int) -> Answered:
        """Map what a run gave to the signals of so many rows, and let others have their turn."""
        if isinstance(ran.outputs, Reason):
            refused: Answers = [ran.outputs] * count
            return Answered(answers=refused, latency_us=ran.latency_us, error=ran.error)
        answers: Answers = []
        for start in range(0, count, ROWS_PER_TURN):
            rows = slice(start, start + ROWS_PER_TURN)
            if ran.columns is None:
                answers.extend(serving.row_answers_of([output[rows] for output in ran.outputs]))
            else:
                part = {name: column[rows] for name, column in ran.columns.items()}
                answers.extend(direction_signals(part))
            if start + ROWS_PER_TURN < count:
                await asyncio.sleep(0)
        return Answered(answers=answers, latency_us=ran.latency_us, outputs=ran.outputs[0])


def provenance(manifest: Manifest) -> dict[str, str]:
    """Name the model that answers, for a span."""
    return {
        "model_id": manifest.model_id,
        "model_version": manifest.model_version,
        "model_hash": manifest.model_hash,
    }


def _hash_of(row: InferenceRow, feature_version: str) -> str:
    given = row.model_input
    return features_hash(
        feature_version,
        symbol=row.symbol,
        ts_ms=given.ts_ms,
        snapshot_hashes=given.snapshot_hashes,
        values=given.values,
    )


def _refusals(
    rows: Sequence[InferenceRow], hashes: Sequence[str], *, width: int
) -> list[Reason | None]:
    """Find the rows that the model must not see, and why."""
    fits = [len(row.model_input.values) == 4 * width for row in rows]
    values = b"".join(
        [row.model_input.values for row, whole in zip(rows, fits, strict=True) if whole]
    )
    numbers = np.isfinite(np.frombuffer(values, "<f4"))
    # One question for all rows: it is nearly always the only one.
    whole = bool(numbers.all())
    finite = repeat(whole) if whole else iter(numbers.reshape(-1, width).all(axis=1).tolist())
    refusals: list[Reason | None] = []
    for row, whole, features_hash64 in zip(rows, fits, hashes, strict=True):
        if not whole:
            refusals.append(Reason.FEATURE_VERSION_MISMATCH)
        elif not next(finite) or row.model_input.features_hash != features_hash64:
            refusals.append(Reason.FEATURES_MISSING)
        else:
            refusals.append(None)
    return refusals


def _signal_row(
    serving: Serving,
    row: InferenceRow,
    features_hash64: str,
    answer: HeadSignal | Reason,
    latency_us: int,
) -> SignalRow:
    if isinstance(answer, Reason):
        return SignalRow(symbol=row.symbol, features_hash=features_hash64, refusal=answer)
    manifest = serving.artifact.manifest
    signal = MlSignalSnapshot(
        ts=row.model_input.ts_ms,
        symbol=row.symbol,
        model_version=manifest.model_version,
        model_hash=manifest.model_hash,
        top_features=(),
        top_feature_weights_x1000=(),
        inference_latency_us=latency_us,
        features_hash=features_hash64[:16],
        **by_head(answer),
    )
    return SignalRow(symbol=row.symbol, features_hash=features_hash64, signal=signal)


def _end_if_bound(binding: ModelBinding, rows: Sequence[SignalRow]) -> None:
    refused = next((row for row in rows if row.refusal is not None), None)
    if refused is not None and refused.refusal is not None and ends_the_call(binding):
        raise SignalFailed(refused.symbol, gate_reason=refused.refusal)


def _log_run(serving: Serving, rows: Sequence[SignalRow], run: Answered) -> None:
    """Write the one line of a call; a large batch names its first rows only."""
    reasons = [row.refusal or row.fallback_reason for row in rows]
    named = rows[:LOGGED_HASHES_MAX]
    log_run(
        serving,
        [reason for reason in reasons if reason is not None],
        row_count=len(rows),
        latency_us=run.latency_us,
        error=run.error,
        facts={
            "symbols": [row.symbol for row in named],
            "features_hash": [row.features_hash for row in named],
        },
    )
