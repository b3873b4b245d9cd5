"""Holds the hashes to what was published: other languages compute them from the same text."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from tests.builders import START_MS, model_binding, plan_of
from tests.data.generate import SNAPSHOT, VECTORS_FILE, text

from detent.contracts.binding import (
    PROXY_BINDING_HASH,
    Head,
    ModelBinding,
    SignalSource,
    TrainingWindow,
)
from detent.contracts.canonical import canonical_bytes
from detent.contracts.decision import DecisionRecord
from detent.contracts.json_codec import from_json, to_json
from detent.contracts.plan import HorizonAlpha, Plan, PolicyConfig, VolUnit
from detent.core.features.model_input import features_hash, snapshot_hash

VECTORS = json.loads(VECTORS_FILE.read_text(encoding="utf-8"))
DOCUMENT = Path(__file__).parents[2] / "docs" / "HASHES.md"


def published(name: str) -> str:
    return str(next(vector["sha256"] for vector in VECTORS if vector["name"] == name))


@pytest.mark.proves("R26", "R314")
def test_the_published_vectors_are_what_the_code_computes() -> None:
    assert VECTORS_FILE.read_text(encoding="utf-8") == text()


@pytest.mark.proves("R26")
@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_a_vector_follows_from_its_fields_by_the_published_rules(
    vector: Mapping[str, Any],
) -> None:
    """Computed here by the rules of docs/HASHES.md and nothing of ours."""
    fields = {"schema": vector["schema"], **vector["fields"]}
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True)

    assert canonical == vector["canonical"]
    assert hashlib.sha256(canonical.encode()).hexdigest() == vector["sha256"]
    assert not any(isinstance(value, float) for value in _leaves(vector["fields"]))


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in _leaves(item)]
    if isinstance(value, list):
        return [leaf for item in value for leaf in _leaves(item)]
    return [value]


@pytest.mark.proves("R26")
def test_another_process_with_another_hash_seed_agrees() -> None:
    program = "from tests.data.generate import text; import sys; sys.stdout.write(text())"
    found = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONHASHSEED": "123", "PATH": ""},
        cwd=DOCUMENT.parents[1],
        capture_output=True,
        text=True,
        check=True,
    )

    assert found.stdout == VECTORS_FILE.read_text(encoding="utf-8")


def test_the_document_names_every_vector_and_the_proxy_hash() -> None:
    document = DOCUMENT.read_text(encoding="utf-8")

    assert PROXY_BINDING_HASH in document
    assert published("binding_hash, proxy") == PROXY_BINDING_HASH
    for vector in VECTORS:
        assert f"`{vector['schema']}`" in document, vector["schema"]


@pytest.mark.proves("R15", "R26")
@pytest.mark.parametrize(
    "change",
    [
        {"ts": START_MS + 1},
        {"symbol": "ETHUSDT"},
        {"spread_bps": 1},
        {"thin_l1": Decimal("0.111")},
        {"atr": Decimal(0)},
        {"warmup_bars": 15},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_snapshot_that_differs_in_one_field_has_another_hash(change: dict[str, Any]) -> None:
    assert snapshot_hash(structs.replace(SNAPSHOT, **change)) != snapshot_hash(SNAPSHOT)


@pytest.mark.proves("R26")
def test_equal_decimals_hash_alike_however_they_are_written() -> None:
    other = structs.replace(SNAPSHOT, mid_price=Decimal(70811), thin_l1=Decimal("0.11"))

    assert snapshot_hash(other) == snapshot_hash(SNAPSHOT)


@pytest.mark.proves("R26")
@pytest.mark.parametrize(
    "change",
    [
        {"symbol": "ETHUSDT"},
        {"ts_ms": START_MS + 1},
        {"snapshot_hashes": ("c" * 64,)},
        {"values": bytes.fromhex("0000803f000000c1")},
    ],
    ids=lambda change: next(iter(change)),
)
def test_features_that_differ_in_one_part_have_another_hash(change: dict[str, Any]) -> None:
    given: dict[str, Any] = {
        "symbol": "BTCUSDT",
        "ts_ms": START_MS,
        "snapshot_hashes": (snapshot_hash(SNAPSHOT),),
        "values": bytes.fromhex("0000803f000000c0"),
    }

    assert features_hash("b" * 64, **given) == published("features_hash, input 1.0 and -2.0")
    assert features_hash("b" * 64, **(given | change)) != features_hash("b" * 64, **given)
    assert features_hash("d" * 64, **given) != features_hash("b" * 64, **given)


@pytest.mark.proves("R26", "R212")
@pytest.mark.parametrize(
    ("name", "sha256"),
    [
        ("record_hash", "ec4fcc8e99061ed0ca67dc6b2ecddaf0279ca0b0d4422e9ac801e8dfdec9ced0"),
        ("policy_config_hash", "28846ecda45a9635872e3a6f0aa62ff4a039f1ac154723914ef74a41ee4cfc8a"),
        ("plan", "4ee1f065aaadf47ca64019207d6358ef98c5322359182d755f9c6a37572fb4f9"),
    ],
)
def test_what_was_hashed_before_a_type_grew_keeps_its_hash(name: str, sha256: str) -> None:
    """ADR 0016: the literals are of the vectors as they were before there were grown fields."""
    vector = next(vector for vector in VECTORS if vector["name"] == name)
    kind = {"record_hash": DecisionRecord, "policy_config_hash": PolicyConfig, "plan": Plan}[name]
    value = from_json(kind, vector["fields"])

    assert vector["sha256"] == sha256
    assert canonical_bytes(kind.SCHEMA, to_json(value)).decode() == vector["canonical"]


@pytest.mark.proves("R174", "R176", "R177", "R180", "R182")
@pytest.mark.parametrize(
    "change",
    [
        {"head": Head.REGIME},
        {"model_id": "direction_test_v1.0.1"},
        {"model_version_hash": "f" * 64},
        {"feature_version": "f" * 64},
        {"label_definition": "another"},
        {"horizon_id": "h8"},
        {"horizon_bars": 5},
        {"calibration_version": "f" * 64},
        {
            "training_window": TrainingWindow(
                start_ts_ms=START_MS - 9_000_000, end_ts_ms=START_MS - 8_000_000
            )
        },
        {"data_cutoff_ts_ms": START_MS},
        {"architecture_id": "tree"},
        {"signal_source": SignalSource.PROXY},
    ],
    ids=lambda change: next(iter(change)),
)
@pytest.mark.proves("R165")
def test_a_binding_that_differs_in_one_field_has_another_hash(change: dict[str, Any]) -> None:
    assert model_binding(**change).binding_hash != model_binding().binding_hash


@pytest.mark.proves("R136", "R137", "R138")
def test_a_binding_turned_to_the_proxy_has_the_published_hash_whatever_it_held() -> None:
    turned = structs.replace(model_binding(), signal_source=SignalSource.PROXY)

    assert turned.binding_hash == PROXY_BINDING_HASH
    assert ModelBinding(signal_source=SignalSource.PROXY).binding_hash == PROXY_BINDING_HASH


@pytest.mark.proves("R211")
@pytest.mark.parametrize(
    "change",
    [
        {"horizon_id": "h8"},
        {"tau_bps": 1},
        {"vol_target_ppm": 1},
        {"vol_unit": VolUnit.ANNUALISED},
        {"w_min_ppm": 1},
        {"w_max_ppm": 999_999},
        {"alpha_by_horizon": (HorizonAlpha(horizon_id="h4", alpha_ppm=1),)},
        {"epsilon_w_ppm": 1},
        {"min_trade_notional": Decimal("10.01")},
        {"rebalance_cooldown_bars": 3},
        {"min_hold_bars": 5},
        {"symbol_allowlist": ("EURUSD",)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_policy_config_that_differs_in_one_field_has_another_hash(
    change: dict[str, Any],
) -> None:
    config: PolicyConfig = plan_of("plan").policy_config
    other = structs.replace(config, **change)

    assert other.policy_config_hash != config.policy_config_hash
