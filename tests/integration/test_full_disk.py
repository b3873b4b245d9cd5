"""Proves what happens without durable space: no record, no answer, no exposure, nothing lost."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from opentelemetry.context import Context
from tests.builders import HOUR_MS, START_MS, plan_of, row_of
from tests.conftest import Artifacts, client_of
from tests.fakes import PolicyHost, remote
from tests.integration.ledger_audit import assert_chains_whole, read_records
from tests.strategist import fresh_plan_id, recorded

from detent.contracts.binding import PROXY_BINDING, PROXY_BINDING_HASH
from detent.contracts.calls.policy import DecideTargetWeightsRequest, DecideTargetWeightsResponse
from detent.contracts.decision import DecisionKind
from detent.contracts.errors import LedgerUnavailable
from detent.contracts.plan import TriggerState
from detent.contracts.reasons import Reason
from detent_cli.stack import Stack, StackOptions
from detent_client import DetentClient, OpenedPlan


async def decide(target: str, opened: OpenedPlan, *, bar: int) -> DecideTargetWeightsResponse:
    """Ask for one bar as the wire has it: no retry, no local answer."""
    query = DecideTargetWeightsRequest(
        binding_hash=opened.binding_hash,
        plan_id=opened.plan.plan_id,
        ts_ms=START_MS + bar * HOUR_MS,
        kind=DecisionKind.BAR,
        rows=(row_of(),),
    )
    async with remote(target, "PolicyService") as policy:
        return await policy.call(query, DecideTargetWeightsResponse, timeout_s=5.0, trace=Context())


async def test_without_space_a_model_that_is_sure_moves_nothing(
    host: PolicyHost, host_client: DetentClient
) -> None:
    host.inference.p_hat_bps = 10_000
    opened = await host_client.open_plan(plan_of(fresh_plan_id()), host.binding)
    await decide(host.target, opened, bar=0)
    pages = (await host.ledger._file.read("PRAGMA page_count"))[0][0]
    await host.ledger._file.read(f"PRAGMA max_page_count = {pages}")

    refused = None
    for bar in range(1, 60):
        try:
            answer = await decide(host.target, opened, bar=bar)
        except LedgerUnavailable as error:
            refused = error
            break
        assert answer.results[0].decision is not None
    assert refused is not None, "the file never filled up"
    assert "full" in refused.metadata["cause"]
    # The client still has an answer, and it is to hold what is held.
    local = await host_client.decide(
        opened, ts_ms=START_MS + bar * HOUR_MS, row=row_of(weight_ppm=70_000)
    )
    held = len(recorded(host.ledger_file, opened.plan.plan_id))

    assert held == bar, "every answered bar is there and the refused one is not"
    assert local.fallback_reason is Reason.CLIENT_NO_SERVICE
    assert local.target_weight_final_ppm == 70_000
    await host.ledger._file.read("PRAGMA max_page_count = 1000000")
    await decide(host.target, opened, bar=bar)
    records = read_records(host.ledger_file)
    assert_chains_whole(records)
    assert len(records) == held + 1


async def test_without_space_the_client_still_gets_out(
    host: PolicyHost, host_client: DetentClient
) -> None:
    opened = await host_client.open_plan(plan_of(fresh_plan_id()), host.binding)
    await host.ledger._file.read("PRAGMA query_only = ON")

    for bar, (trigger_state, final_ppm) in enumerate(
        [
            (TriggerState.LONG_ALLOWED, 100_000),
            (TriggerState.EXIT_ONLY, 70_000),
            (TriggerState.INACTIVE, 0),
        ]
    ):
        decision = await host_client.decide(
            opened,
            ts_ms=START_MS + bar * HOUR_MS,
            row=row_of(trigger_state=trigger_state, weight_ppm=100_000),
        )
        assert decision.target_weight_final_ppm == final_ppm
        assert decision.fallback_reason is Reason.CLIENT_NO_SERVICE
    assert recorded(host.ledger_file, opened.plan.plan_id) == []

    await host.ledger._file.read("PRAGMA query_only = OFF")
    after = await host_client.decide(opened, ts_ms=START_MS + 9 * HOUR_MS, row=row_of())
    assert after.record_hash
    assert await host_client.report_local_answers() <= 3
    assert host_client.unreported_count == 0


async def test_a_real_process_that_may_write_no_more_refuses_and_recovers(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    """The kernel refuses the write, as it does on a full disk; no restart is needed after."""
    stack = Stack(StackOptions(artifact_dir=artifacts.stable, state_dir=tmp_path / "full"))
    stack.start("policy")
    try:
        async with client_of(stack, tmp_path / "journal.jsonl") as client:
            opened = await client.open_plan(plan_of(fresh_plan_id()), PROXY_BINDING)
            for bar in range(20):
                await decide(stack.targets["policy"], opened, bar=bar)
            with no_more_space(stack):
                for bar in (20, 20, 21):
                    with pytest.raises(LedgerUnavailable, match="ledger cannot be used"):
                        await decide(stack.targets["policy"], opened, bar=bar)
            for bar in range(20, 25):
                await decide(stack.targets["policy"], opened, bar=bar)
            verified = await client.verify_ledger(opened.plan.plan_id)
    finally:
        stack.stop_all()

    assert opened.binding_hash == PROXY_BINDING_HASH
    assert (verified.record_count, verified.breaks) == (25, ())
    assert_chains_whole(read_records(stack.ledger_file))


@contextmanager
def no_more_space(stack: Stack) -> Iterator[None]:
    """Let no file of policy grow beyond what the ledger's log is now."""
    grown = stack.ledger_file.with_name(stack.ledger_file.name + "-wal").stat().st_size
    pid = stack.pid("policy")
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    soft, _ = resource.prlimit(pid, resource.RLIMIT_FSIZE, (grown, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))
