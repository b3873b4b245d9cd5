CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL,
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

CREATE TABLE decision_records (
	id INTEGER NOT NULL,
	plan_id TEXT NOT NULL,
	symbol TEXT NOT NULL,
	ts_ms INTEGER NOT NULL,
	kind TEXT NOT NULL,
	sequence INTEGER NOT NULL,
	record_hash TEXT NOT NULL,
	canonical TEXT NOT NULL,
	PRIMARY KEY (id)
);

CREATE UNIQUE INDEX decision_records_key ON decision_records (ts_ms, plan_id, symbol, kind);

CREATE UNIQUE INDEX decision_records_chain ON decision_records (sequence, plan_id, symbol);

CREATE TABLE plan_log (
	id INTEGER NOT NULL,
	plan_id TEXT NOT NULL,
	event TEXT NOT NULL,
	book TEXT NOT NULL,
	binding_hash TEXT NOT NULL,
	"plan" TEXT NOT NULL,
	binding TEXT NOT NULL,
	PRIMARY KEY (id),
	CHECK (event IN ('opened', 'closed')),
	UNIQUE (plan_id, event)
);

CREATE TABLE block_events (
	id INTEGER NOT NULL,
	at_ms INTEGER NOT NULL,
	method TEXT NOT NULL,
	reason TEXT NOT NULL,
	plan_id TEXT NOT NULL,
	binding_hash TEXT NOT NULL,
	ts_ms INTEGER,
	message TEXT NOT NULL,
	metadata TEXT NOT NULL,
	PRIMARY KEY (id)
);

CREATE TABLE late_answers (
	id INTEGER NOT NULL,
	at_ms INTEGER NOT NULL,
	plan_id TEXT NOT NULL,
	symbol TEXT NOT NULL,
	ts_ms INTEGER NOT NULL,
	kind TEXT NOT NULL,
	record_hash TEXT NOT NULL,
	PRIMARY KEY (id)
);

CREATE TABLE local_answers (
	id INTEGER NOT NULL,
	plan_id TEXT NOT NULL,
	symbol TEXT NOT NULL,
	ts_ms INTEGER NOT NULL,
	kind TEXT NOT NULL,
	canonical TEXT NOT NULL,
	PRIMARY KEY (id),
	UNIQUE (plan_id, symbol, ts_ms, kind)
);

CREATE TRIGGER decision_records_no_update BEFORE UPDATE ON decision_records
BEGIN SELECT RAISE(ABORT, 'decision_records is append-only'); END;

CREATE TRIGGER decision_records_no_delete BEFORE DELETE ON decision_records
BEGIN SELECT RAISE(ABORT, 'decision_records is append-only'); END;

CREATE TRIGGER plan_log_no_update BEFORE UPDATE ON plan_log
BEGIN SELECT RAISE(ABORT, 'plan_log is append-only'); END;

CREATE TRIGGER plan_log_no_delete BEFORE DELETE ON plan_log
BEGIN SELECT RAISE(ABORT, 'plan_log is append-only'); END;

CREATE TRIGGER late_answers_no_update BEFORE UPDATE ON late_answers
BEGIN SELECT RAISE(ABORT, 'late_answers is append-only'); END;

CREATE TRIGGER late_answers_no_delete BEFORE DELETE ON late_answers
BEGIN SELECT RAISE(ABORT, 'late_answers is append-only'); END;

CREATE TRIGGER local_answers_no_update BEFORE UPDATE ON local_answers
BEGIN SELECT RAISE(ABORT, 'local_answers is append-only'); END;

CREATE TRIGGER local_answers_no_delete BEFORE DELETE ON local_answers
BEGIN SELECT RAISE(ABORT, 'local_answers is append-only'); END;

CREATE TABLE shadow_signals (
	id INTEGER NOT NULL,
	plan_id TEXT NOT NULL,
	symbol TEXT NOT NULL,
	ts_ms INTEGER NOT NULL,
	kind TEXT NOT NULL,
	binding_hash TEXT NOT NULL,
	canonical TEXT NOT NULL,
	PRIMARY KEY (id),
	UNIQUE (ts_ms, plan_id, symbol, kind, binding_hash)
);

CREATE TABLE fills (
	id INTEGER NOT NULL,
	fill_id TEXT NOT NULL,
	plan_id TEXT NOT NULL,
	symbol TEXT NOT NULL,
	ts_ms INTEGER NOT NULL,
	book TEXT NOT NULL,
	canonical TEXT NOT NULL,
	PRIMARY KEY (id),
	UNIQUE (fill_id)
);

CREATE TABLE outcomes (
	id INTEGER NOT NULL,
	plan_id TEXT NOT NULL,
	symbol TEXT NOT NULL,
	ts_ms INTEGER NOT NULL,
	canonical TEXT NOT NULL,
	PRIMARY KEY (id),
	UNIQUE (plan_id, symbol, ts_ms)
);

