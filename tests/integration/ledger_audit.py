"""Audits a ledger file from outside, with none of the product's code."""

import hashlib
import json
import sqlite3
from pathlib import Path
from typing import Any


def read_records(ledger_file: Path) -> list[dict[str, Any]]:
    """Read every record in the order of writing."""
    db = sqlite3.connect(f"file:{ledger_file}?mode=ro", uri=True)
    try:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        sql = "SELECT plan_id, symbol, ts_ms, kind, sequence, record_hash, canonical"
        names = ("plan_id", "symbol", "ts_ms", "kind", "sequence", "record_hash", "canonical")
        rows = db.execute(f"{sql} FROM decision_records ORDER BY id").fetchall()
        return [dict(zip(names, row, strict=True)) for row in rows]
    finally:
        db.close()


def assert_chains_whole(records: list[dict[str, Any]]) -> None:
    """Recompute every hash and follow every link."""
    heads: dict[tuple[str, str], tuple[int, str]] = {}
    keys = set()
    for row in records:
        fields = json.loads(row["canonical"])
        assert hashlib.sha256(row["canonical"].encode()).hexdigest() == row["record_hash"]
        for name in ("plan_id", "ts_ms", "kind", "sequence"):
            assert fields[name] == row[name]
        assert fields["row"]["symbol"] == row["symbol"]
        chain = (row["plan_id"], row["symbol"])
        sequence, previous_hash = heads.get(chain, (-1, "0" * 64))
        assert row["sequence"] == sequence + 1
        assert fields["previous_hash"] == previous_hash
        heads[chain] = (row["sequence"], row["record_hash"])
        key = (*chain, row["ts_ms"], row["kind"])
        assert key not in keys
        keys.add(key)
