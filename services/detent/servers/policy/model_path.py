"""Ask the model for one bar and turn every way it can fail into a reason."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import msgspec
from opentelemetry.trace import Tracer

from detent.contracts import errors, events
from detent.contracts.binding import SignalSource
from detent.contracts.calls.feature import (
    CallerFeatures,
    GetFeatureSnapshotsRequest,
    ModelInput,
    SnapshotView,
)
from detent.contracts.calls.inference import InferSignalsRequest
from detent.contracts.calls.signal_columns import TS_BYTES, InferenceColumns
from detent.contracts.canonical import sha256_hex
from detent.contracts.decision import DecisionRow
from detent.contracts.reasons import Reason
from detent.core.features.model_input import input_canonical
from detent.core.ledger.record import BoundPlan
from detent.core.rollout.gates import Enablement, closed_symbols
from detent.core.rollout.kill_state import NOTHING_READ, KillReading
from detent.core.signals.choice import ModelOutcome, refused
from detent.core.signals.output_gate import gate_columns, gate_response
from detent.rpc.call import Call
from detent.rpc.tracing import span
from detent.servers.policy.model_breakers import ModelBreakers
from detent.servers.policy.ports import Routes

log = logging.getLogger(__name__)
T = TypeVar("T")
# Told of what the model is given, and of the canonical text of it, both by symbol.
KeepInputs = Callable[[Mapping[str, ModelInput], Mapping[str, bytes]], None]
# Told of the model, of what came of asking it, by symbol, and of the bar.
NoteOutcomes = Callable[[str, Mapping[str, ModelOutcome], int], None]

FEATURE_REASONS: dict[type[errors.DetentError], Reason] = {
    errors.BindingMismatch: Reason.BINDING_MISMATCH,
    errors.FeatureVersionMismatch: Reason.FEATURE_VERSION_MISMATCH,
    errors.SnapshotStale: Reason.FEATURES_STALE,
    errors.SnapshotNotFound: Reason.SYMBOL_UNKNOWN,
    errors.InvalidResponse: Reason.FEATURES_MISSING,
}
INFERENCE_REASONS: dict[type[errors.DetentError], Reason] = {
    errors.BindingMismatch: Reason.BINDING_MISMATCH,
    errors.FeatureVersionMismatch: Reason.FEATURE_VERSION_MISMATCH,
    errors.DeadlineExceeded: Reason.INFERENCE_DEADLINE,
    errors.Overloaded: Reason.INFERENCE_OVERLOADED,
    errors.ServiceUnavailable: Reason.INFERENCE_UNAVAILABLE,
    errors.InvalidResponse: Reason.OUTPUT_INVALID,
}


class ModelPath(msgspec.Struct, frozen=True, kw_only=True):
    """Asks features, then inference, each within what is left of the deadline.

    Attributes:
        routes: Says who gives model inputs and signals, by binding.
        enablement: The switches of this process.
        kill_switch_env: Reads `ML_KILL_SWITCH`, again for every bar.
        tracer: Opens a span around each step.
        keep_inputs: Keeps what the model is given, for a replay from there; None keeps nothing.
        kill_reading: Gives what is known now of the watched file and of the shared switches.
        note_outcomes: Counts what goes wrong; None counts nothing.
        breakers: Spares a model that fails too often; None asks it whatever it does.
    """

    routes: Routes
    enablement: Enablement
    kill_switch_env: Callable[[], bool]
    tracer: Tracer
    keep_inputs: KeepInputs | None = None
    kill_reading: Callable[[], KillReading] = lambda: NOTHING_READ
    note_outcomes: NoteOutcomes | None = None
    breakers: ModelBreakers | None = None

    async def ask(
        self, bound: BoundPlan, rows: Sequence[DecisionRow], *, ts_ms: int, call: Call
    ) -> Mapping[str, ModelOutcome] | None:
        """Give one outcome per symbol; None when the plan binds the proxy."""
        if bound.binding.signal_source is SignalSource.PROXY:
            return None
        # (1) Gates that need nobody's answer.
        closed = self._closed(bound, rows)
        outcomes = {symbol: refused(reason) for symbol, reason in closed.items()}
        asked = [row for row in rows if row.symbol not in closed]
        if not asked:
            return outcomes
        model_id = bound.binding.model_id
        if self.breakers is not None and self.breakers.is_open(model_id):
            return outcomes | {row.symbol: refused(Reason.MODEL_BREAKER_OPEN) for row in asked}
        # (2) Features for all rows in one call.
        inputs = await self._features(bound, asked, ts_ms=ts_ms, call=call)
        outcomes |= {
            symbol: refused(given) for symbol, given in inputs.items() if isinstance(given, Reason)
        }
        ready = {symbol: given for symbol, given in inputs.items() if isinstance(given, ModelInput)}
        # (3) That hashes and values belong together: nobody behind this looks again.
        texts = _texts(ready, bound.binding.feature_version)
        for symbol, reason in _misfits(ready, texts).items():
            outcomes[symbol] = refused(reason, ready.pop(symbol).features_hash)
        # (4) Signals for what has features, in one call, and the output gate.
        if ready:
            if self.keep_inputs is not None:
                self.keep_inputs(ready, texts)
            outcomes |= await self._signals(bound, ready, ts_ms=ts_ms, call=call)
        if self.breakers is not None:
            self.breakers.note(model_id, {row.symbol: outcomes[row.symbol] for row in asked})
        # (5) What was switched off while we waited is off: off wins.
        for symbol, reason in self._closed(bound, asked).items():
            outcomes[symbol] = refused(reason, outcomes[symbol].features_hash)
        if self.note_outcomes is not None:
            self.note_outcomes(model_id, outcomes, ts_ms)
        return outcomes

    def _closed(self, bound: BoundPlan, rows: Sequence[DecisionRow]) -> Mapping[str, Reason]:
        return closed_symbols(
            self.enablement,
            self.kill_reading(),
            kill_switch_env=self.kill_switch_env(),
            model_id=bound.binding.model_id,
            plan_id=bound.plan.plan_id,
            symbols=[row.symbol for row in rows],
            rollout=bound.rollout,
        )

    async def _features(
        self, bound: BoundPlan, rows: Sequence[DecisionRow], *, ts_ms: int, call: Call
    ) -> dict[str, ModelInput | Reason]:
        symbols = tuple(row.symbol for row in rows)
        query = GetFeatureSnapshotsRequest(
            binding_hash=bound.binding_hash,
            as_of_ts_ms=ts_ms,
            symbols=symbols,
            view=SnapshotView.INPUT,
            caller_features=tuple(
                CallerFeatures(symbol=row.symbol, features=row.caller_features)
                for row in rows
                if row.caller_features
            ),
            max_age_ms=bound.plan.max_feature_age_ms,
        )
        features, _ = self.routes.route_of(bound.binding_hash)
        answer = await self._asked(
            "features",
            lambda inner: features.get_feature_snapshots(query, inner),
            call,
            reasons=FEATURE_REASONS,
            otherwise=Reason.FEATURES_UNAVAILABLE,
            late=Reason.FEATURES_UNAVAILABLE,
        )
        if isinstance(answer, Reason):
            return dict.fromkeys(symbols, answer)
        if answer.binding_hash != bound.binding_hash:
            return dict.fromkeys(symbols, Reason.BINDING_MISMATCH)
        if answer.feature_version != bound.binding.feature_version:
            return dict.fromkeys(symbols, Reason.FEATURE_VERSION_MISMATCH)
        if tuple(row.symbol for row in answer.rows) != symbols:
            return dict.fromkeys(symbols, Reason.FEATURES_MISSING)
        return {row.symbol: _given(row.model_input, row.refusal, ts_ms) for row in answer.rows}

    async def _signals(
        self, bound: BoundPlan, ready: Mapping[str, ModelInput], *, ts_ms: int, call: Call
    ) -> dict[str, ModelOutcome]:
        features_hashes = [given.features_hash for given in ready.values()]
        values = b"".join([given.values for given in ready.values()])
        query = InferSignalsRequest(
            binding_hash=bound.binding_hash,
            columns=InferenceColumns(
                symbols=tuple(ready),
                ts_ms=ts_ms.to_bytes(TS_BYTES, "little", signed=True) * len(ready),
                values=values,
                features_hashes=bytes.fromhex("".join(features_hashes)),
            ),
        )
        _, inference = self.routes.route_of(bound.binding_hash)
        answer = await self._asked(
            "inference",
            lambda inner: inference.infer_signals(query, inner),
            call,
            reasons=INFERENCE_REASONS,
            otherwise=Reason.INFERENCE_ERROR,
            late=Reason.INFERENCE_DEADLINE,
        )
        binding = bound.binding
        if not isinstance(answer, Reason):
            wrong = gate_response(
                answer,
                binding_hash=bound.binding_hash,
                model_version_hash=binding.model_version_hash,
                calibration_version=binding.calibration_version,
            )
            if wrong is None:
                outcomes = gate_columns(
                    answer.columns,
                    inputs_sha256=sha256_hex(values),
                    features_hashes=features_hashes,
                )
                return dict(zip(ready, outcomes, strict=True))
            answer = wrong
        return {symbol: refused(answer, given.features_hash) for symbol, given in ready.items()}

    async def _asked(
        self,
        step: str,
        ask: Callable[[Call], Awaitable[T]],
        call: Call,
        *,
        reasons: Mapping[type[errors.DetentError], Reason],
        otherwise: Reason,
        late: Reason,
    ) -> T | Reason:
        """Ask a dependency and give its answer or the reason why there is none."""
        with span(self.tracer, step, call.trace) as trace:
            try:
                budget_s = call.budget_s()
                async with asyncio.timeout(budget_s):
                    return await ask(call.narrowed(budget_s=budget_s, trace=trace))
            except (TimeoutError, errors.DeadlineExceeded):
                return late
            except errors.ModelNotReady as error:
                return error.gate_reason
            except errors.DetentError as error:
                return reasons.get(type(error), otherwise)
            except Exception:
                # Broad on purpose: the proxy must outlive defects, not only known failures.
                # Cancellation is not an `Exception`, so a caller that left still ends the call.
                log.exception(events.ML_INFER_ERROR, extra={"step": step})
                return otherwise


def _given(
    model_input: ModelInput | None, refusal: Reason | None, ts_ms: int
) -> ModelInput | Reason:
    if model_input is None:
        return refusal or Reason.FEATURES_MISSING
    return model_input if model_input.ts_ms == ts_ms else Reason.FEATURES_STALE


def _texts(ready: Mapping[str, ModelInput], feature_version: str) -> dict[str, bytes]:
    """Write down what the model is given: the text that is hashed, and kept for a replay."""
    return {
        symbol: input_canonical(
            feature_version,
            symbol=symbol,
            ts_ms=given.ts_ms,
            snapshot_hashes=given.snapshot_hashes,
            values=given.values,
        )
        for symbol, given in ready.items()
    }


def _misfits(ready: Mapping[str, ModelInput], texts: Mapping[str, bytes]) -> dict[str, Reason]:
    """Find the model inputs that are as wide as no other, or whose hash is not their own.

    This is the one place on the path of a decision where a features hash is computed again:
    what goes from here to inference is hashes and values in two columns (ADR 0025).
    """
    sizes = Counter([len(given.values) for given in ready.values()])
    # All rows of a feature version are as wide. Where they are not, most may be sound.
    common = max(sizes, key=lambda size: sizes[size], default=0)
    misfits = {}
    for symbol, given in ready.items():
        if len(given.values) != common:
            misfits[symbol] = Reason.FEATURE_VERSION_MISMATCH
        elif sha256_hex(texts[symbol]) != given.features_hash:
            misfits[symbol] = Reason.FEATURES_MISSING
    return misfits