CREATE TABLE stand_downs (
	id INTEGER NOT NULL,
	at_ms INTEGER NOT NULL,
	book TEXT NOT NULL,
	symbol TEXT NOT NULL,
	set_by TEXT NOT NULL,
	until_ts_ms INTEGER,
	reason TEXT NOT NULL,
	PRIMARY KEY (id)
);

CREATE TABLE results_summary (
	id INTEGER NOT NULL,
	plan_id TEXT NOT NULL,
	book TEXT NOT NULL,
	canonical TEXT NOT NULL,
	PRIMARY KEY (id),
	UNIQUE (plan_id)
);

CREATE TABLE anchors (
	id INTEGER NOT NULL,
	anchor_index INTEGER NOT NULL,
	at_ms INTEGER NOT NULL,
	anchor_hash TEXT NOT NULL,
	canonical TEXT NOT NULL,
	key_id TEXT NOT NULL,
	signature TEXT NOT NULL,
	PRIMARY KEY (id),
	UNIQUE (anchor_index)
);

CREATE TABLE ledger_identity (
	id INTEGER NOT NULL CHECK (id = 1),
	ledger_id TEXT NOT NULL,
	PRIMARY KEY (id)
);

CREATE TABLE model_inputs (
	id INTEGER NOT NULL,
	features_hash TEXT NOT NULL,
	expires_ms INTEGER NOT NULL,
	canonical TEXT NOT NULL,
	model_input BLOB NOT NULL,
	PRIMARY KEY (id),
	UNIQUE (features_hash)
);

CREATE INDEX model_inputs_expiry ON model_inputs (expires_ms);

CREATE TRIGGER shadow_signals_no_update BEFORE UPDATE ON shadow_signals
BEGIN SELECT RAISE(ABORT, 'shadow_signals is append-only'); END;

CREATE TRIGGER shadow_signals_no_delete BEFORE DELETE ON shadow_signals
BEGIN SELECT RAISE(ABORT, 'shadow_signals is append-only'); END;

CREATE TRIGGER fills_no_update BEFORE UPDATE ON fills
BEGIN SELECT RAISE(ABORT, 'fills is append-only'); END;

CREATE TRIGGER fills_no_delete BEFORE DELETE ON fills
BEGIN SELECT RAISE(ABORT, 'fills is append-only'); END;

CREATE TRIGGER outcomes_no_update BEFORE UPDATE ON outcomes
BEGIN SELECT RAISE(ABORT, 'outcomes is append-only'); END;

CREATE TRIGGER outcomes_no_delete BEFORE DELETE ON outcomes
BEGIN SELECT RAISE(ABORT, 'outcomes is append-only'); END;

CREATE TRIGGER stand_downs_no_update BEFORE UPDATE ON stand_downs
BEGIN SELECT RAISE(ABORT, 'stand_downs is append-only'); END;

CREATE TRIGGER stand_downs_no_delete BEFORE DELETE ON stand_downs
BEGIN SELECT RAISE(ABORT, 'stand_downs is append-only'); END;

CREATE TRIGGER results_summary_no_update BEFORE UPDATE ON results_summary
BEGIN SELECT RAISE(ABORT, 'results_summary is append-only'); END;

CREATE TRIGGER results_summary_no_delete BEFORE DELETE ON results_summary
BEGIN SELECT RAISE(ABORT, 'results_summary is append-only'); END;

CREATE TRIGGER anchors_no_update BEFORE UPDATE ON anchors
BEGIN SELECT RAISE(ABORT, 'anchors is append-only'); END;

CREATE TRIGGER anchors_no_delete BEFORE DELETE ON anchors
BEGIN SELECT RAISE(ABORT, 'anchors is append-only'); END;

CREATE TRIGGER block_events_no_update BEFORE UPDATE ON block_events
BEGIN SELECT RAISE(ABORT, 'block_events is append-only'); END;

CREATE TRIGGER block_events_no_delete BEFORE DELETE ON block_events WHEN OLD.id > (SELECT MAX(id) FROM block_events) - 100000
BEGIN SELECT RAISE(ABORT, 'block_events is append-only'); END;

CREATE TRIGGER ledger_identity_no_update BEFORE UPDATE ON ledger_identity
BEGIN SELECT RAISE(ABORT, 'ledger_identity is append-only'); END;

CREATE TRIGGER ledger_identity_no_delete BEFORE DELETE ON ledger_identity
BEGIN SELECT RAISE(ABORT, 'ledger_identity is append-only'); END;

CREATE TRIGGER model_inputs_no_update BEFORE UPDATE ON model_inputs
BEGIN SELECT RAISE(ABORT, 'model_inputs is append-only'); END;

