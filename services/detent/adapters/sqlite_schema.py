"""Declare the tables of the ledger file.

A record is one canonical blob. `decision_records` keeps it beside the key that it is found
by; the view `bar_decisions` generates every other column from the blob, so that what a
reader sees cannot disagree with what was hashed (decision D23). A view and not generated
columns, because those are computed for every row that is written. The keys begin with what
grows, so that new rows touch the same few pages; hashes come in no order, so only their
first quarter is indexed. Nothing is ever updated or deleted.
"""

SCHEMA_VERSION = 1

_APPEND_ONLY = """
CREATE TRIGGER IF NOT EXISTS {table}_no_update BEFORE UPDATE ON {table}
BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END;
CREATE TRIGGER IF NOT EXISTS {table}_no_delete BEFORE DELETE ON {table}
BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END;
"""

# Column, path in the record; order and names are what a reader of the ledger sees.
RECORD_COLUMNS = (
    ("book", "$.book"),
    ("binding_hash", "$.binding_hash"),
    ("trade_set_id", "$.trade_set_id"),
    ("trigger_state", "$.row.trigger_state"),
    ("bar_close", "$.row.bar_close"),
    ("signal_source", "$.signal.signal_source"),
    ("fallback_reason", "$.signal.fallback_reason"),
    ("model_id", "$.signal.model_id"),
    ("model_version_hash", "$.signal.model_version_hash"),
    ("feature_version", "$.signal.feature_version"),
    ("calibration_version", "$.signal.calibration_version"),
    ("features_hash", "$.signal.features_hash"),
    ("p_hat_raw_bps", "$.signal.p_hat_raw_bps"),
    ("p_hat_calibrated_bps", "$.signal.p_hat_calibrated_bps"),
    ("proxy_p_hat_bps", "$.signal.proxy_p_hat_bps"),
    ("p_hat_bps", "$.signal.p_hat_bps"),
    ("signal_strength_bps", "$.signal.signal_strength_bps"),
    ("target_weight_raw_ppm", "$.outcome.target_weight_raw_ppm"),
    ("target_weight_final_ppm", "$.outcome.target_weight_final_ppm"),
    ("order_style", "$.outcome.order_style"),
    ("reasons", "$.outcome.reasons"),
    ("stand_down_until_ts_ms", "$.stand_down.until_ts_ms"),
    ("stand_down_reason", "$.stand_down.reason"),
    ("stand_down_source", "$.stand_down.source"),
)

_GENERATED = ",\n  ".join(
    f"json_extract(canonical, '{path}') AS {column}" for column, path in RECORD_COLUMNS
)

_TABLES = f"""
CREATE TABLE IF NOT EXISTS decision_records (
  id INTEGER PRIMARY KEY,
  plan_id TEXT NOT NULL,
  symbol TEXT NOT NULL,
  ts_ms INTEGER NOT NULL,
  kind TEXT NOT NULL,
  sequence INTEGER NOT NULL,
  record_hash TEXT NOT NULL,
  canonical TEXT NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS decision_records_key
  ON decision_records (ts_ms, plan_id, symbol, kind);
CREATE UNIQUE INDEX IF NOT EXISTS decision_records_chain
  ON decision_records (sequence, plan_id, symbol);
CREATE INDEX IF NOT EXISTS decision_records_hash
  ON decision_records (substr(record_hash, 1, 16));
CREATE VIEW IF NOT EXISTS bar_decisions AS SELECT
  id, plan_id, symbol, ts_ms, kind, sequence, record_hash, canonical,
  {_GENERATED}
FROM decision_records;
CREATE TABLE IF NOT EXISTS plan_log (
  id INTEGER PRIMARY KEY,
  plan_id TEXT NOT NULL,
  event TEXT NOT NULL CHECK (event IN ('opened', 'closed')),
  book TEXT NOT NULL,
  binding_hash TEXT NOT NULL,
  plan TEXT NOT NULL,
  binding TEXT NOT NULL,
  UNIQUE (plan_id, event)
);
CREATE TABLE IF NOT EXISTS block_events (
  id INTEGER PRIMARY KEY,
  at_ms INTEGER NOT NULL,
  method TEXT NOT NULL,
  reason TEXT NOT NULL,
  plan_id TEXT NOT NULL,
  binding_hash TEXT NOT NULL,
  ts_ms INTEGER,
  message TEXT NOT NULL,
  metadata TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS late_answers (
  id INTEGER PRIMARY KEY,
  at_ms INTEGER NOT NULL,
  plan_id TEXT NOT NULL,
  symbol TEXT NOT NULL,
  ts_ms INTEGER NOT NULL,
  kind TEXT NOT NULL,
  record_hash TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS stand_downs (
  id INTEGER PRIMARY KEY,
  at_ms INTEGER NOT NULL,
  book TEXT NOT NULL,
  symbol TEXT NOT NULL,
  source TEXT NOT NULL,
  until_ts_ms INTEGER,
  reason TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS local_answers (
  id INTEGER PRIMARY KEY,
  plan_id TEXT NOT NULL,
  symbol TEXT NOT NULL,
  ts_ms INTEGER NOT NULL,
  kind TEXT NOT NULL,
  canonical TEXT NOT NULL,
  UNIQUE (plan_id, symbol, ts_ms, kind)
);
CREATE TABLE IF NOT EXISTS fills (
  id INTEGER PRIMARY KEY,
  fill_id TEXT NOT NULL UNIQUE,
  plan_id TEXT NOT NULL,
  book TEXT NOT NULL,
  symbol TEXT NOT NULL,
  ts_ms INTEGER NOT NULL,
  canonical TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS outcomes (
  id INTEGER PRIMARY KEY,
  plan_id TEXT NOT NULL,
  symbol TEXT NOT NULL,
  ts_ms INTEGER NOT NULL,
  canonical TEXT NOT NULL,
  UNIQUE (plan_id, symbol, ts_ms)
);
"""

TABLES = (
    "decision_records",
    "plan_log",
    "block_events",
    "late_answers",
    "stand_downs",
    "local_answers",
    "fills",
    "outcomes",
)
SCHEMA = _TABLES + "".join(_APPEND_ONLY.format(table=table) for table in TABLES)
