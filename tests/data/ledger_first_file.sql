-- A ledger file of the first form (schema version 1), as its program wrote it: never changed.
BEGIN TRANSACTION;
CREATE TABLE block_events (
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
CREATE TABLE decision_records (
  id INTEGER PRIMARY KEY,
  plan_id TEXT NOT NULL,
  symbol TEXT NOT NULL,
  ts_ms INTEGER NOT NULL,
  kind TEXT NOT NULL,
  sequence INTEGER NOT NULL,
  record_hash TEXT NOT NULL,
  canonical TEXT NOT NULL
);
INSERT INTO "decision_records" VALUES(1,'plan','EURUSD',1700002800000,'bar',0,'ec4fcc8e99061ed0ca67dc6b2ecddaf0279ca0b0d4422e9ac801e8dfdec9ced0','{"binding_hash":"ff77f3b4f04c10f35822c55d79150a957dd75fe88d86e51c45c0cc158fd7ca7a","book":"book-plan","kind":"bar","outcome":{"cooldown_recommendation_bars":null,"delta_weight_ppm":75000,"order_style":"post_only","precedence_tier":4,"reasons":["WEIGHT_MAX_CAPPED"],"signal_deadbanded_ppm":333333,"target_weight_capped_ppm":75000,"target_weight_final_ppm":75000,"target_weight_policy_ppm":75000,"target_weight_raw_ppm":250000,"vol_scale_ppm":1000000},"plan_id":"plan","policy_config_hash":"28846ecda45a9635872e3a6f0aa62ff4a039f1ac154723914ef74a41ee4cfc8a","previous_hash":"0000000000000000000000000000000000000000000000000000000000000000","row":{"active_trigger_ids":["breakout"],"bar_close":"100","exit_intent":null,"position":{"current_weight_ppm":0,"equity":"1000000"},"risk_overrides":null,"symbol":"EURUSD","trigger_state":"long_allowed","vol_hat_ppm":150000,"vol_unit":"per_bar"},"schema":"detent.decision_record.v1","sequence":0,"signal":{"calibration_version":null,"fallback_reason":null,"feature_version":null,"features_hash":null,"model_id":null,"model_version_hash":null,"p_hat_bps":7000,"p_hat_calibrated_bps":null,"p_hat_raw_bps":null,"proxy_p_hat_bps":7000,"proxy_reason":null,"proxy_version":"aee907f36c951505874d03c9cfdbc8bc3c5544914f77e84b6e1cde33c09f8f0c","signal_source":"proxy","signal_strength_bps":4000},"state_after":{"entry_ts_ms":1700002800000,"last_rebalance_ts_ms":1700002800000,"last_target_weight_ppm":75000,"trade_set_count":1},"trade_set_id":"plan/EURUSD/1","ts_ms":1700002800000,"valid_until_ts_ms":1700006400000}');
INSERT INTO "decision_records" VALUES(2,'plan','EURUSD',1700006400000,'bar',1,'cabd51cefec3fc3c58b98bdbd33acecf8de945952ac2d1b2035f5f219164ad8f','{"binding_hash":"ff77f3b4f04c10f35822c55d79150a957dd75fe88d86e51c45c0cc158fd7ca7a","book":"book-plan","kind":"bar","outcome":{"cooldown_recommendation_bars":null,"delta_weight_ppm":75000,"order_style":"none","precedence_tier":4,"reasons":["WEIGHT_MAX_CAPPED","REBALANCE_COOLDOWN"],"signal_deadbanded_ppm":333333,"target_weight_capped_ppm":75000,"target_weight_final_ppm":75000,"target_weight_policy_ppm":75000,"target_weight_raw_ppm":250000,"vol_scale_ppm":1000000},"plan_id":"plan","policy_config_hash":"28846ecda45a9635872e3a6f0aa62ff4a039f1ac154723914ef74a41ee4cfc8a","previous_hash":"ec4fcc8e99061ed0ca67dc6b2ecddaf0279ca0b0d4422e9ac801e8dfdec9ced0","row":{"active_trigger_ids":["breakout"],"bar_close":"100","exit_intent":null,"position":{"current_weight_ppm":0,"equity":"1000000"},"risk_overrides":null,"symbol":"EURUSD","trigger_state":"long_allowed","vol_hat_ppm":150000,"vol_unit":"per_bar"},"schema":"detent.decision_record.v1","sequence":1,"signal":{"calibration_version":null,"fallback_reason":null,"feature_version":null,"features_hash":null,"model_id":null,"model_version_hash":null,"p_hat_bps":7000,"p_hat_calibrated_bps":null,"p_hat_raw_bps":null,"proxy_p_hat_bps":7000,"proxy_reason":null,"proxy_version":"aee907f36c951505874d03c9cfdbc8bc3c5544914f77e84b6e1cde33c09f8f0c","signal_source":"proxy","signal_strength_bps":4000},"state_after":{"entry_ts_ms":null,"last_rebalance_ts_ms":1700002800000,"last_target_weight_ppm":75000,"trade_set_count":1},"trade_set_id":"plan/EURUSD/1","ts_ms":1700006400000,"valid_until_ts_ms":1700010000000}');
INSERT INTO "decision_records" VALUES(3,'plan','EURUSD',1700010000000,'bar',2,'80c44c45c96de797b4db60fa63743a637ddc29094eb3203a2d90081c61876543','{"binding_hash":"ff77f3b4f04c10f35822c55d79150a957dd75fe88d86e51c45c0cc158fd7ca7a","book":"book-plan","kind":"bar","outcome":{"cooldown_recommendation_bars":null,"delta_weight_ppm":75000,"order_style":"post_only","precedence_tier":4,"reasons":["WEIGHT_MAX_CAPPED"],"signal_deadbanded_ppm":333333,"target_weight_capped_ppm":75000,"target_weight_final_ppm":75000,"target_weight_policy_ppm":75000,"target_weight_raw_ppm":250000,"vol_scale_ppm":1000000},"plan_id":"plan","policy_config_hash":"28846ecda45a9635872e3a6f0aa62ff4a039f1ac154723914ef74a41ee4cfc8a","previous_hash":"cabd51cefec3fc3c58b98bdbd33acecf8de945952ac2d1b2035f5f219164ad8f","row":{"active_trigger_ids":["breakout"],"bar_close":"100","exit_intent":null,"position":{"current_weight_ppm":0,"equity":"1000000"},"risk_overrides":null,"symbol":"EURUSD","trigger_state":"long_allowed","vol_hat_ppm":150000,"vol_unit":"per_bar"},"schema":"detent.decision_record.v1","sequence":2,"signal":{"calibration_version":null,"fallback_reason":null,"feature_version":null,"features_hash":null,"model_id":null,"model_version_hash":null,"p_hat_bps":7000,"p_hat_calibrated_bps":null,"p_hat_raw_bps":null,"proxy_p_hat_bps":7000,"proxy_reason":null,"proxy_version":"aee907f36c951505874d03c9cfdbc8bc3c5544914f77e84b6e1cde33c09f8f0c","signal_source":"proxy","signal_strength_bps":4000},"state_after":{"entry_ts_ms":1700010000000,"last_rebalance_ts_ms":1700010000000,"last_target_weight_ppm":75000,"trade_set_count":2},"trade_set_id":"plan/EURUSD/2","ts_ms":1700010000000,"valid_until_ts_ms":1700013600000}');
CREATE TABLE late_answers (
  id INTEGER PRIMARY KEY,
  at_ms INTEGER NOT NULL,
  plan_id TEXT NOT NULL,
  symbol TEXT NOT NULL,
  ts_ms INTEGER NOT NULL,
  kind TEXT NOT NULL,
  record_hash TEXT NOT NULL
);
CREATE TABLE local_answers (
  id INTEGER PRIMARY KEY,
  plan_id TEXT NOT NULL,
  symbol TEXT NOT NULL,
  ts_ms INTEGER NOT NULL,
  kind TEXT NOT NULL,
  canonical TEXT NOT NULL,
  UNIQUE (plan_id, symbol, ts_ms, kind)
);
CREATE TABLE plan_log (
  id INTEGER PRIMARY KEY,
  plan_id TEXT NOT NULL,
  event TEXT NOT NULL CHECK (event IN ('opened', 'closed')),
  book TEXT NOT NULL,
  binding_hash TEXT NOT NULL,
  plan TEXT NOT NULL,
  binding TEXT NOT NULL,
  UNIQUE (plan_id, event)
);
INSERT INTO "plan_log" VALUES(1,'plan','opened','book-plan','ff77f3b4f04c10f35822c55d79150a957dd75fe88d86e51c45c0cc158fd7ca7a','{"bar_interval_ms":3600000,"book":"book-plan","plan_id":"plan","policy_config":{"alpha_by_horizon":[],"epsilon_w_ppm":5000,"horizon_id":"h4","min_hold_bars":4,"min_trade_notional":"10","rebalance_cooldown_bars":2,"symbol_allowlist":[],"tau_bps":1000,"vol_target_ppm":150000,"vol_unit":"per_bar","w_max_ppm":250000,"w_min_ppm":20000},"risk_limits":{"max_weight_ppm":1000000,"symbol_caps":[]},"schema":"detent.plan.v1","symbols":["EURUSD"],"triggers":[{"parameters_hash":"3333333333333333333333333333333333333333333333333333333333333333","trigger_id":"breakout"}]}','{"architecture_id":"","calibration_version":"","data_cutoff_ts_ms":0,"fallback_signal_source":"proxy","feature_version":"","head":null,"horizon_bars":0,"horizon_id":"","label_definition":"","model_id":"","model_version_hash":"","proxy_version":"aee907f36c951505874d03c9cfdbc8bc3c5544914f77e84b6e1cde33c09f8f0c","schema":"detent.model_binding.v1","signal_source":"proxy","training_window":null}');
CREATE UNIQUE INDEX decision_records_key
  ON decision_records (ts_ms, plan_id, symbol, kind);
CREATE UNIQUE INDEX decision_records_chain
  ON decision_records (sequence, plan_id, symbol);
CREATE INDEX decision_records_hash
  ON decision_records (substr(record_hash, 1, 16));
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
  json_extract(canonical, '$.outcome.reasons') AS reasons
FROM decision_records;
CREATE TRIGGER decision_records_no_update BEFORE UPDATE ON decision_records
BEGIN SELECT RAISE(ABORT, 'decision_records is append-only'); END;
CREATE TRIGGER decision_records_no_delete BEFORE DELETE ON decision_records
BEGIN SELECT RAISE(ABORT, 'decision_records is append-only'); END;
CREATE TRIGGER plan_log_no_update BEFORE UPDATE ON plan_log
BEGIN SELECT RAISE(ABORT, 'plan_log is append-only'); END;
CREATE TRIGGER plan_log_no_delete BEFORE DELETE ON plan_log
BEGIN SELECT RAISE(ABORT, 'plan_log is append-only'); END;
CREATE TRIGGER block_events_no_update BEFORE UPDATE ON block_events
BEGIN SELECT RAISE(ABORT, 'block_events is append-only'); END;
CREATE TRIGGER block_events_no_delete BEFORE DELETE ON block_events
BEGIN SELECT RAISE(ABORT, 'block_events is append-only'); END;
CREATE TRIGGER late_answers_no_update BEFORE UPDATE ON late_answers
BEGIN SELECT RAISE(ABORT, 'late_answers is append-only'); END;
CREATE TRIGGER late_answers_no_delete BEFORE DELETE ON late_answers
BEGIN SELECT RAISE(ABORT, 'late_answers is append-only'); END;
CREATE TRIGGER local_answers_no_update BEFORE UPDATE ON local_answers
BEGIN SELECT RAISE(ABORT, 'local_answers is append-only'); END;
CREATE TRIGGER local_answers_no_delete BEFORE DELETE ON local_answers
BEGIN SELECT RAISE(ABORT, 'local_answers is append-only'); END;
COMMIT;
PRAGMA user_version = 1;