CREATE TRIGGER model_inputs_no_delete BEFORE DELETE ON model_inputs WHEN OLD.expires_ms > CAST(strftime('%s', 'now') AS INTEGER) * 1000
BEGIN SELECT RAISE(ABORT, 'model_inputs is append-only'); END;

CREATE VIEW bar_decisions AS SELECT
  id, plan_id, symbol, ts_ms, kind, sequence, record_hash, canonical,
  json_extract(canonical, '$.book') AS book,
  json_extract(canonical, '$.binding_hash') AS binding_hash,
  json_extract(canonical, '$.trade_set_id') AS trade_set_id,
  json_extract(canonical, '$.row.trigger_state') AS trigger_state,
  json_extract(canonical, '$.row.bar_close') AS bar_close,
  json_extract(canonical, '$.signal.signal_source') AS signal_source,
  json_extract(canonical, '$.signal.fallback_reason') AS fallback_reason,
  json_extract(canonical, '$.signal.model_id') AS model_id,
  json_extract(canonical, '$.signal.model_version_hash') AS model_version_hash,
  json_extract(canonical, '$.signal.feature_version') AS feature_version,
  json_extract(canonical, '$.signal.calibration_version') AS calibration_version,
  json_extract(canonical, '$.signal.features_hash') AS features_hash,
  json_extract(canonical, '$.signal.p_hat_raw_bps') AS p_hat_raw_bps,
  json_extract(canonical, '$.signal.p_hat_calibrated_bps') AS p_hat_calibrated_bps,
  json_extract(canonical, '$.signal.proxy_p_hat_bps') AS proxy_p_hat_bps,
  json_extract(canonical, '$.signal.p_hat_bps') AS p_hat_bps,
  json_extract(canonical, '$.signal.signal_strength_bps') AS signal_strength_bps,
  json_extract(canonical, '$.outcome.target_weight_raw_ppm') AS target_weight_raw_ppm,
  json_extract(canonical, '$.outcome.target_weight_final_ppm') AS target_weight_final_ppm,
  json_extract(canonical, '$.outcome.order_style') AS order_style,
  json_extract(canonical, '$.outcome.reasons') AS reasons,
  json_extract(canonical, '$.stand_down.until_ts_ms') AS stand_down_until_ts_ms,
  json_extract(canonical, '$.stand_down.reason') AS stand_down_reason,
  json_extract(canonical, '$.stand_down.source') AS stand_down_source
FROM decision_records;

CREATE VIEW overrides AS SELECT decision_records.id, plan_id, symbol, ts_ms, kind, sequence, record_hash, each.key AS position, each.value AS reason, json_extract(canonical, '$.outcome.precedence_tier') AS precedence_tier FROM decision_records, json_each(canonical, '$.outcome.reasons') AS each;

CREATE TABLE replans (
	id INTEGER NOT NULL,
	at_ms INTEGER NOT NULL,
	book TEXT NOT NULL,
	plan_id TEXT NOT NULL,
	new_plan_id TEXT NOT NULL,
	ts_ms INTEGER NOT NULL,
	outcome TEXT NOT NULL,
	reason TEXT NOT NULL,
	material_hash TEXT NOT NULL,
	canonical TEXT NOT NULL,
	PRIMARY KEY (id),
	CHECK (outcome IN ('replaced', 'suppressed', 'skipped')),
	UNIQUE (plan_id, new_plan_id, ts_ms, material_hash)
);

CREATE INDEX replans_new_plan ON replans (new_plan_id);

CREATE TRIGGER replans_no_update BEFORE UPDATE ON replans
BEGIN SELECT RAISE(ABORT, 'replans is append-only'); END;

CREATE TRIGGER replans_no_delete BEFORE DELETE ON replans
BEGIN SELECT RAISE(ABORT, 'replans is append-only'); END;

CREATE TABLE plan_rollouts (
	id INTEGER NOT NULL,
	plan_id TEXT NOT NULL,
	rollout TEXT NOT NULL,
	shadow_binding TEXT NOT NULL,
	PRIMARY KEY (id)
);

CREATE UNIQUE INDEX plan_rollouts_plan ON plan_rollouts (plan_id);

CREATE TRIGGER plan_rollouts_no_update BEFORE UPDATE ON plan_rollouts
BEGIN SELECT RAISE(ABORT, 'plan_rollouts is append-only'); END;

CREATE TRIGGER plan_rollouts_no_delete BEFORE DELETE ON plan_rollouts
BEGIN SELECT RAISE(ABORT, 'plan_rollouts is append-only'); END;

CREATE INDEX decision_records_part ON decision_records (id >> 12, substr(record_hash, 1, 16));

INSERT INTO alembic_version (version_num) VALUES ('0005');

INSERT INTO ledger_identity (id, ledger_id) VALUES (1, :ledger_id);

