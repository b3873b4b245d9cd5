"""Keep market data in Redis: one log for all replicas, and what each symbol needs to be warm.

A position names an entry of the log and the write that made it, so that a log that was flushed,
rolled back or trimmed past a reader is recognised, whatever happened to the connection.
"""

import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

import redis.asyncio
from google.protobuf.message import DecodeError, Message
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from detent.adapters.redis_scripts import APPEND
from detent.contracts.calls.feature import MarketEvent
from detent.contracts.errors import InvalidField, Overloaded, ServiceUnavailable
from detent.contracts.stored import StoredMarketData
from detent.contracts.wire import from_wire, message_class, to_wire

# Part of every key: another form of the content gets keys of its own.
SCHEMA = 1
# Longer than a replica may be away and still catch up without reading everything again.
LOG_ENTRIES_MAX = 65_536
ENTRIES_PER_READ = 1_000
REPLY_S_MAX = 1.0
WAIT_MS = 200
# Redis may forget nothing by itself: what it evicts would be missing without a trace.
POLICIES = ("noeviction", "volatile-")
# How Redis, wherever it was refused, and our own script say that there is no room.
FULL = ("command not allowed when used memory", "STREAMS as many as may be held")
BAR = "bar"
Entry = tuple[bytes, dict[bytes, bytes]]
Id = tuple[int, int]


