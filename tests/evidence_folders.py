"""Lays out the evidence of a planted candidate on disk, as training and back-tests leave it."""

from __future__ import annotations

import asyncio
import functools
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import structs
from tests.backtests import market_of_walk, setup_of
from tests.builders import HOUR_MS, START_MS, SYMBOL
from tests.unit.artifacts import artifact_in, contents_of
from tests.unit.core.evaluation.promotion_cases import GIT_SHA, bands, good_readiness
from tests.unit.offline.planted_models import BARS, Candidate, good
from tests.unit.training_rows import long_dataset_in

from detent.adapters.artifact_store import read_artifact, read_pinned_manifest, write_artifact
from detent.adapters.sqlite_file import Durability
from detent.adapters.sqlite_ledger import SqliteLedger
from detent.adapters.sqlite_shadows import SqliteShadows
from detent.contracts.binding import PROXY_BINDING, ModelBinding, SignalSource
from detent.contracts.canonical import sha256_hex
from detent.contracts.decision import DecisionKind
from detent.contracts.shadow import ShadowSignal
from detent.core.evaluation.equity import EquityCurve
from detent.core.evaluation.readiness_report import readiness_bytes, readiness_report
from detent.offline.backtesting.folder import run_into
from detent.offline.backtesting.results import BacktestSummary
from detent.offline.promotion.evaluating import EvidencePaths
from detent.offline.promotion.evidence_file import write_evidence


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Names where the evidence of one candidate lies.

    Attributes:
        artifact: Its directory.
        dataset: Folder of the data set.
        model: Folder of its back-test.
        proxy: Folder of the proxy's.
        fills: Fills that it was the source of.
        readiness: Report that the policy phase is in place.
        ledger: Ledger that holds its shadow.
        model_version_hash: Manifest hash of the artifact.
    """

    artifact: Path
    dataset: Path
    model: Path
    proxy: Path
    fills: Path
    readiness: Path
    ledger: Path
    model_version_hash: str

    @property
    def paths(self) -> EvidencePaths:
        return EvidencePaths(
            artifact=self.artifact,
            dataset=self.dataset,
            model_backtest=self.model,
            proxy_backtest=self.proxy,
            fills=(self.fills,),
            ledgers=(str(self.ledger),),
        )


def lay_out(
    folder: Path, candidate: Candidate | None = None, *, version: str = "v1.2.3"
) -> Evidence:
    """Write an artifact and everything that speaks for it."""
    planted = candidate or good(1, bars=BARS)
    folder.mkdir(parents=True, exist_ok=True)
    dataset = long_dataset_in(folder / "datasets")
    dataset_id = sha256_hex((dataset / "manifest.json").read_bytes())
    (folder / "source").mkdir()
    source = artifact_in(folder / "source")
    manifest = structs.replace(
        read_artifact(source).manifest,
        model_version=version,
        git_sha=GIT_SHA,
        dataset_id=dataset_id,
    )
    contents = {n: c for n, c in contents_of(source).items() if n != "manifest.json"}
    artifact = write_artifact(folder / "artifacts", manifest, contents)
    run = folder / "artifacts" / f"{artifact.name}.run"
    write_run(run, planted, manifest.model_version_hash, dataset_id)
    binding = read_pinned_manifest(artifact).binding
    write_account(folder / "model", planted.model, binding)
    write_account(folder / "proxy", planted.proxy, PROXY_BINDING)
    fills = folder / "fills.jsonl"
    fills.write_text("".join(json.dumps({"book": "main", "fill_id": str(n)}) + "\n" for n in "ab"))
    report = readiness_report(good_readiness(), bands(), at_ms=time.time_ns() // 1_000_000)
    readiness = folder / "ready.json"
    write_evidence(readiness, readiness_bytes(report))
    return Evidence(
        artifact=artifact,
        dataset=dataset,
        model=folder / "model",
        proxy=folder / "proxy",
        fills=fills,
        readiness=readiness,
        ledger=write_shadow(folder / "ledger.sqlite", binding.binding_hash),
        model_version_hash=manifest.model_version_hash,
    )


def shadow_of(binding_hash: str, bar: int, symbol: str = SYMBOL, **changes: Any) -> ShadowSignal:
    """Give what a candidate said of one bar that the proxy decided."""
    signal = ShadowSignal(
        binding_hash=binding_hash,
        plan_id="plan",
        symbol=symbol,
        ts_ms=START_MS + bar * HOUR_MS,
        kind=DecisionKind.BAR,
        record_hash="e" * 64,
        used_source=SignalSource.PROXY,
        used_p_hat_bps=5_000,
        used_reason=None,
        model_id="direction_v1.0.0",
        horizon_bars=4,
        features_hash="f" * 64,
        p_hat_raw_bps=6_000,
        p_hat_bps=6_000,
        reason=None,
        latency_us=20_000 + bar,
    )
    return structs.replace(signal, **changes)


def write_shadow(path: Path, binding_hash: str, *, bars: int = 100, symbols: int = 10) -> Path:
    """Leave a ledger with the shadow of a candidate."""
    names = [f"SYM{number}" for number in range(symbols)]
    signals = [shadow_of(binding_hash, bar, name) for bar in range(bars) for name in names]
    add_shadows(path, signals)
    return path


def add_shadows(path: Path, signals: Sequence[ShadowSignal]) -> None:
    """Write shadow answers as the policy process does."""

    async def add() -> None:
        ledger = SqliteLedger(path, Durability.UNSAFE_MEMORY)
        await SqliteShadows(ledger.file).add_shadows(signals)
        await ledger.close()

    asyncio.run(add())


def write_run(folder: Path, candidate: Candidate, digest: str, dataset_id: str) -> None:
    folder.mkdir()
    facts: dict[str, Any] = {
        "model_version_hash": digest,
        "dataset_id": dataset_id,
        "trial_count": candidate.trial_count,
        "seed": 0,
    }
    (folder / "run.json").write_text(json.dumps(facts))
    found = candidate.predictions
    columns = {
        "ts_ms": found.ts_ms,
        "label_ts_ms": found.ts_ms + 3_600_000,
        "symbol": found.symbols.tolist(),
        "fold": np.zeros(len(found), dtype=np.int32),
        "p_raw": found.p_raw,
        "p_hat_bps": np.round(found.p * 10_000).astype(np.int32),
        "proxy_p_hat_bps": np.round(found.proxy_p * 10_000).astype(np.int32),
        "label": found.labels,
    }
    pq.write_table(pa.table(columns), folder / "predictions.parquet")


@functools.cache
def small_summary() -> BacktestSummary:
    """Give the summary of a small run."""
    setup = setup_of(market_of_walk(30))
    with tempfile.TemporaryDirectory() as folder:
        run, _ = run_into(Path(folder), setup, signal_origin="proxy", records=False)
    return run.summary


def write_account(folder: Path, curve: EquityCurve, binding: ModelBinding, **changes: Any) -> None:
    """Leave a back-test that says of itself what fits the account, but for some changes."""
    folder.mkdir()
    summary = structs.replace(
        small_summary(),
        binding=binding,
        binding_hash=binding.binding_hash,
        first_ts_ms=int(curve.ts_ms[0]),
        last_ts_ms=int(curve.ts_ms[-1]),
        bar_count=len(curve.ts_ms),
    )
    (folder / "results_summary.json").write_bytes(structs.replace(summary, **changes).canonical)
    columns = {name: getattr(curve, name) for name in EquityCurve.__struct_fields__}
    pq.write_table(pa.table(columns), folder / "equity.parquet")
