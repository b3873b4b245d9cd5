"""Read header blocks (HPACK, RFC 7541) to text, at a few microseconds each.

The `hpack` package reads numbers and Huffman codes and has the static table; what is here is the
walk over a block and the table of what was sent before, which are most of the cost of a call.
"""

from collections import deque
from collections.abc import Mapping

from hpack.exceptions import HPACKError
from hpack.hpack import decode_integer
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

Header = tuple[str, str]
_STATIC: tuple[Header, ...] = tuple(
    (name.decode(), value.decode()) for name, value in HeaderTable.STATIC_TABLE
)
TABLE_BYTES_MAX = 4_096
# What an entry counts beside its text (RFC 7541, section 4.1).
ENTRY_BYTES = 32
# A caller has few kinds of calls; each block is at most as long as the table has entries.
KNOWN_MAX = 64
INDEXED, INCREMENTAL, SIZE_UPDATE, HUFFMAN = 0x80, 0x40, 0x20, 0x80


class HeaderReader:
    """Reads the header blocks of one connection, in their order."""

    def __init__(self, limit: int) -> None:
        """Start with an empty table.

        Args:
            limit: Bytes that the headers of one block may have together, read out.
        """
        self._limit = limit
        self._entries: deque[Header] = deque()
        self._sizes: deque[int] = deque()
        self._bytes = 0
        self._bytes_max = TABLE_BYTES_MAX
        # Blocks that are nothing but places in the table, for as long as the table stays.
        self._known: dict[bytes, Mapping[str, str]] = {}

    def read(self, block: bytes) -> Mapping[str, str]:
        """Give the headers of a block; the last counts where a name comes twice.

        Raises:
            HPACKError: The block is malformed, or its headers are too long. The table is then
                no longer the peer's: the connection is over.
        """
        known = self._known.get(block)
        if known is not None:
            return known
        headers: dict[str, str] = {}
        at, end, total = 0, len(block), 0
        try:
            while at < end:
                first = block[at]
                if first & INDEXED:
                    if first == 0xFF:  # noqa: PLR2004  The number goes on in the next byte.
                        index, used = decode_integer(block[at:], 7)
                        at += used
                    else:
                        index = first & 0x7F
                        at += 1
                    name, value = self._entry(index)
                elif not first & INCREMENTAL and first & SIZE_UPDATE:
                    at += self._resize(block[at : at + 8], has_begun=bool(headers))
                    continue
                else:
                    name, value, at = self._literal(block, at, first)
                total += len(name) + len(value) + ENTRY_BYTES
                if total > self._limit:
                    raise HPACKError(f"headers of over {self._limit} bytes")
                headers[name] = value
        except (IndexError, UnicodeDecodeError) as error:
            raise HPACKError(f"a malformed header block: {error}") from error
        if block and min(block) >= INDEXED and len(self._known) < KNOWN_MAX:
            self._known[block] = headers
        return headers

    def _entry(self, index: int) -> Header:
        if index <= 0:
            raise HPACKError("header index 0")
        if index <= len(_STATIC):
            return _STATIC[index - 1]
        return self._entries[index - len(_STATIC) - 1]

    def _resize(self, content: bytes, *, has_begun: bool) -> int:
        size, used = decode_integer(content, 5)
        if has_begun or size > TABLE_BYTES_MAX:
            raise HPACKError(f"a table size of {size}, within a block or over what we take")
        self._bytes_max = size
        self._known.clear()
        self._evict()
        return int(used)

    def _literal(self, block: bytes, at: int, first: int) -> tuple[str, str, int]:
        is_kept = bool(first & INCREMENTAL)
        index, used = decode_integer(block[at : at + 8], 6 if is_kept else 4)
        at += used
        if index:
            name = self._entry(index)[0]
        else:
            name, at = _text(block, at)
        value, at = _text(block, at)
        if is_kept:
            self._add(name, value)
        return name, value, at

    def _add(self, name: str, value: str) -> None:
        size = len(name.encode()) + len(value.encode()) + ENTRY_BYTES
        self._known.clear()
        self._entries.appendleft((name, value))
        self._sizes.appendleft(size)
        self._bytes += size
        self._evict()

    def _evict(self) -> None:
        while self._bytes > self._bytes_max:
            self._bytes -= self._sizes.pop()
            self._entries.pop()


def _text(block: bytes, at: int) -> tuple[str, int]:
    is_coded = block[at] & HUFFMAN
    size, used = decode_integer(block[at : at + 8], 7)
    start = at + used
    stop = start + size
    content = block[start:stop]
    if len(content) != size:
        raise HPACKError("a header that is cut off")
    return (decode_huffman(content) if is_coded else content).decode(), stop