class RedisMarket:
    """Appends market data durably, and gives them back in the order in which all see them.

    Every call is over within some seconds, whatever Redis does. It raises `Overloaded` when Redis
    is full and `ServiceUnavailable` when it cannot be reached, is slow or answers nonsense; then
    what was appended may or may not be there, and appending it again does no harm.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str,
        lengths: Mapping[str, int],
        symbols_max: int,
        log_entries_max: int = LOG_ENTRIES_MAX,
    ) -> None:
        """Open no connection yet.

        Args:
            url: For example `redis://host:6379/0`.
            prefix: What all keys begin with.
            lengths: How many events to keep of one symbol, by kind (see `kind_of`).
            symbols_max: Symbols beyond which a new one is refused.
            log_entries_max: Entries of the log, about.
        """
        # The library types its answers as anything that any of its settings could make of them.
        self._redis: Any = redis.asyncio.Redis.from_url(
            url,
            protocol=2,
            socket_timeout=REPLY_S_MAX,
            socket_connect_timeout=REPLY_S_MAX,
            # Who repeats is decided where it is known what a repetition means.
            retry=Retry(NoBackoff(), 0),
        )
        self._base = f"{prefix}:market:{SCHEMA}"
        self._log = f"{self._base}:log"
        self._streams = f"{self._base}:streams"
        self._lengths = dict(lengths)
        self._streams_max = symbols_max * len(self._lengths)
        self._log_entries_max = log_entries_max
        self._append = self._redis.register_script(APPEND)

    def keeps(self, event: MarketEvent) -> bool:
        """Say whether events of this kind are kept; nobody has a use for the others."""
        return kind_of(event) in self._lengths

    async def check(self) -> None:
        """Refuse a Redis that may forget by itself."""
        with _translated():
            facts = await self._redis.info("memory")
        policy = str(facts.get("maxmemory_policy", POLICIES[0]))
        if not policy.startswith(POLICIES):
            raise ServiceUnavailable(
                f"maxmemory-policy of Redis: found {policy}, expected {POLICIES[0]}",
                service="redis",
                found=policy,
                expected=POLICIES[0],
            )

    async def append(self, events: Sequence[MarketEvent]) -> tuple[str, str]:
        """Append events as one piece and give the positions before and after them."""
        keys: dict[str, int] = {}
        arguments: list[Any] = [secrets.token_hex(8), self._log_entries_max, self._streams_max]
        for event in events:
            name, item = _item(event)
            kind = kind_of(event)
            key = f"{self._base}:{kind}:{item.symbol}"
            arguments += [
                keys.setdefault(key, len(keys) + 3),
                item.ts_ms,
                self._lengths[kind],
                int(name == BAR),
                to_wire(event).SerializeToString(),
            ]
        with _translated():
            before, after = await self._append([self._log, self._streams, *keys], arguments)
        return before.decode(), after.decode()

    async def tip(self) -> str:
        """Give the position of the newest entry; empty when there is none."""
        with _translated():
            newest = await self._redis.xrevrange(self._log, count=1)
        return _position(newest[0]) if newest else ""

    async def after(self, position: str) -> list[tuple[str, MarketEvent]] | None:
        """Give the next entries, each with its position; None when what follows is not known."""
        start = _id(position)
        with _translated():
            entries: list[Entry] = await self._redis.xrange(
                self._log, min=_text(start), count=ENTRIES_PER_READ
            )
        if position:
            if not entries or _position(entries[0]) != position:
                return None
            entries = entries[1:]
        for entry in entries:
            found = _id(entry[0].decode())
            generation = start[0] or found[0]
            if found != (generation, start[1] + 1):
                return None
            start = found
        return [(_position(entry), _event(entry)) for entry in entries]

    async def wait(self, position: str) -> None:
        """Wait until there is something behind a position, for a fraction of a second at most."""
        streams: Any = {self._log: _text(_id(position))}
        with _translated():
            await self._redis.xread(streams, count=1, block=WAIT_MS)

    async def stored(self, until: str) -> AsyncIterator[StoredMarketData]:
        """Give what is kept of each symbol, up to a position."""
        with _translated():
            members = await self._redis.smembers(self._streams)
        by_symbol: dict[str, list[str]] = {}
        for member in members:
            key = member.decode()
            kind, _, symbol = key.removeprefix(f"{self._base}:").partition(":")
            if kind in self._lengths:
                by_symbol.setdefault(symbol, []).append(key)
        for symbol, keys in sorted(by_symbol.items()):
            yield await self._stored_of(symbol, sorted(keys), _id(until))

    async def _stored_of(self, symbol: str, keys: Sequence[str], until: Id) -> StoredMarketData:
        entries: list[tuple[Id, MarketEvent]] = []
        short_intervals = []
        cut_ts_ms = 0
        for key in keys:
            kind = key.removeprefix(f"{self._base}:").partition(":")[0]
            held = await self._entries(key, until)
            entries += [(_id(entry[0].decode()), _event(entry)) for entry in held]
            if not held or int(held[0][1][b"k"]) == 1:
                continue
            if not kind.startswith(BAR):
                cut_ts_ms = max(cut_ts_ms, int(held[0][1][b"t"]))
            elif len(held) < self._lengths[kind] - 1:
                short_intervals.append(int(kind.removeprefix(BAR)))
        entries.sort(key=lambda entry: entry[0])
        return StoredMarketData(
            symbol=symbol,
            events=tuple(event for _, event in entries),
            cut_ts_ms=cut_ts_ms,
            short_intervals_ms=tuple(short_intervals),
        )

    async def _entries(self, key: str, until: Id) -> list[Entry]:
        held: list[Entry] = []
        # Without a log, what is left of an earlier one is all there is.
        start, last = "-", _text(until) if until[0] else "+"
        while True:
            with _translated():
                part: list[Entry] = await self._redis.xrange(
                    key, min=start, max=last, count=ENTRIES_PER_READ
                )
            held += part
            if len(part) < ENTRIES_PER_READ:
                return held
            start = f"({part[-1][0].decode()}"

    async def close(self) -> None:
        """Close the connections."""
        with contextlib.suppress(RedisError):
            await self._redis.aclose()


def kind_of(event: MarketEvent) -> str:
    """Name the kind of an event: its field, and for bars the interval, for example `bar60000`."""
    name, item = _item(event)
    return f"{BAR}{item.interval_ms}" if name == BAR else name


def _item(event: MarketEvent) -> tuple[str, Any]:
    found = ((name, getattr(event, name)) for name in MarketEvent.__struct_fields__)
    return next((name, item) for name, item in found if item is not None)


def _event(entry: Entry) -> MarketEvent:
    kind: type[Message] = message_class(MarketEvent.__name__)
    try:
        return from_wire(MarketEvent, kind.FromString(entry[1][b"e"]))
    except (DecodeError, InvalidField, KeyError) as error:
        # Without this entry the state would not be the one that the other replicas have.
        raise ServiceUnavailable(
            f"entry {entry[0].decode()} of the market log is not one that is known here",
            service="redis",
        ) from error


def _position(entry: Entry) -> str:
    return f"{entry[0].decode()}:{entry[1][b'n'].decode()}"


def _id(position: str) -> Id:
    generation, _, number = position.partition(":")[0].partition("-")
    return int(generation or 0), int(number or 0)


def _text(found: Id) -> str:
    return f"{found[0]}-{found[1]}"


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Say in our words what went wrong; addresses and replies stay in the chain of causes."""
    try:
        yield
    except ResponseError as error:
        if any(word in str(error) for word in FULL):
            raise Overloaded("the market store is full", limit="redis") from error
        raise _unavailable(error) from error
    except (TimeoutError, RedisError, OSError) as error:
        raise _unavailable(error) from error


def _unavailable(error: Exception) -> ServiceUnavailable:
    cause = type(error).__name__
    return ServiceUnavailable(
        f"the market store did not do as asked: {cause}", service="redis", cause=cause
    )
