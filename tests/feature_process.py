"""Serves any feature set from a process of its own, as it runs in production."""

import asyncio
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from msgspec import structs
from opentelemetry.context import Context
from tests.conftest import Artifacts

from detent.adapters.artifact_store import ARTIFACT_FILES, list_files, write_artifact
from detent.contracts.calls.feature import (
    GetFeatureSnapshotsRequest,
    GetFeatureSnapshotsResponse,
    MarketEvent,
    ModelInput,
    SnapshotView,
)
from detent.contracts.manifest import (
    FEATURE_SET_FILE,
    GOLDEN_FILE,
    MANIFEST_FILE,
    binding_of,
    golden_bytes,
    parse_golden,
    parse_manifest,
)
from detent.contracts.market import Bar, Book, Quote
from detent.contracts.reasons import Reason
from detent.core.features.feature_set import FeatureSet
from detent.rpc.channel import RemoteService, open_channel
from detent.rpc.tracing import no_tracer
from detent_cli.stack import Stack, StackOptions
from detent_client import ClientOptions, DetentClient

PATIENCE_S = 60.0
CALLS_AT_ONCE = 16
Item = Bar | Quote | Book
Outcome = str | Reason
T = TypeVar("T")


class FeatureProcess:
    """Owns a feature process that serves some feature sets, and talks to it."""

    def __init__(
        self, artifacts: Artifacts, folder: Path, feature_sets: Sequence[FeatureSet]
    ) -> None:
        """Write an artifact per feature set; nothing runs yet."""
        self._bindings = {
            one.feature_version: _pinned(artifacts.stable, folder / "artifacts", number, one)
            for number, one in enumerate(feature_sets)
        }
        some_artifact = next((folder / "artifacts").iterdir())
        self._stack = Stack(StackOptions(artifact_dir=some_artifact, state_dir=folder))
        self._journal = folder / "journal.jsonl"

    async def __aenter__(self) -> Self:
        """Start the process."""
        await asyncio.to_thread(self._stack.start, "feature")
        target = self._stack.targets["feature"]
        self._channel = open_channel(target)
        self._remote = RemoteService(self._channel, "FeatureService", no_tracer())
        self._client = DetentClient(
            ClientOptions(journal_file=self._journal, feature_target=target)
        )
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Stop the process."""
        await self._client.close()
        await self._channel.close()
        await asyncio.to_thread(self._stack.stop_all)

    async def feed(self, items: Iterable[Item]) -> None:
        """Stream market data; nothing of it may be refused."""
        events = [_event(item) for item in items]
        answer = await self._client.ingest(events, deadline_s=PATIENCE_S)

        assert (answer.accepted_count, answer.refused_count) == (len(events), 0), answer.refusals

    async def rows(
        self, feature_set: FeatureSet, asked: Mapping[int, Sequence[str]]
    ) -> dict[str, dict[int, Outcome]]:
        """Ask as of each instant for its symbols; give by symbol what each instant says."""
        found: dict[str, dict[int, Outcome]] = {}
        for part in parts(list(asked.items()), CALLS_AT_ONCE):
            calls = (self._ask(feature_set, ts_ms, symbols) for ts_ms, symbols in part)
            for (ts_ms, _), answer in zip(part, await asyncio.gather(*calls), strict=True):
                for row in answer.rows:
                    outcome = row.model_input or row.refusal
                    assert outcome is not None
                    found.setdefault(row.symbol, {})[ts_ms] = outcome_of(outcome)
        return found

    async def _ask(
        self, feature_set: FeatureSet, ts_ms: int, symbols: Sequence[str]
    ) -> GetFeatureSnapshotsResponse:
        query = GetFeatureSnapshotsRequest(
            binding_hash=self._bindings[feature_set.feature_version],
            as_of_ts_ms=ts_ms,
            symbols=tuple(symbols),
            view=SnapshotView.INPUT,
        )
        return await self._remote.call(
            query, GetFeatureSnapshotsResponse, timeout_s=PATIENCE_S, trace=Context()
        )


def outcome_of(row: ModelInput | Reason) -> Outcome:
    """Give what two rows have to agree in."""
    return row if isinstance(row, Reason) else row.features_hash


def hash_count(rows: Mapping[str, Mapping[int, Outcome]]) -> int:
    """Count the rows that carry a hash."""
    every = itertools.chain.from_iterable(series.values() for series in rows.values())
    return sum(not isinstance(row, Reason) for row in every)


def parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Divide a sequence."""
    return (items[start : start + size] for start in range(0, len(items), size))


def _event(item: Item) -> MarketEvent:
    if isinstance(item, Bar):
        return MarketEvent(bar=item)
    return MarketEvent(quote=item) if isinstance(item, Quote) else MarketEvent(book=item)


def _pinned(source: Path, folder: Path, number: int, feature_set: FeatureSet) -> str:
    """Write an artifact whose manifest pins another feature set; give its binding hash.

    Its model fits no longer, and nobody asks it: a feature process reads the feature set alone.
    """
    contents = {name: (source / name).read_bytes() for name in ARTIFACT_FILES}
    contents[FEATURE_SET_FILE] = feature_set.canonical_json
    before = parse_manifest(contents.pop(MANIFEST_FILE))
    fitting = bytes(4 * len(feature_set.input_names))
    golden = parse_golden(contents[GOLDEN_FILE])
    rows = tuple(structs.replace(row, values=fitting) for row in golden.rows)
    contents[GOLDEN_FILE] = golden_bytes(structs.replace(golden, rows=rows))
    manifest = structs.replace(
        before,
        model_version=f"v9.0.{number}",
        bar_interval_ms=feature_set.engine.bar_interval_ms,
        feature_version=feature_set.feature_version,
        input_features=feature_set.input_names,
        files=list_files(contents),
    )
    write_artifact(folder, manifest, contents)
    return binding_of(manifest).binding_hash
