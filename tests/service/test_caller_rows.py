"""Proves how what only the strategist knows gets from a row to the model and into the record."""

from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from tests.builders import (
    HOUR_MS,
    OTHER_SYMBOL,
    SYMBOL,
    bar_series,
    call_of,
    close_ms,
    emergency,
    model_binding,
    plan_of,
    row_of,
)
from tests.fakes import PolicyHost
from tests.service.test_feature_handler import ingest
from tests.strategist import noted, recorded

from detent.contracts.binding import PROXY_BINDING, SignalSource
from detent.contracts.caller_feature import CALLER_FEATURES_MAX, CallerFeature
from detent.contracts.calls.feature import ModelInput
from detent.contracts.calls.ledger import PAGE_SIZE_MAX, ListDecisionsRequest
from detent.contracts.calls.policy import (
    DecideTargetWeightsRequest,
    DecisionResult,
    OpenPlanRequest,
    RowRefusal,
)
from detent.contracts.decision import Decision, DecisionKind, DecisionRow
from detent.contracts.reasons import ErrorReason, Reason
from detent.core.features.engine import EngineConfig
from detent.core.features.feature_set import FeatureSet
from detent.core.features.feature_spec import FeatureTransform, caller_feature, derived, feature
from detent.core.features.offline_rows import iter_model_inputs
from detent.servers.feature.handler import FeatureHandler
from detent.servers.policy.held import HeldBinding
from detent_client import ClientOptions, DetentClient, OpenedPlan

POSITIONED = FeatureSet(
    name="positioned",
    features=(
        feature(FeatureTransform.RETURN_PCT, 1),
        caller_feature("position_size"),
        caller_feature("grid_levels_active"),
        derived(FeatureTransform.PRODUCT, "position_size", "return_pct_1"),
    ),
    engine=EngineConfig(bar_interval_ms=HOUR_MS),
)
BINDING = model_binding(feature_version=POSITIONED.feature_version)
THIRD_SYMBOL = "AUDUSD"
SYMBOLS = (SYMBOL, OTHER_SYMBOL, THIRD_SYMBOL)
PLAN = plan_of("plan", SYMBOLS)
BARS = {symbol: bar_series(symbol, seed=seed, count=30) for seed, symbol in enumerate(SYMBOLS)}
SIZE, GRID = ("position_size", "-2.5"), ("grid_levels_active", "7")


class AskedFeatures:
    """Passes questions on to the feature handler, and keeps them; may lose what callers said."""

    def __init__(self) -> None:
        self.handler = FeatureHandler({BINDING.binding_hash: POSITIONED})
        self.asked: list[Any] = []
        self.loses_words = False

    async def get_feature_snapshots(self, query: Any, call: Any) -> Any:
        self.asked.append(query)
        if self.loses_words:
            query = structs.replace(query, caller_features=())
        return await self.handler.get_feature_snapshots(query, call)


@pytest.fixture(name="host")
async def _host(tmp_path: Path) -> AsyncIterator[PolicyHost]:
    features = AskedFeatures()
    for series in BARS.values():
        await ingest(features.handler, series)
    host = PolicyHost(
        tmp_path / "ledger.sqlite",
        BINDING,
        features=features,
        caller_names=POSITIONED.caller_names,
    )
    async with host:
        query = OpenPlanRequest(binding_hash=BINDING.binding_hash, plan=PLAN, model_binding=BINDING)
        await host.handler.open_plan(query, call_of())
        yield host


def said(*words: tuple[str, str]) -> tuple[CallerFeature, ...]:
    return tuple(CallerFeature(name=name, value=Decimal(value)) for name, value in words)


def asked_of(symbol: str, *words: tuple[str, str], bar: int = 9, **changes: Any) -> DecisionRow:
    close = BARS[symbol][bar].close
    return row_of(symbol, close=close, caller_features=said(*words), **changes)


async def ask(
    host: PolicyHost, *rows: DecisionRow, bar: int = 9, kind: DecisionKind = DecisionKind.BAR
) -> Sequence[DecisionResult]:
    query = DecideTargetWeightsRequest(
        binding_hash=BINDING.binding_hash,
        plan_id=PLAN.plan_id,
        ts_ms=close_ms(bar),
        kind=kind,
        rows=rows,
    )
    return (await host.handler.decide_target_weights(query, call_of())).results


async def decided(host: PolicyHost, *rows: DecisionRow, **options: Any) -> list[Decision]:
    results = await ask(host, *rows, **options)
    decisions = [result.decision for result in results if result.decision is not None]
    assert len(decisions) == len(rows), results
    return decisions


async def refused(host: PolicyHost, row: DecisionRow) -> RowRefusal:
    (result,) = await ask(host, row)
    assert result.refusal is not None, result
    return result.refusal


def client_at(host: PolicyHost, folder: Path) -> DetentClient:
    return DetentClient(
        ClientOptions(
            journal_file=folder / "journal.jsonl", policy_target=host.target, deadline_s=10.0
        )
    )


OPENED = OpenedPlan(plan=PLAN, binding_hash=BINDING.binding_hash)


# To the model


