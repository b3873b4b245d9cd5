"""Rows built from quotes and books: those of the live service, whatever files they come from."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.unit.core.features.market import (
    FROM_QUOTES,
    MINUTE_MS,
    QUOTES_AND_BOOKS,
    START_MS,
    SYMBOL,
    WITH_BOOKS,
    bars_of,
    book,
    delayed,
    quote,
)
from tests.unit.offline.test_books import line_of, record
from tests.unit.offline.test_books import rows_of as book_rows_of
from tests.unit.offline.test_quotes import rows_of, write
from typer.testing import CliRunner

from detent.contracts.calls.feature import MarketEvent, ModelInput, SnapshotView
from detent.contracts.errors import DataInvalid, DetentError
from detent.contracts.market import Book, Quote
from detent.core.features.event_rows import by_availability
from detent.core.features.feature_set import FeatureSet
from detent.core.features.feature_spec import FeatureTransform, feature
from detent.core.features.market_state import MarketState
from detent.offline.commands import build_feature_file
from detent.offline.event_build import EventBuildSummary
from detent.offline.event_files import EventFiles, FileKind, kind_of
from detent_cli.main import app

FEATURES = (
    feature(FeatureTransform.RETURN_PCT, 1),
    feature(FeatureTransform.SPREAD_BPS),
    feature(FeatureTransform.DEPTH_IMBALANCE),
)
FROM_BOTH = FeatureSet(name="both", features=FEATURES, engine=QUOTES_AND_BOOKS)
BARS_AND_BOOKS = FeatureSet(name="bars", features=FEATURES, engine=WITH_BOOKS)
COUNT = 40


def market(symbol: str = SYMBOL) -> tuple[list[Quote], list[Book]]:
    """Give quotes and books of some minutes; some are known late, one book is never in time."""
    quotes = [
        delayed(
            quote(
                START_MS + index * 20_000,
                str(90 + index * 7 % 9),
                str(100 + index % 3),
                symbol=symbol,
            ),
            30_000 if index % 5 == 2 else None,
        )
        for index in range(COUNT)
    ]
    books = [
        delayed(
            book(
                START_MS + index * 25_000 + 1,
                [("99", str(1 + index % 4))],
                [("101", "1")],
                symbol=symbol,
            ),
            90_000 if index % 6 == 1 else None,
        )
        for index in range(COUNT)
    ]
    return quotes, books


def files_in(folder: Path, feature_set: FeatureSet, *, suffix: str = ".parquet") -> list[Path]:
    """Write the market of two symbols, and the set."""
    quotes, books = [], []
    for symbol in ("ETHUSDT", SYMBOL):
        more_quotes, more_books = market(symbol)
        quotes += more_quotes
        books += more_books
    rows: list[dict[str, Any]] = [
        row | {"venue": one.venue, "available_ts_ms": one.available_ts_ms}
        for one in books
        for row in book_rows_of(one)
    ]
    (folder / "set.json").write_bytes(feature_set.canonical_json)
    return [
        write(folder / f"l1{suffix}", rows_of(quotes)),
        write(folder / f"l2{suffix}", rows),
    ]


def build(data: list[Path], folder: Path, **options: Any) -> EventBuildSummary:
    summary, _ = build_feature_file(
        data,
        str(folder / "set.json"),
        out=folder / "rows.parquet",
        venue=None,
        bar_interval_ms=MINUTE_MS,
        force=True,
        **options,
    )
    assert isinstance(summary, EventBuildSummary)
    return summary


def served(feature_set: FeatureSet, symbol: str) -> tuple[dict[int, object], int]:
    """Feed a live state in the order of availability and ask as of each close it reaches."""
    state, found, refused = MarketState([feature_set]), {}, 0
    quotes, books = market(symbol)
    everything = sorted(
        [*books, *quotes], key=lambda one: (one.known_ts_ms, isinstance(one, Quote), one.ts_ms)
    )
    closes = [START_MS + (index + 1) * MINUTE_MS for index in range(COUNT)]
    for one in everything:
        event = MarketEvent(quote=one) if isinstance(one, Quote) else MarketEvent(book=one)
        try:
            state.take(event)
        except DetentError:
            refused += 1
        for close in closes:
            is_closed = state.watermark_ts_ms(symbol) >= close
            if close not in found and is_closed and state.reaches(feature_set, symbol, close):
                row = state.model_input(
                    feature_set, symbol, as_of_ts_ms=close, view=SnapshotView.INPUT
                )
                found[close] = row.features_hash if isinstance(row, ModelInput) else row
    return found, refused


@pytest.mark.proves("R315")
@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_built_rows_are_the_served_rows(tmp_path: Path, suffix: str) -> None:
    summary = build(files_in(tmp_path, FROM_BOTH, suffix=suffix), tmp_path)
    rows = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    live = {symbol: served(FROM_BOTH, symbol) for symbol in summary.symbols}

    for symbol, (expected, _) in live.items():
        mine = [row for row in rows if row["symbol"] == symbol]
        assert {row["ts_ms"]: row["features_hash"] or row["refusal"] for row in mine} == expected
    assert summary.rows == len(rows) > 10
    assert summary.served > summary.rows // 2
    # Late quotes and books are refused here and there alike, and counted.
    assert sum(summary.refused_events.values()) == sum(refused for _, refused in live.values()) > 0
    assert summary.events == 4 * COUNT


def test_checker_finds_a_book_that_differs(tmp_path: Path) -> None:
    """The comparison is worth nothing unless it notices a difference."""
    files = files_in(tmp_path, FROM_BOTH)
    build(files, tmp_path)
    first = pq.read_table(tmp_path / "rows.parquet")["features_hash"].to_pylist()
    rows = pq.read_table(files[1]).to_pylist()
    for row in rows[:40]:
        row["qty"] += 0.5 if row["side"] == "bid" else 0.0
    write(files[1], rows)
    build(files, tmp_path)

    assert pq.read_table(tmp_path / "rows.parquet")["features_hash"].to_pylist() != first


def test_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    contents = set()
    for _ in range(2):
        summary = build(files_in(tmp_path, FROM_BOTH), tmp_path)
        contents.add(((tmp_path / "rows.parquet").read_bytes(), summary.data_hash))

    assert len(contents) == 1


def bars_file(folder: Path) -> Path:
    rows = [
        {
            "ts_ms": one.ts_ms - MINUTE_MS,
            "symbol": one.symbol,
            **{name: float(getattr(one, name)) for name in ("open", "high", "low", "close")},
            "volume": 1.0,
        }
        for one in bars_of([str(100 + index) for index in range(10)])
    ]
    return write(folder / "bars.parquet", rows)


def test_bars_read_the_quotes_and_books_that_came_before_them(tmp_path: Path) -> None:
    both = files_in(tmp_path, BARS_AND_BOOKS)
    with_quotes = build([*both, bars_file(tmp_path)], tmp_path)
    without_quotes = build([both[1], bars_file(tmp_path)], tmp_path)

    assert (with_quotes.rows, without_quotes.rows) == (10, 10)
    assert with_quotes.served > 5
    assert without_quotes.refused["FEATURES_MISSING"] >= 5


def test_lines_of_books_are_read_and_kept_in_order(tmp_path: Path) -> None:
    books = market()[1]
    lines = [line_of(record(one)) for one in books]
    path = tmp_path / "books.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    files = EventFiles.of([path], venue=None)

    assert files.symbols() == (SYMBOL,)
    assert [one.ts_ms for one in files.books_of(SYMBOL)] == [one.ts_ms for one in books]
    path.write_bytes(b"\n".join(reversed(lines)) + b"\n")
    with pytest.raises(DataInvalid, match="the book before"):
        list(files.books_of(SYMBOL))


def test_order_of_availability_is_one_whatever_the_order_of_files() -> None:
    quotes, books = market()
    merged = list(by_availability(books=books, quotes=quotes))

    known = [one.known_ts_ms for one in merged]
    assert known == sorted(known)
    assert sorted(map(repr, merged)) == sorted(map(repr, [*quotes, *books]))


def test_at_one_instant_what_a_bar_closes_over_comes_before_it() -> None:
    """Behind the bar it would be late, though it was known in time."""
    (bar,) = bars_of(["100"])
    late_book, late_quote = delayed(book(bar.ts_ms - 5), 5), delayed(quote(bar.ts_ms - 5), 5)

    merged = list(by_availability(bars=[bar], quotes=[late_quote], books=[late_book]))
    assert merged == [late_book, late_quote, bar]


@pytest.mark.parametrize(
    ("kept", "feature_set", "expected"),
    [
        ([0], FROM_BOTH, "no file of books"),
        ([1], FROM_BOTH, "no file of quotes"),
        ([0, 1], BARS_AND_BOOKS, "no file of bars"),
        ([0, 1, 0], FROM_BOTH, "one file of each kind"),
    ],
)
def test_files_that_do_not_fit_the_set_are_refused(
    tmp_path: Path, kept: list[int], feature_set: FeatureSet, expected: str
) -> None:
    files = files_in(tmp_path, feature_set)

    with pytest.raises(DataInvalid, match=expected):
        build([files[index] for index in kept], tmp_path)
    assert not (tmp_path / "rows.parquet").exists()


def test_books_that_nobody_reads_are_refused(tmp_path: Path) -> None:
    bare = FeatureSet(name="bare", features=FEATURES[:1], engine=FROM_QUOTES)

    with pytest.raises(DataInvalid, match="no feature of the set reads them"):
        build(files_in(tmp_path, bare), tmp_path)


def test_file_of_no_kind_is_refused_with_the_columns_of_each(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", [{"time": 1, "price": 2}])

    with pytest.raises(DataInvalid, match="columns time, price") as caught:
        kind_of(path)
    for kind in FileKind:
        assert f"{kind}: ts_ms, symbol" in caught.value.message
    with pytest.raises(DataInvalid, match=r"\.parquet, \.csv"):
        kind_of(tmp_path / "x.txt")


def test_venue_is_said_or_stands_in_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "l2.parquet", book_rows_of(*market()[1][:3]))
    with pytest.raises(DataInvalid, match="venue"):
        list(EventFiles.of([path], venue=None).books_of(SYMBOL))

    books = itertools.islice(EventFiles.of([path], venue="COINBASE").books_of(SYMBOL), 1)
    assert next(books).venue == "COINBASE"


def test_command_builds_from_quotes_and_books(tmp_path: Path) -> None:
    files = files_in(tmp_path, FROM_BOTH)
    words = ["features", "build", "--feature-set", str(tmp_path / "set.json")]
    words += [word for file in files for word in ("--data", str(file))]
    words += ["--out", str(tmp_path / "rows.csv")]
    said = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    shown = CliRunner().invoke(app, [*words, "--force"])

    assert said["events"] == 4 * COUNT
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == said["rows"] + 1
    assert "refused data, DATA_LATE" in shown.output
