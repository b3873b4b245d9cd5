"""A ledger that several processes walk over together is judged as by one."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from tests.random_decisions import record_courses

from detent.adapters.ledger_auditing import Audit, audit
from detent.adapters.ledger_reading import LedgerReader, PostgresReader, SqliteReader
from detent.adapters.ledger_replaying import replay_all
from detent.adapters.ledger_shipping import LedgerShipper, ShippingOptions
from detent.core.ledger.anchor import Anchored

PATIENCE_S = 60.0


@pytest.fixture(name="path", scope="module")
def _path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shared") / "ledger.sqlite"
    assert record_courses(path, seed=3, plans=12, bars=12) > 500
    return path


@pytest.fixture(name="reader", params=["file", "postgresql"])
def _reader(request: pytest.FixtureRequest, path: Path) -> LedgerReader:
    if request.param == "file":
        return SqliteReader(path)
    url: str = request.getfixturevalue("ledger_url")
    shipper = LedgerShipper(path, ShippingOptions(url=url, interval_s=0.01))
    shipper.start()
    while not (shipper.state.is_connected and shipper.state.lag_rows == 0):
        time.sleep(0.01)
    assert shipper.stop(PATIENCE_S)
    return PostgresReader(url)


def test_three_processes_find_what_one_finds(reader: LedgerReader) -> None:
    alone, shared = audit(reader, []), audit(reader, [], workers=3, shared_rows_min=1)

    assert facts(shared) == facts(alone)
    assert alone.is_whole
    assert len(alone.chains.heads) > 3
    assert replay_all(reader, workers=3, shared_rows_min=1) == replay_all(reader)


def test_symbols_are_counted_in_the_order_of_bytes(reader: LedgerReader) -> None:
    counts = reader.symbol_counts("")

    assert [symbol for symbol, _ in counts] == sorted(symbol for symbol, _ in counts)
    assert sum(count for _, count in counts) == audit(reader, []).chains.record_count


def test_processes_find_what_is_wrong_wherever_it_lies(path: Path, tmp_path: Path) -> None:
    """One record is bent and a whole chain is gone that an anchor has seen."""
    bent = tmp_path / "bent.sqlite"
    with closing(sqlite3.connect(path)) as whole, closing(sqlite3.connect(bent)) as copy:
        whole.backup(copy)
        copy.execute("DROP TRIGGER decision_records_no_update")
        bend = "UPDATE decision_records SET canonical = replace(canonical, 'bar_close', 'bar')"
        copy.execute(f"{bend} WHERE id = (SELECT max(id) FROM decision_records)")
        copy.commit()
    reader = SqliteReader(bent)
    pins = {("gone", "ZZZ"): {3: "0" * 64}, ("gone", "0"): {1: "0" * 64}}
    anchored = [Anchored(count=1, last=None, pins=pins, tables={}, breaks=())]
    alone = audit(reader, anchored)
    shared = audit(reader, anchored, workers=3, shared_rows_min=1)

    assert len(alone.chains.breaks) == 3
    assert facts(shared) == facts(alone)
    assert replay_all(reader, workers=3, shared_rows_min=1).difference_count == 1


def facts(found: Audit) -> tuple[object, ...]:
    """Give what is found, in whichever order."""
    chains = found.chains
    breaks = {(one.plan_id, one.symbol, one.sequence, one.message) for one in chains.breaks}
    heads = {(one.plan_id, one.symbol, one.sequence, one.record_hash) for one in chains.heads}
    return chains.record_count, chains.unanchored_count, breaks, heads
