"""Tell what kind of market data a file holds, and give its items symbol by symbol."""

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import msgspec

from detent.contracts.errors import DataInvalid
from detent.contracts.market import Book, Quote
from detent.core.features.decisive_quotes import are_plain, iter_decisive_quotes
from detent.offline import bars, book_rows, quotes
from detent.offline.book_rows import load_book_rows
from detent.offline.books import load_book_lines
from detent.offline.cells import SYMBOL, columns_of, invalid, raw_cells
from detent.offline.quote_columns import quote_columns_of
from detent.offline.quotes import load_quotes

LINES_SUFFIX = ".jsonl"
WHEEL_SUFFIX = ".whl"


class FileKind(StrEnum):
    """Names what a file may hold."""

    BARS = "bars"
    QUOTES = "quotes"
    BOOKS = "books"


# Which columns tell the kind; no file has those of two.
COLUMNS = {
    FileKind.BARS: bars.COLUMNS,
    FileKind.QUOTES: quotes.COLUMNS,
    FileKind.BOOKS: book_rows.COLUMNS,
}


def kind_of(path: Path) -> FileKind:
    """Tell what a file holds: by its columns, JSON lines and wheels by their name.

    Raises:
        DataInvalid: The file cannot be read, or has the columns of no kind; the error names
            those that it has and those of each kind.
    """
    suffix = path.suffix.lower()
    if suffix in (LINES_SUFFIX, WHEEL_SUFFIX):
        return FileKind.BOOKS if suffix == LINES_SUFFIX else FileKind.BARS
    if suffix not in (".parquet", ".csv"):
        expected = f".parquet, .csv, {LINES_SUFFIX} or {WHEEL_SUFFIX}"
        raise invalid(path.name, suffix or "(no suffix)", expected)
    found = columns_of(path)
    for kind, columns in COLUMNS.items():
        if set(columns) <= set(found):
            return kind
    expected = "; or ".join(f"{kind}: {', '.join(columns)}" for kind, columns in COLUMNS.items())
    raise invalid(path.name, f"columns {', '.join(found) or '(none)'}", expected)


class EventFiles(msgspec.Struct, frozen=True, kw_only=True):
    """Names the files of one replay, at most one of each kind.

    Attributes:
        bars: Finished bars.
        quotes: Best bid and ask.
        books: Order books.
        venue: Exchange of the books, in upper case, where their file does not say.
    """

    bars: Path | None = None
    quotes: Path | None = None
    books: Path | None = None
    venue: str | None = None

    @classmethod
    def of(cls, paths: list[Path], *, venue: str | None) -> "EventFiles":
        """Sort files by what they hold.

        Raises:
            DataInvalid: A file cannot be read, is of no kind, or is the second of its kind.
        """
        found: dict[str, Path] = {}
        for path in paths:
            kind = kind_of(path)
            if kind in found:
                raise invalid(path.name, f"{kind}, as {found[kind].name}", "one file of each kind")
            found[kind] = path
        return cls(
            bars=found.get("bars"),
            quotes=found.get("quotes"),
            books=found.get("books"),
            venue=venue,
        )

    def symbols(self) -> tuple[str, ...]:
        """List the symbols of quotes and books, in alphabetical order."""
        found: set[str] = set()
        if self.quotes is not None:
            found |= _symbols_of_rows(self.quotes)
        if self.books is not None:
            is_lines = self.books.suffix.lower() == LINES_SUFFIX
            found |= (
                {book.symbol for book in load_book_lines(self.books)}
                if is_lines
                else _symbols_of_rows(self.books)
            )
        return tuple(sorted(found))

    def quotes_of(self, symbol: str) -> Iterator[Quote]:
        """Yield the quotes of a symbol, in order of event time."""
        if self.quotes is not None:
            yield from load_quotes(self.quotes, symbol=symbol)

    def deciding_quotes_of(self, symbol: str, interval_ms: int) -> Iterator[Quote]:
        """Yield the quotes of a symbol that decide bars of a length, in order of event time.

        All of them, where more than bars and closes may be asked of them: in text, with times of
        availability, or with one among them that is none, which then is refused by its row.
        """
        if self.quotes is not None and _is_plain(self.quotes):
            columns = quote_columns_of(self.quotes, symbol)
            if are_plain(columns):
                yield from iter_decisive_quotes(columns, interval_ms)
                return
        yield from self.quotes_of(symbol)

    def books_of(self, symbol: str) -> Iterator[Book]:
        """Yield the books of a symbol, in order of event time."""
        if self.books is None:
            return
        if self.books.suffix.lower() != LINES_SUFFIX:
            yield from load_book_rows(self.books, venue=self.venue, symbol=symbol)
            return
        newest_ts_ms = 0
        for book in load_book_lines(self.books, symbol=symbol):
            if book.ts_ms <= newest_ts_ms:
                raise _out_of_order(self.books.name, book, newest_ts_ms)
            newest_ts_ms = book.ts_ms
            yield book


def _is_plain(path: Path) -> bool:
    return path.suffix.lower() == ".parquet" and not set(quotes.OPTIONAL) & set(columns_of(path))


def _out_of_order(file: str, book: Book, newest_ts_ms: int) -> DataInvalid:
    found = f"{book.symbol} at {book.ts_ms}"
    return invalid(file, found, f"after {newest_ts_ms}, the book before", column="ts_ms")


def _symbols_of_rows(path: Path) -> set[str]:
    found: set[str] = set()
    for row, cells in raw_cells(path, (SYMBOL,)):
        if not isinstance(cells[SYMBOL], str) or not cells[SYMBOL]:
            raise invalid(path.name, cells[SYMBOL], "a symbol", row=row, column=SYMBOL)
        found.add(cells[SYMBOL])
    return found