@pytest.mark.proves("R83")
async def test_model_is_given_what_training_would_with_the_same_words(host: PolicyHost) -> None:
    (decision,) = await decided(host, asked_of(SYMBOL, SIZE, GRID))

    words = {close_ms(9): {name: Decimal(value) for name, value in (SIZE, GRID)}}
    inputs = iter_model_inputs(POSITIONED, BARS[SYMBOL], caller_values=words)
    (offline,) = [one for one in inputs if isinstance(one, ModelInput)]
    (record,) = recorded(host.ledger_file, "plan")
    assert (decision.signal_source, decision.fallback_reason) == (SignalSource.MODEL, None)
    assert record["features_hash"] == offline.features_hash


async def test_words_that_are_lost_on_the_way_are_missed(host: PolicyHost) -> None:
    """The control of the test above: without the words there is no model's answer."""
    host.features.loses_words = True

    (decision,) = await decided(host, asked_of(SYMBOL, SIZE, GRID))

    assert decision.fallback_reason is Reason.FEATURES_MISSING


@pytest.mark.proves("R83", "R101")
async def test_rows_with_and_without_words_are_decided_in_one_call(host: PolicyHost) -> None:
    rows = (asked_of(SYMBOL), asked_of(OTHER_SYMBOL, GRID, SIZE), asked_of(THIRD_SYMBOL, SIZE))

    decisions = await decided(host, *rows)

    missing = Reason.FEATURES_MISSING
    assert [one.fallback_reason for one in decisions] == [missing, None, missing]
    (query,) = host.features.asked
    assert [one.symbol for one in query.caller_features] == [OTHER_SYMBOL, THIRD_SYMBOL]


async def test_rows_of_a_set_without_caller_features_send_none(tmp_path: Path) -> None:
    """What was asked before there were caller features is asked as it was."""
    async with PolicyHost(tmp_path / "plain.sqlite", BINDING) as plain:
        query = OpenPlanRequest(binding_hash=BINDING.binding_hash, plan=PLAN, model_binding=BINDING)
        await plain.handler.open_plan(query, call_of())
        await decided(plain, asked_of(SYMBOL))

    (asked,) = plain.features.asked
    assert asked.caller_features == ()


# Refused


@pytest.mark.proves("R45")
@pytest.mark.parametrize(
    "extra",
    [
        pytest.param(("position_notional", "1"), id="undeclared"),
        pytest.param(("return_pct_1", "1"), id="one that the bars provide"),
    ],
)
async def test_undeclared_name_refuses_its_row_alone_and_uses_no_key(
    host: PolicyHost, extra: tuple[str, str]
) -> None:
    bad, good = await ask(
        host, asked_of(SYMBOL, SIZE, GRID, extra), asked_of(OTHER_SYMBOL, SIZE, GRID)
    )

    assert bad.refusal is not None
    assert bad.refusal.reason is ErrorReason.INVALID_FIELD
    assert bad.refusal.metadata == {
        "field": "caller_features",
        "found": extra[0],
        "expected": "a caller feature of the feature set: grid_levels_active, position_size",
    }
    assert good.decision is not None
    assert good.decision.fallback_reason is None
    (event,) = noted(host.ledger_file, "plan")
    assert event["reason"] == "INVALID_FIELD"
    (after,) = await decided(host, asked_of(SYMBOL, SIZE, GRID))
    assert after.fallback_reason is None


@pytest.mark.proves("R218")
@pytest.mark.parametrize(
    ("words", "found", "expected"),
    [
        pytest.param(
            (("position_size", "-2.6"), GRID),
            "position_size=-2.6",
            "position_size=-2.5",
            id="value",
        ),
        pytest.param((GRID,), "(missing)", "position_size=-2.5", id="fewer"),
        pytest.param((), "(missing)", "grid_levels_active=7, position_size=-2.5", id="none"),
    ],
)
async def test_other_words_under_the_same_key_are_a_conflict(
    host: PolicyHost, words: tuple[tuple[str, str], ...], found: str, expected: str
) -> None:
    (first,) = await decided(host, asked_of(SYMBOL, SIZE, GRID))

    refusal = await refused(host, asked_of(SYMBOL, *words))

    assert refusal.reason is ErrorReason.DECISION_CONFLICT
    facts = [refusal.metadata[name] for name in ("field", "found", "expected")]
    assert facts == ["caller_features", found, expected]
    assert await decided(host, asked_of(SYMBOL, SIZE, GRID)) == [first]
    assert len(recorded(host.ledger_file, "plan")) == 1


async def test_words_where_there_were_none_are_a_conflict(host: PolicyHost) -> None:
    await decided(host, asked_of(SYMBOL))

    refusal = await refused(host, asked_of(SYMBOL, SIZE, GRID))

    assert refusal.reason is ErrorReason.DECISION_CONFLICT
    assert refusal.metadata["expected"] == "(missing)"


@pytest.mark.proves("R34", "R218")
async def test_same_words_in_another_order_and_spelling_are_the_same_question(
    host: PolicyHost,
) -> None:
    first = await decided(host, asked_of(SYMBOL, SIZE, GRID))
    again = await decided(host, asked_of(SYMBOL, GRID, ("position_size", "-2.500")))

    assert again == first


