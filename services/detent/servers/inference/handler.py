"""Answer `InferenceService`: the pinned artifact's signal per row, or the row's reason.

Before it stands `core/features`, whose hash it checks again; after it `core/signals`.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec
import numpy as np

from detent.adapters.onnx_session import Serving
from detent.contracts import events
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
    InternalError,
    ModelNotReady,
)
from detent.contracts.manifest import manifest_bytes
from detent.contracts.reasons import Reason
from detent.contracts.signals import DirectionSignal, MlSignalSnapshot
from detent.core.features.model_input import features_hash
from detent.rpc.call import Call

# Runs that wait for the one session; more than this and they would all be late.
WAITING_MAX = 32
LOGGED_HASHES_MAX = 16
# Refusals that are the model's or the service's doing; the others are the caller's rows.
FAILURES = frozenset(
    {
        Reason.INFERENCE_DEADLINE,
        Reason.INFERENCE_OVERLOADED,
        Reason.INFERENCE_ERROR,
        Reason.OUTPUT_INVALID,
        Reason.CALIBRATION_FAILED,
    }
)
Answers = list[DirectionSignal | Reason]

log = logging.getLogger(__name__)


class _Run(msgspec.Struct, frozen=True, kw_only=True):
    """Holds one answer per good row, the time inside, and what failed if it did."""

    answers: Answers
    latency_us: int
    error: InternalError | None = None


class InferenceHandler:
    """Serves one artifact, or says which gate keeps it from being served."""

    def __init__(
        self,
        serving: Serving | ArtifactInvalid,
        *,
        max_inference_latency_ms: int = 10,
        clock: Callable[[], float],
    ) -> None:
        """Take what start-up gave.

        Args:
            serving: The artifact, or why there is none: the process then answers every
                call with that reason.
            max_inference_latency_ms: What one run may take inside.
            clock: Monotonic clock in seconds.
        """
        self._serving = serving
        self._latency_s_max = max_inference_latency_ms / 1000
        self._clock = clock
        # The session gets a thread of its own, so that a slow graph delays no other call;
        # one thread, so that runs follow one another.
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="onnx")
        self._waiting = 0

    def close(self) -> None:
        """Let go of the session's thread; nothing can be asked afterwards."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def infer_signals(self, query: InferSignalsRequest, call: Call) -> InferSignalsResponse:
        """Infer and calibrate one signal per row.

        A bad row gets its own reason and does not touch the good ones; those go through
        the session together.

        Raises:
            BindingMismatch: The binding is not the one served.
            ModelNotReady: No artifact is served.
            DeadlineExceeded: Too little of the caller's deadline is left.
        """
        serving = self._bound(query.binding_hash)
        manifest = serving.artifact.manifest
        budget_s = min(call.budget_s(), self._latency_s_max)
        # The hash comes first: whatever happens next, it can be said for which input.
        hashes = [_hash_of(row, manifest.feature_version) for row in query.rows]
        refusals = _refusals(query.rows, hashes, width=len(manifest.input_features))
        good = [index for index, refusal in enumerate(refusals) if refusal is None]
        values = [query.rows[index].model_input.values for index in good]
        run = await self._run(serving, values, budget_s=budget_s)
        answers = iter(run.answers)
        rows = tuple(
            _signal_row(
                serving, row, hashes[index], refusals[index] or next(answers), run.latency_us
            )
            for index, row in enumerate(query.rows)
        )
        _log_run(serving, query, rows, run)
        return InferSignalsResponse(
            binding_hash=query.binding_hash,
            model_version_hash=manifest.model_version_hash,
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
        serving = self._bound(query.binding_hash)
        artifact = serving.artifact
        return DescribeArtifactResponse(
            binding_hash=query.binding_hash,
            model_binding=artifact.pinned.binding,
            model_hash=artifact.manifest.model_hash,
            calibration_method=artifact.calibration.method,
            execution_provider=serving.session.execution_provider,
            golden_row_count=len(artifact.golden.rows),
            manifest_json=manifest_bytes(artifact.manifest).decode("ascii"),
            signer=artifact.pinned.signer,
        )

    def _bound(self, binding_hash: str) -> Serving:
        """Give the artifact that a binding names; there is never another one instead."""
        serving = self._serving
        if isinstance(serving, ArtifactInvalid):
            if not is_hash64(binding_hash):
                raise BindingMismatch(binding_hash, "64 lowercase hex characters")
            # What is wrong with the files is for the operator's log, not for the caller.
            raise ModelNotReady("no artifact is served", gate_reason=serving.gate_reason)
        if binding_hash != serving.artifact.pinned.binding_hash:
            raise BindingMismatch(binding_hash, serving.artifact.pinned.binding_hash)
        return serving

    async def _run(self, serving: Serving, values: list[bytes], *, budget_s: float) -> _Run:
        """Run the session once for the good rows, within the budget, or give one reason."""
        if not values:
            return _Run(answers=[], latency_us=0)
        if self._waiting >= WAITING_MAX:
            return _Run(answers=[Reason.INFERENCE_OVERLOADED] * len(values), latency_us=0)
        expires_s = self._clock() + budget_s
        self._waiting += 1
        run = asyncio.get_running_loop().run_in_executor(
            self._executor, self._directions, serving, values, expires_s
        )
        run.add_done_callback(self._finished)
        # Waiting does not cancel the run: a late answer is dropped when it comes. What counts
        # is the time inside, so an answer that is there is not lost to a busy event loop.
        await asyncio.wait({run}, timeout=budget_s)
        if not run.done():
            late: Answers = [Reason.INFERENCE_DEADLINE] * len(values)
            return _Run(answers=late, latency_us=math.ceil(budget_s * 1e6))
        try:
            return run.result()
        except InternalError as error:
            failed: Answers = [Reason.INFERENCE_ERROR] * len(values)
            return _Run(answers=failed, latency_us=0, error=error)

    def _directions(self, serving: Serving, values: list[bytes], expires_s: float) -> _Run:
        started_s = self._clock()
        late: Answers = [Reason.INFERENCE_DEADLINE] * len(values)
        if started_s > expires_s:
            # Its turn came too late, and nobody is waiting for it any more.
            return _Run(answers=late, latency_us=0)
        answers = serving.directions(values)
        took_s = self._clock() - started_s
        latency_us = max(1, math.ceil(took_s * 1e6))
        return _Run(
            answers=late if took_s > self._latency_s_max else answers, latency_us=latency_us
        )

    def _finished(self, run: asyncio.Future[_Run]) -> None:
        self._waiting -= 1
        # A failure that comes late was answered as a deadline; it is looked at here so
        # that nobody reports it as forgotten.
        if not run.cancelled():
            run.exception()


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
        row.model_input.values for row, whole in zip(rows, fits, strict=True) if whole
    )
    finite = iter(np.isfinite(np.frombuffer(values, "<f4").reshape(-1, width)).all(axis=1).tolist())
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
    answer: DirectionSignal | Reason,
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
        direction=answer,
    )
    return SignalRow(symbol=row.symbol, features_hash=features_hash64, signal=signal)


def _log_run(
    serving: Serving, query: InferSignalsRequest, rows: Sequence[SignalRow], run: _Run
) -> None:
    """Write the one line of a call; a large batch names its first rows only."""
    manifest = serving.artifact.manifest
    refusals = [row.refusal for row in rows if row.refusal is not None]
    failed = not FAILURES.isdisjoint(refusals)
    log.log(
        logging.ERROR if failed else logging.INFO,
        events.ML_INFER_ERROR if failed else events.ML_INFER_OK,
        exc_info=run.error,
        extra={
            "binding_hash": query.binding_hash,
            "model_id": manifest.model_id,
            "model_hash": manifest.model_hash,
            "row_count": len(rows),
            "refused_count": len(refusals),
            "refusals": sorted(set(refusals)),
            "symbols": [row.symbol for row in rows[:LOGGED_HASHES_MAX]],
            "features_hash": [row.features_hash for row in rows[:LOGGED_HASHES_MAX]],
            "latency_us": run.latency_us,
        },
    )
