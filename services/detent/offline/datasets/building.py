"""Make a data set of bars: the rows that live serving would have given, and what came of them.

Nothing here reads a clock or draws a number: the same bars and arguments give the same bytes.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from detent.contracts.binding import Head
from detent.contracts.decimals import format_decimal
from detent.contracts.errors import DataInvalid
from detent.contracts.market import Bar
from detent.contracts.proxy import PROXY_DEFAULT, ProxyConfig
from detent.contracts.units import BPS_HALF
from detent.core.features.feature_set import FeatureSet
from detent.core.features.rolling import iter_row_blocks
from detent.core.signals.proxy import proxy_answers
from detent.offline.bars import BarTable
from detent.offline.cells import invalid
from detent.offline.datasets.folder import files_of, write_dataset
from detent.offline.datasets.manifest import (
    CADENCE_MS_DEFAULT,
    FEATURE_SET_FILE,
    ROWS_FILE,
    SCHEMA_VERSION,
    DatasetManifest,
    DatasetSource,
    feature_order_hash,
)
from detent.offline.datasets.rows import (
    CLOSE,
    KEYS,
    LABEL,
    PROXY,
    SETTLED_CLOSE,
    TARGETS,
    Rows,
    rows_bytes,
)
from detent.offline.feature_sets import check_bars_fit
from detent.offline.labels import direction_label_definition, direction_labels
from detent.offline.samples import Progress
from detent.offline.score_labels import SCORED_HEADS, score_definition, score_targets

PROXY_ROWS = 4_096
Targets = dict[str, NDArray[np.generic]]


class DatasetRequest(msgspec.Struct, frozen=True, kw_only=True):
    """States what a person decides about a data set; see `DatasetManifest`.

    Attributes:
        evidence: File that says why the bars are not of the default length; it is hashed.
    """

    dataset_id: str
    source: DatasetSource
    created_at: str
    head: Head
    horizon_bars: int
    horizon_id: str
    evidence: Path | None = None


def build_dataset(
    table: BarTable,
    feature_set: FeatureSet,
    request: DatasetRequest,
    *,
    out_dir: Path,
    progress: Progress,
) -> Path:
    """Build and write a data set of bars.

    Args:
        table: Bars of one or many symbols.
        feature_set: What a model is given.
        request: What a person decided.
        out_dir: Folder of data sets.
        progress: Told of (stage, bars done, bars in all).

    Returns:
        The data set's folder.

    Raises:
        DataInvalid: Bars say nothing about the head, do not fit the feature set or give no
            rows, their length is not the default and has no evidence, or the folder exists.
        InvalidField: A name or time is malformed.
    """
    _check_head(request.head)
    check_bars_fit(feature_set, table.interval_ms)
    evidence = cadence_evidence(table.interval_ms, request.evidence)
    taken = {*KEYS, *(name for name, _ in TARGETS[request.head])}
    for name in feature_set.input_names:
        if name in taken:
            raise invalid(request.dataset_id, f"a feature {name}", "no name of a column")
    rows = label_rows(
        table, feature_set, head=request.head, horizon_bars=request.horizon_bars, progress=progress
    )
    contents = {
        FEATURE_SET_FILE: feature_set.canonical_json,
        ROWS_FILE: rows_bytes(request.head, feature_set.input_names, rows),
    }
    manifest = DatasetManifest(
        schema_version=SCHEMA_VERSION,
        dataset_id=request.dataset_id,
        source=request.source,
        created_at=request.created_at,
        head=request.head,
        bar_interval_ms=table.interval_ms,
        symbols=tuple(sorted(set(rows.symbols))),
        first_ts_ms=int(rows.ts_ms[0]),
        last_ts_ms=int(rows.ts_ms[-1]),
        feature_version=feature_set.feature_version,
        input_features=feature_set.input_names,
        feature_order_hash=feature_order_hash(feature_set.input_names),
        label_definition=definition_of(request.head, request.horizon_bars, table.interval_ms),
        horizon_id=request.horizon_id,
        horizon_bars=request.horizon_bars,
        proxy_version=PROXY_DEFAULT.proxy_version,
        row_count=len(rows),
        bar_count=table.bar_count,
        gap_count=len(table.gaps),
        data_hash=table.data_hash,
        cadence_evidence=evidence,
        files=files_of(contents),
    )
    return write_dataset(out_dir, manifest, contents)


def cadence_evidence(interval_ms: int, evidence: Path | None) -> str | None:
    """Give the hash of the evidence for bars of another length than the default.

    Raises:
        DataInvalid: There is none, or it cannot be read or is empty; or there is some for bars of
            the default length, which no manifest would name.

    Source: R172.
    """
    if interval_ms == CADENCE_MS_DEFAULT:
        if evidence is not None:
            raise invalid(evidence.name, "evidence", f"none: bars are of {interval_ms} ms")
        return None
    expected = f"{CADENCE_MS_DEFAULT} ms, or --cadence-evidence FILE that says why not"
    if evidence is None:
        raise invalid("bars", f"bars of {interval_ms} ms", expected)
    try:
        text = evidence.read_bytes()
    except OSError as error:
        raise invalid(evidence.name, error.strerror, "evidence that can be read") from error
    if not text.strip():
        raise invalid(evidence.name, "an empty file", "evidence")
    return hashlib.sha256(text).hexdigest()


def definition_of(head: Head, horizon_bars: int, interval_ms: int) -> str:
    """Give the words of the label of a head."""
    if head is Head.DIRECTION:
        return direction_label_definition(horizon_bars=horizon_bars, bar_interval_ms=interval_ms)
    return score_definition(head, horizon_bars=horizon_bars, bar_interval_ms=interval_ms)


def label_rows(
    table: BarTable,
    feature_set: FeatureSet,
    *,
    head: Head,
    horizon_bars: int,
    progress: Progress,
) -> Rows:
    """Make one row per bar that has both an input and an outcome.

    Raises:
        DataInvalid: No bar has both, or bars say nothing about the head.
    """
    _check_head(head)
    parts: list[Rows] = []
    done = 0
    for symbol, bars in sorted(table.bars.items()):
        known, label_ts_ms, targets = _outcomes(bars, head, horizon_bars)
        start = 0
        for block in iter_row_blocks(feature_set, bars, hashed=False):
            stop = start + len(block.ts_ms)
            served = np.array([one is None for one in block.refusals]) & known[start:stop]
            parts.append(
                Rows(
                    ts_ms=np.array(block.ts_ms, dtype=np.int64)[served],
                    label_ts_ms=label_ts_ms[start:stop][served],
                    symbols=np.full(int(served.sum()), symbol, dtype=object),
                    values=block.values[served],
                    targets={k: column[start:stop][served] for k, column in targets.items()},
                )
            )
            done, start = done + len(block.ts_ms), stop
            progress("features", done, table.bar_count)
    rows = _in_order(parts)
    if not len(rows):
        found = f"{table.bar_count} bars and {len(table.gaps)} gaps, and no row out of them"
        expected = f"more than {feature_set.warmup_bars_min + horizon_bars} bars of a symbol"
        raise DataInvalid(f"found {found}, expected {expected}", found=found, expected=expected)
    return rows


def _check_head(head: Head) -> None:
    """Refuse a head whose labels are no bars: orders and events bring their own."""
    if head is not Head.DIRECTION and head not in SCORED_HEADS:
        labelled = (Head.DIRECTION, *SCORED_HEADS)
        raise invalid("bars", f"the head {head}", f"a head of bars: {', '.join(labelled)}")


def _in_order(parts: Sequence[Rows]) -> Rows:
    """Join rows by time; within an instant by symbol, as they come."""
    ts_ms = np.concatenate([part.ts_ms for part in parts])
    order = np.argsort(ts_ms, kind="stable")
    return Rows(
        ts_ms=ts_ms[order],
        label_ts_ms=np.concatenate([part.label_ts_ms for part in parts])[order],
        symbols=np.concatenate([part.symbols for part in parts])[order],
        values=np.concatenate([part.values for part in parts])[order],
        targets={
            name: np.concatenate([part.targets[name] for part in parts])[order]
            for name in parts[0].targets
        },
    )


def _outcomes(
    bars: Sequence[Bar], head: Head, horizon_bars: int
) -> tuple[NDArray[np.bool_], NDArray[np.int64], Targets]:
    """Give, per bar, whether its outcome is known, when that was, and what it is."""
    ts_ms = np.array([bar.ts_ms for bar in bars], dtype=np.int64)
    if head is not Head.DIRECTION:
        return score_targets(bars, head, horizon_bars=horizon_bars)
    labels = direction_labels([bar.close for bar in bars], horizon_bars=horizon_bars)
    known = np.array([label is not None for label in labels])
    closes = np.array([format_decimal(bar.close) for bar in bars], dtype=object)
    targets: Targets = {
        CLOSE: closes,
        SETTLED_CLOSE: _later(closes, horizon_bars),
        PROXY: np.fromiter(_proxies(bars, PROXY_DEFAULT), dtype=np.int32, count=len(bars)),
        LABEL: np.array([label is True for label in labels]),
    }
    settled = _later(ts_ms, horizon_bars).astype(np.int64)
    return known, settled, targets


def _later(values: NDArray[np.generic], bars: int) -> NDArray[np.generic]:
    """Shift values so that each stands at the bar that looks ahead to it; the end repeats."""
    return np.concatenate([values[bars:], np.repeat(values[-1:], min(bars, len(values)))])


def _proxies(bars: Sequence[Bar], config: ProxyConfig) -> Iterator[int]:
    """Say what the proxy says at each bar, from that bar and those before it."""
    closes = [float(bar.close) for bar in bars]
    needed = config.closes_needed
    for start in range(0, len(bars), PROXY_ROWS):
        stop = min(start + PROXY_ROWS, len(bars))
        windows = [closes[max(0, end - needed) : end] for end in range(start + 1, stop + 1)]
        for answer in proxy_answers(windows, config):
            assert 0 <= answer.p_hat_bps <= 2 * BPS_HALF
            yield answer.p_hat_bps
