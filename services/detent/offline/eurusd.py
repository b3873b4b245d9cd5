"""Read the hourly EURUSD bars that the MIT-licensed wheel of gym-anytrading carries.

The wheel is read as the zip file that it is: nothing of it is installed or run, and no
data file has to be kept in this repository.
"""

import csv
import datetime as dt
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

from detent.offline.bars import NUMBERS, BarTable, RawBar, raw_bar, table_of
from detent.offline.cells import invalid

WHEEL_MEMBER = "gym_anytrading/datasets/data/FOREX_EURUSD_1H_ASK.csv"
MEMBER_BYTES_MAX = 4 * 2**20
SYMBOL = "EURUSD"
TIME_FORM = "%d.%m.%Y %H:%M:%S.%f"


def load_eurusd_bars(wheel: Path) -> BarTable:
    """Read the bars out of the wheel.

    Prices are asks. The times are open times; they are read as UTC, in which the weeks
    begin when the market opens.

    Args:
        wheel: Path of the wheel of gym-anytrading 2.0.0.

    Raises:
        DataInvalid: The file is no such wheel, or a row is not what it should be.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            size = archive.getinfo(WHEEL_MEMBER).file_size
            if size > MEMBER_BYTES_MAX:
                raise invalid(wheel.name, f"{size} bytes", f"at most {MEMBER_BYTES_MAX}")
            text = archive.read(WHEEL_MEMBER).decode("utf-8")
    except (OSError, zipfile.BadZipFile, KeyError, UnicodeDecodeError) as error:
        raise invalid(wheel.name, error, f"a wheel that holds {WHEEL_MEMBER}") from error
    name = WHEEL_MEMBER.rpartition("/")[2]
    return table_of(name, _rows(name, text))


def _rows(name: str, text: str) -> Iterator[RawBar]:
    reader = csv.DictReader(io.StringIO(text))
    expected = ("Time", *(column.capitalize() for column in NUMBERS))
    if tuple(reader.fieldnames or ()) != expected:
        raise invalid(name, f"columns {reader.fieldnames}", ", ".join(expected))
    for row, cells in enumerate(reader, start=1):
        numbers = {column: cells[column.capitalize()] for column in NUMBERS}
        ts_ms = _open_ts_ms(name, row, cells["Time"])
        yield raw_bar(name, row, {"ts_ms": ts_ms, "symbol": SYMBOL, **numbers})


def _open_ts_ms(name: str, row: int, text: str) -> int:
    try:
        opened = dt.datetime.strptime(text, TIME_FORM).replace(tzinfo=dt.UTC)
    except (ValueError, TypeError) as error:
        raise invalid(name, text, "DD.MM.YYYY HH:MM:SS.mmm", row=row, column="Time") from error
    return round(opened.timestamp() * 1000)
