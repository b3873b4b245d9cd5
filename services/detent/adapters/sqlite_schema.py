"""Declare the tables of the ledger file.

A record is one canonical blob; the columns of `bar_decisions` are generated from it, so they
cannot disagree with what was hashed (decision D23). Nothing is ever updated or deleted.
"""

_APPEND_ONLY = """
CREATE TRIGGER IF NOT EXISTS {table}_no_update BEFORE UPDATE ON {table}
BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END;
CREATE TRIGGER IF NOT EXISTS {table}_no_delete BEFORE DELETE ON {table}
BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END;
"""

# Column, path in the record; order and names are what a reader of the ledger sees.
RECORD_COLUMNS = (
    ("plan_id", "$.plan_id"),
    ("symbol", "$.row.symbol"),
    ("ts_ms", "$.ts_ms"),
    ("kind", "$.kind"),
    ("sequence", "$.sequence"),
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
)

_GENERATED = ",\n  ".join(
    f"{column} GENERATED ALWAYS AS (json_extract(canonical, '{path}')) VIRTUAL"
    for column, path in RECORD_COLUMNS
)

_TABLES = f"""
CREATE TABLE IF NOT EXISTS bar_decisions (
  id INTEGER PRIMARY KEY,
  record_hash TEXT NOT NULL UNIQUE,
  canonical TEXT NOT NULL,
  {_GENERATED}
);
CREATE UNIQUE INDEX IF NOT EXISTS bar_decisions_key
  ON bar_decisions (plan_id, symbol, ts_ms, kind);
CREATE UNIQUE INDEX IF NOT EXISTS bar_decisions_chain
  ON bar_decisions (plan_id, symbol, sequence);
CREATE INDEX IF NOT EXISTS bar_decisions_closes ON bar_decisions (book, symbol, ts_ms);
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
CREATE TABLE IF NOT EXISTS local_answers (
  id INTEGER PRIMARY KEY,
  plan_id TEXT NOT NULL,
  symbol TEXT NOT NULL,
  ts_ms INTEGER NOT NULL,
  kind TEXT NOT NULL,
  canonical TEXT NOT NULL,
  UNIQUE (plan_id, symbol, ts_ms, kind)
);
"""

TABLES = ("bar_decisions", "plan_log", "block_events", "late_answers", "local_answers")
SCHEMA = _TABLES + "".join(_APPEND_ONLY.format(table=table) for table in TABLES)
