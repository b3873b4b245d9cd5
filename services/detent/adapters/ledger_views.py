"""Generate what readers see of the ledger, and guard its tables against changes.

The views take their columns from the canonical text of each record (decision D23). A view and
not generated columns, because those are computed for every row that is written.
"""

from detent.adapters.ledger_tables import POSTGRESQL
from detent.adapters.sqlite_schema import BLOCK_EVENTS_KEPT

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
_KEY = "plan_id, symbol, ts_ms, kind, sequence, record_hash"
_INTEGER = ("_bps", "_ppm", "_ts_ms")


def view_statements(dialect: str) -> tuple[str, ...]:
    """Give the statements that make the two views of the records."""
    return _postgresql_views() if dialect == POSTGRESQL else _sqlite_views()


def _sqlite_views() -> tuple[str, ...]:
    columns = ",\n  ".join(
        f"json_extract(canonical, '{path}') AS {column}" for column, path in RECORD_COLUMNS
    )
    return (
        (
            f"CREATE VIEW bar_decisions AS SELECT\n  id, {_KEY}, canonical,\n  {columns}\n"
            "FROM decision_records"
        ),
        (
            f"CREATE VIEW overrides AS SELECT decision_records.id, {_KEY},"
            " each.key AS position, each.value AS reason,"
            " json_extract(canonical, '$.outcome.precedence_tier') AS precedence_tier"
            " FROM decision_records, json_each(canonical, '$.outcome.reasons') AS each"
        ),
    )


def _postgresql_views() -> tuple[str, ...]:
    columns = ",\n  ".join(_extracted(column, path) for column, path in RECORD_COLUMNS)
    parsed = "FROM (SELECT *, canonical::jsonb AS record FROM decision_records) AS records"
    return (
        (
            f"CREATE VIEW bar_decisions AS SELECT\n  source, id, {_KEY}, canonical,\n  {columns}\n"
            f"{parsed}"
        ),
        (
            f"CREATE VIEW overrides AS SELECT source, id, {_KEY},"
            " each.position - 1 AS position, each.reason AS reason,"
            " (record #>> '{outcome,precedence_tier}')::bigint AS precedence_tier "
            f"{parsed}, jsonb_array_elements_text(record #> '{{outcome,reasons}}')"
            " WITH ORDINALITY AS each (reason, position)"
        ),
    )


def _extracted(column: str, path: str) -> str:
    keys = path.removeprefix("$.").replace(".", ",")
    if column == "reasons":
        # As it stands in the text: jsonb would write a list with spaces.
        return f"(canonical::json #>> '{{{keys}}}') AS {column}"
    cast = "::bigint" if column.endswith(_INTEGER) else ""
    return f"(record #>> '{{{keys}}}'){cast} AS {column}"


def guard_statements(dialect: str, table: str) -> tuple[str, ...]:
    """Give the statements that make a table refuse every update and delete.

    Two local tables forget in time, and only what their time is over for.
    """
    if dialect == POSTGRESQL:
        trigger = f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE"
        return (f"{trigger} ON {table} FOR EACH STATEMENT EXECUTE FUNCTION detent_append_only()",)
    refuse = f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
    unless = {
        "block_events": f" WHEN OLD.id > (SELECT MAX(id) FROM block_events) - {BLOCK_EVENTS_KEPT}",
        "model_inputs": " WHEN OLD.expires_ms > CAST(strftime('%s', 'now') AS INTEGER) * 1000",
    }.get(table, "")
    return (
        f"CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table}\n{refuse}",
        f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table}{unless}\n{refuse}",
    )


# PostgreSQL's triggers call a function; the statement that raises is the same for all tables.
GUARD_FUNCTION = """
CREATE FUNCTION detent_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$
"""
