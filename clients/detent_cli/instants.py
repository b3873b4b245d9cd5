"""Read and write instants as people do: in UTC, or with a zone that is named."""

from datetime import UTC, datetime

from detent.contracts.errors import InvalidField

EXPECTED = "an instant with its zone, as in 2026-11-21T18:00:00Z"


def instant_ms(name: str, text: str) -> int:
    """Read an instant; one without a zone would mean another time on another machine.

    Returns:
        Unix milliseconds.

    Raises:
        InvalidField: It is no instant, or says no zone.
    """
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidField(name, text or "(missing)", EXPECTED) from error
    if instant.tzinfo is None:
        raise InvalidField(name, text, EXPECTED)
    since = instant - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000 + since.microseconds // 1_000


def instant_text(ts_ms: int) -> str:
    """Write an instant so that it can be read again, to the second or, where it matters, finer."""
    instant = datetime.fromtimestamp(ts_ms // 1_000, tz=UTC).replace(
        microsecond=ts_ms % 1_000 * 1_000
    )
    finest = "milliseconds" if instant.microsecond else "seconds"
    return instant.isoformat(timespec=finest).removesuffix("+00:00") + "Z"


def second_text(ts_ms: int) -> str:
    """Write an instant for a table, to the second."""
    return f"{datetime.fromtimestamp(ts_ms // 1_000, tz=UTC):%Y-%m-%d %H:%M:%S}"


def day_text(ts_ms: int) -> str:
    """Write the day of an instant."""
    return instant_text(ts_ms)[:10]
