"""Holds the newest order books of one symbol and describes the last one before an instant.

Books are large and bars are closed often enough, so a book is only described when a bar closes
or somebody asks, and only the newest books are held: what a closed bar needs is kept with it.
"""

from collections import deque

from detent.contracts.errors import DataConflict, DataLate, InvalidField
from detent.contracts.market import Book, repeats
from detent.contracts.snapshots import L2FeatureSnapshot
from detent.core.features.book import build_l2_snapshot
from detent.core.features.engine import BookConfig

# Levels of both sides of all books held: ten seconds of 20 levels every 100 ms, about 1 MB.
# The newest book is held however deep it is.
LEVELS_HELD_MAX = 4_096


class BookHistory:
    """Holds the newest books of one symbol on one venue, in order of time."""

    def __init__(self, config: BookConfig) -> None:
        """Start without books.

        Args:
            config: How a book is described.
        """
        self._config = config
        self._books: deque[Book] = deque()
        self._levels_held = 0
        self._dropped_any = False

    @property
    def newest_ts_ms(self) -> int:
        """Give the event time of the newest book; 0 before the first."""
        return self._books[-1].ts_ms if self._books else 0

    def add(self, book: Book, *, known_ts_ms: int) -> bool:
        """Take a book.

        Args:
            book: A book of this symbol.
            known_ts_ms: Instant up to which the past is closed; an older book is late, unless
                it was known after that and so changes no reading up to it.

        Returns:
            True when it is new, False when it repeats the last one; when that was first known
            stays so.

        Raises:
            InvalidField: Late, of another venue, or not what is held of the same instant.
        """
        newest = self._books[-1] if self._books else None
        if newest is not None and repeats(book, newest):
            return False
        is_behind = book.ts_ms < known_ts_ms and book.known_ts_ms <= known_ts_ms
        if book.ts_ms < self.newest_ts_ms or is_behind:
            known_ts_ms = max(known_ts_ms, self.newest_ts_ms)
            expected = f"at least {known_ts_ms}: the book is late"
            raise DataLate("ts_ms", book.ts_ms, expected)
        if newest is not None and book.venue != newest.venue:
            expected = f"{newest.venue}, the venue of the books held"
            raise InvalidField("venue", book.venue, expected)
        if newest is not None and book.ts_ms == newest.ts_ms:
            expected = "one book per instant: another is held"
            raise DataConflict("ts_ms", book.ts_ms, expected)
        self._books.append(book)
        self._levels_held += 2 * book.depth
        # An empty book has no levels and takes room all the same.
        while len(self._books) > 1 and self._room_taken > LEVELS_HELD_MAX:
            self._levels_held -= 2 * self._books.popleft().depth
            self._dropped_any = True
        return True

    def before(self, ts_ms: int) -> tuple[L2FeatureSnapshot | None, bool]:
        """Describe the last book before an instant and known by it; say whether it is certain.

        None and True says that there is no book, or none that the contract can describe; None
        and False that it is no longer held.
        """
        for book in reversed(self._books):
            if book.ts_ms < ts_ms and book.known_ts_ms <= ts_ms:
                return self._described(book), True
        return None, not self._dropped_any

    @property
    def _room_taken(self) -> int:
        return self._levels_held + len(self._books)

    def _described(self, book: Book) -> L2FeatureSnapshot | None:
        try:
            return build_l2_snapshot(book, qty_ref=self._config.l2_qty_ref)
        except InvalidField:
            # Prices or quantities so far apart that a figure leaves its range.
            return None
