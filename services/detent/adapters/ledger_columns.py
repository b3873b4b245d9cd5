"""Name the shipped tables and their columns, for those who need no more of the schema.

`ledger_tables` declares them; a test holds the two equal. Importing it costs a second, which a
process that writes records does not have at its start.
"""

_BAR = ("plan_id", "symbol", "ts_ms")
# What makes a bound plan, in the order in which `sqlite_ledger.bound_of` reads it, and where it
# stands; only an arm of a rollout has the last two.
BOUND = "plan, binding, rollout, shadow_binding"
PLANS = "plan_log AS opened LEFT JOIN plan_rollouts USING (plan_id)"

# Tables in the order in which they are shipped: a record never arrives before its plan.
SHIPPED: dict[str, tuple[str, ...]] = {
    "plan_log": ("plan_id", "event", "book", "binding_hash", "plan", "binding"),
    "plan_rollouts": ("plan_id", "rollout", "shadow_binding"),
    "decision_records": (*_BAR, "kind", "sequence", "record_hash", "canonical"),
    "shadow_signals": (*_BAR, "kind", "binding_hash", "canonical"),
    "fills": ("fill_id", *_BAR, "book", "canonical"),
    "outcomes": (*_BAR, "canonical"),
    "stand_downs": ("at_ms", "book", "symbol", "set_by", "until_ts_ms", "reason"),
    "late_answers": ("at_ms", *_BAR, "kind", "record_hash"),
    "local_answers": (*_BAR, "kind", "canonical"),
    "block_events": (
        "at_ms",
        "method",
        "reason",
        "plan_id",
        "binding_hash",
        "ts_ms",
        "message",
        "metadata",
    ),
    "results_summary": ("plan_id", "book", "canonical"),
    "replans": (
        "at_ms",
        "book",
        "plan_id",
        "new_plan_id",
        "ts_ms",
        "outcome",
        "reason",
        "material_hash",
        "canonical",
    ),
    "anchors": ("anchor_index", "at_ms", "anchor_hash", "canonical", "key_id", "signature"),
}
# The step of `ledger_migrations` that a database must have reached.
STEP = "0005"
WRITER = "detent_writer"