# Recorded


@pytest.mark.proves("R136")
async def test_proxy_plan_takes_any_words_and_uses_none(host: PolicyHost, tmp_path: Path) -> None:
    """Going back to the proxy is one field: the strategist goes on saying what it said."""
    async with client_at(host, tmp_path) as client:
        silent = await client.open_plan(plan_of("silent"), PROXY_BINDING)
        spoken = await client.open_plan(plan_of("spoken"), PROXY_BINDING)
        words = asked_of(SYMBOL, SIZE, ("of_nobody", "1"))
        one = await client.decide(silent, ts_ms=close_ms(9), row=asked_of(SYMBOL))
        other = await client.decide(spoken, ts_ms=close_ms(9), row=words)

    assert host.features.asked == []
    assert other.target_weight_final_ppm == one.target_weight_final_ppm
    assert other.p_hat_bps == one.p_hat_bps


async def test_emergency_asks_nobody_and_records_what_was_said(host: PolicyHost) -> None:
    """A name that the set does not declare is no reason to keep anybody from an exit."""
    row = asked_of(SYMBOL, SIZE, ("of_nobody", "1"), exit_intent=emergency())

    await decided(host, row, kind=DecisionKind.EMERGENCY)

    assert host.features.asked == []
    (record,) = recorded(host.ledger_file, "plan")
    assert '{"name":"position_size","value":"-2.5"}' in record["canonical"]
    assert '{"name":"of_nobody","value":"1"}' in record["canonical"]


@pytest.mark.proves("R51", "R212")
async def test_record_with_words_is_read_and_replayed_to_the_same_bytes(
    host: PolicyHost, tmp_path: Path
) -> None:
    async with client_at(host, tmp_path) as client:
        for bar in range(5, 12):
            rows = [asked_of(SYMBOL, (SIZE[0], str(bar)), GRID, bar=bar), asked_of(OTHER_SYMBOL)]
            await client.decide_many(OPENED, ts_ms=close_ms(bar), rows=rows)
        records = recorded(host.ledger_file, "plan")
        for record in records:
            answer = await client.replay_decision(record["record_hash"])
            read = (await client.get_decision(record["record_hash"])).record
            assert answer.recorded_json == answer.replayed_json == record["canonical"]
            assert read.record_hash == answer.replayed_hash == record["record_hash"]
        verified = await client.verify_ledger("plan")

    spoken = [record for record in records if '"caller_features"' in record["canonical"]]
    assert [record["symbol"] for record in spoken] == [SYMBOL] * 7
    assert (verified.record_count, verified.breaks) == (14, ())


async def test_answer_of_the_clients_own_keeps_what_was_said(
    host: PolicyHost, tmp_path: Path
) -> None:
    away = ClientOptions(journal_file=tmp_path / "j", policy_target="127.0.0.1:1", deadline_s=0.2)
    row = asked_of(SYMBOL, SIZE, GRID, weight_ppm=50_000)
    async with DetentClient(away) as client:
        decision = await client.decide(OPENED, ts_ms=close_ms(9), row=row)
    back = structs.replace(away, policy_target=host.target, deadline_s=10.0)
    async with DetentClient(back) as client:
        assert client.unreported_count == 1
        assert await client.report_local_answers() == 1

    assert decision.fallback_reason is Reason.CLIENT_NO_SERVICE


# As much as there may be


def test_long_list_of_names_is_cut_and_counted() -> None:
    """A refusal says what was expected, and 5,000 of them fit in an answer."""
    names = frozenset(f"n{number:02}" for number in range(20))
    expected = HeldBinding(bar_interval_ms=HOUR_MS, caller_names=names).caller_names_expected

    assert expected.startswith("a caller feature of the feature set: n00, n01, ")
    assert expected.endswith(", n15 and 4 more")
    assert HeldBinding(bar_interval_ms=HOUR_MS).caller_names_expected.endswith(": none")


async def test_largest_rows_are_recorded_and_listed_page_by_page(
    host: PolicyHost, tmp_path: Path
) -> None:
    """A page of a thousand such records would be larger than a message may be."""
    symbols = [f"S{number}" for number in range(50)]
    words = tuple(
        CallerFeature(name=f"{number:0>128}", value=Decimal("1" * 40))
        for number in range(CALLER_FEATURES_MAX)
    )
    rows = [row_of(symbol, caller_features=words) for symbol in symbols]
    async with client_at(host, tmp_path) as client:
        large = await client.open_plan(plan_of("large", symbols), PROXY_BINDING)
        results = await client.decide_many(large, ts_ms=close_ms(9), rows=rows)
        listed, token, pages = [], "", 0
        while pages == 0 or token:
            query = ListDecisionsRequest(
                plan_id="large", symbol="", page_size=PAGE_SIZE_MAX, page_token=token
            )
            page = await client.list_decisions(query)
            listed += [record.row.symbol for record in page.records]
            token, pages = page.next_page_token, pages + 1

    assert all(result.decision is not None for result in results)
    assert listed == symbols
    assert pages == 2
