"""Holds the client to its retries, its echo check, and its one report of each answer."""

import asyncio
import itertools
import math
import os
from pathlib import Path
from typing import Any

import pytest
from tests.builders import START_MS, plan_of, row_of

from detent.contracts.binding import PROXY_BINDING_HASH
from detent.contracts.calls.policy import (
    DecideTargetWeightsRequest,
    DecideTargetWeightsResponse,
    ReportLocalAnswersRequest,
    ReportLocalAnswersResponse,
)
from detent.contracts.errors import (
    BindingMismatch,
    DeadlineExceeded,
    DetentError,
    InvalidField,
    LedgerUnavailable,
    NotOwner,
    Overloaded,
    PlanClosed,
    PlanNotFound,
    ServiceUnavailable,
)
from detent.contracts.reasons import Reason
from detent_client import ClientOptions, DetentClient, OpenedPlan
from detent_client import journal as journal_module

OPENED = OpenedPlan(plan=plan_of("plan"), binding_hash=PROXY_BINDING_HASH)


class Service:
    """Stands where the policy service is called and does what it is told, in turn."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.requests: list[Any] = []
        self.timeouts_s: list[float] = []

    async def call(self, request: Any, _kind: Any, *, timeout_s: float, **_: Any) -> Any:
        self.requests.append(request)
        self.timeouts_s.append(timeout_s)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def client_with(service: Service, tmp_path: Path, **options: Any) -> DetentClient:
    client = DetentClient(
        ClientOptions(journal_file=tmp_path / "journal.jsonl", backoff_s=0.001, **options)
    )
    client._policy = service  # type: ignore[assignment]
    return client


def gone() -> ServiceUnavailable:
    return ServiceUnavailable("PolicyService answered UNAVAILABLE")


@pytest.mark.proves("R318")
@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        pytest.param(gone(), 4, id="unavailable"),
        pytest.param(LedgerUnavailable("full", cause="disk full"), 4, id="ledger"),
        pytest.param(DeadlineExceeded("late"), 1, id="deadline"),
        pytest.param(Overloaded("shed"), 1, id="overloaded"),
    ],
)
async def test_only_unavailable_is_tried_again(
    error: DetentError, attempts: int, tmp_path: Path
) -> None:
    service = Service(error)
    async with client_with(service, tmp_path, attempts_max=4) as client:
        decision = await client.decide(OPENED, ts_ms=START_MS, row=row_of(weight_ppm=50_000))

    assert len(service.requests) == attempts
    assert decision.fallback_reason is Reason.CLIENT_NO_SERVICE
    assert decision.target_weight_final_ppm == 50_000


async def test_every_attempt_asks_the_same_question(tmp_path: Path) -> None:
    """Idempotent by key: a retry must not be able to make a second decision."""
    service = Service(gone())
    async with client_with(service, tmp_path) as client:
        await client.decide(OPENED, ts_ms=START_MS, row=row_of())

    assert len(set(service.requests)) == 1


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(InvalidField("rows[0]", 1, "2"), id="invalid"),
        pytest.param(PlanClosed("closed", plan_id="plan"), id="closed"),
        pytest.param(BindingMismatch("a", "b"), id="binding"),
    ],
)
async def test_a_question_at_fault_is_refused_and_not_answered_locally(
    error: DetentError, tmp_path: Path
) -> None:
    service = Service(error)
    async with client_with(service, tmp_path) as client:
        with pytest.raises(type(error)):
            await client.decide(OPENED, ts_ms=START_MS, row=row_of())

        assert client.unreported_count == 0
    assert len(service.requests) == 1


@pytest.mark.proves("R319")
async def test_an_answer_under_another_binding_is_refused(tmp_path: Path) -> None:
    service = Service(DecideTargetWeightsResponse(binding_hash="0" * 64, results=()))
    async with client_with(service, tmp_path) as client:
        with pytest.raises(BindingMismatch, match="0000"):
            await client.decide(OPENED, ts_ms=START_MS, row=row_of())


@pytest.mark.proves("R318")
async def test_an_open_breaker_answers_locally_without_asking(tmp_path: Path) -> None:
    service = Service(gone())
    async with client_with(service, tmp_path, breaker_failures=2, attempts_max=1) as client:
        for number in range(5):
            await client.decide(OPENED, ts_ms=START_MS + number, row=row_of())

        assert client.unreported_count == 5
    assert len(service.requests) == 2


async def test_local_answers_are_reported_once_and_stay_until_confirmed(tmp_path: Path) -> None:
    service = Service(gone())
    async with client_with(service, tmp_path, attempts_max=1) as client:
        await client.decide(OPENED, ts_ms=START_MS, row=row_of())
        with pytest.raises(ServiceUnavailable):
            await client.report_local_answers()
        assert client.unreported_count == 1

        taken = ReportLocalAnswersResponse(
            binding_hash=PROXY_BINDING_HASH, accepted_count=1, known_count=0
        )
        service.answers = [taken]
        assert await client.report_local_answers() == 1
        assert await client.report_local_answers() == 0
    reports = [r for r in service.requests if isinstance(r, ReportLocalAnswersRequest)]
    assert len(reports) == 2
    assert len(reports[-1].answers) == 1


async def test_a_plan_that_the_service_refuses_keeps_no_other_plans_answers_waiting(
    tmp_path: Path,
) -> None:
    """A journal that outlived a ledger holds answers that nobody will ever take."""
    service = Service(gone())
    lost = OpenedPlan(plan=plan_of("lost"), binding_hash=PROXY_BINDING_HASH)
    taken = ReportLocalAnswersResponse(
        binding_hash=PROXY_BINDING_HASH, accepted_count=1, known_count=0
    )
    async with client_with(service, tmp_path, attempts_max=1) as client:
        for opened in (lost, OPENED):
            await client.decide(opened, ts_ms=START_MS, row=row_of())
        service.answers = [PlanNotFound("no plan is named 'lost'", plan_id="lost"), taken]
        with pytest.raises(PlanNotFound):
            await client.report_local_answers()

        (left,) = client._journal.pending
    assert left.plan_id == "lost"


@pytest.mark.proves("R318")
async def test_own_answers_of_many_rows_cost_one_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sync takes a disk milliseconds: one per row would outlast the deadline many times."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    symbols = tuple(f"S{number}" for number in range(50))
    opened = OpenedPlan(plan=plan_of("wide", symbols), binding_hash=PROXY_BINDING_HASH)
    async with client_with(Service(gone()), tmp_path, attempts_max=1) as client:
        rows = tuple(map(row_of, symbols))
        results = await client.decide_many(opened, ts_ms=START_MS, rows=rows)

        assert [result.symbol for result in results] == list(symbols)
        assert client.unreported_count == 50
    assert len(synced) == 1


async def test_answers_of_many_plans_are_reported_plan_by_plan_and_dropped_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bars alternate between plans; neither calls nor rewrites of the file grow with them."""
    plans = [
        OpenedPlan(plan=plan_of(f"plan-{number}"), binding_hash=PROXY_BINDING_HASH)
        for number in range(5)
    ]
    service = Service(gone())
    async with client_with(service, tmp_path, attempts_max=1, breaker_open_s=0.0) as client:
        for bar in range(4):
            for opened in plans:
                await client.decide(opened, ts_ms=START_MS + bar, row=row_of())
        service.answers = [
            ReportLocalAnswersResponse(
                binding_hash=PROXY_BINDING_HASH, accepted_count=4, known_count=0
            )
        ]
        service.requests.clear()
        synced: list[int] = []
        monkeypatch.setattr(os, "fsync", synced.append)
        monkeypatch.setattr(journal_module, "REPORT_ROWS_MAX", 4)

        assert await client.report_local_answers() == 20
        assert client.unreported_count == 0
    assert [(one.plan_id, len(one.answers)) for one in service.requests] == [
        (opened.plan.plan_id, 4) for opened in plans
    ]
    assert len(synced) == 1


async def test_what_was_confirmed_before_the_service_left_is_not_reported_again(
    tmp_path: Path,
) -> None:
    service = Service(gone())
    other = OpenedPlan(plan=plan_of("other"), binding_hash=PROXY_BINDING_HASH)
    taken = ReportLocalAnswersResponse(
        binding_hash=PROXY_BINDING_HASH, accepted_count=1, known_count=0
    )
    async with client_with(service, tmp_path, attempts_max=1) as client:
        for opened in (OPENED, other):
            await client.decide(opened, ts_ms=START_MS, row=row_of())
        service.answers = [taken, gone()]
        with pytest.raises(ServiceUnavailable):
            await client.report_local_answers()

        (left,) = client._journal.pending
    assert left.plan_id == "other"


async def test_a_deadline_bounds_all_attempts_together(tmp_path: Path) -> None:
    service = Service(gone())
    loop = asyncio.get_running_loop()
    async with client_with(service, tmp_path, attempts_max=1_000, deadline_s=0.2) as client:
        began_s = loop.time()
        await client.decide(OPENED, ts_ms=START_MS, row=row_of())

    assert loop.time() - began_s < 1.0
    assert all(isinstance(request, DecideTargetWeightsRequest) for request in service.requests)


async def test_who_is_sent_on_to_an_owner_has_no_more_time_than_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One deadline bounds both: a bar does not wait twice because its plan is elsewhere."""
    other = Service(NotOwner("plan", owner=1, owner_target="policy-1:7303"))
    owner = Service(DeadlineExceeded("late"))
    now_s = itertools.count(step=0.25)
    async with client_with(other, tmp_path, deadline_s=2.0) as client:
        monkeypatch.setattr(client._owners, "follow", lambda *_: owner)
        client._clock = lambda: next(now_s)
        await client.decide(OPENED, ts_ms=START_MS, row=row_of(), deadline_s=1.0)

    assert other.timeouts_s[0] <= 1.0
    assert owner.timeouts_s[0] <= 0.5


@pytest.mark.proves("R318")
@pytest.mark.parametrize("deadline_s", [0.0, -1.0])
async def test_a_deadline_that_is_over_is_not_the_usual_one(
    deadline_s: float, tmp_path: Path
) -> None:
    """Who has no time left at the end of a bar must not wait for a whole deadline more."""
    service = Service(gone())
    loop = asyncio.get_running_loop()
    async with client_with(service, tmp_path, attempts_max=1_000, deadline_s=2.0) as client:
        began_s = loop.time()
        await client.decide(OPENED, ts_ms=START_MS, row=row_of(), deadline_s=deadline_s)
        assert len(service.requests) == 1

        async with client.stream_decisions() as stream:
            await stream.ask(OPENED, ts_ms=START_MS, rows=(row_of(),), deadline_s=deadline_s)
            assert (await anext(stream)).results[0].decision is not None
    assert loop.time() - began_s < 1.0


@pytest.mark.parametrize("deadline_s", [math.inf, math.nan, "1"])
async def test_a_deadline_that_is_none_is_refused(deadline_s: Any, tmp_path: Path) -> None:
    """An item of a stream that never ends would wait for an answer for ever."""
    service = Service(gone())
    async with client_with(service, tmp_path) as client:
        with pytest.raises(InvalidField, match="expected a finite number of seconds"):
            await client.decide(OPENED, ts_ms=START_MS, row=row_of(), deadline_s=deadline_s)
        async with client.stream_decisions() as stream:
            with pytest.raises(InvalidField, match="deadline_s"):
                await stream.ask(OPENED, ts_ms=START_MS, rows=(row_of(),), deadline_s=deadline_s)
    assert not service.requests


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("deadline_s", 0.0),
        ("deadline_s", math.inf),
        ("backoff_s", -0.1),
        # Whoever sleeps for no number of seconds does not wake up.
        ("backoff_s", math.nan),
        ("breaker_open_s", math.nan),
        ("attempts_max", 0),
        ("breaker_failures", 0),
    ],
)
def test_options_that_no_call_could_keep_to_are_refused(
    name: str, value: float, tmp_path: Path
) -> None:
    with pytest.raises(InvalidField, match=f"{name}: found"):
        ClientOptions(**{"journal_file": tmp_path / "journal.jsonl", name: value})


@pytest.mark.proves("R318")
async def test_a_feature_service_that_is_gone_keeps_no_bar_from_policy(tmp_path: Path) -> None:
    """Five feeds in a row fail; the bar is asked all the same, and policy says what it thinks."""
    service = Service(PlanClosed("closed", plan_id="plan"))
    async with client_with(service, tmp_path, attempts_max=1, breaker_failures=2) as client:
        client._features = _Feed(gone())  # type: ignore[assignment]
        for _ in range(5):
            with pytest.raises(ServiceUnavailable):
                await client.ingest([])
        with pytest.raises(PlanClosed):
            await client.decide(OPENED, ts_ms=START_MS, row=row_of())

    assert len(service.requests) == 1


class _Feed:
    """Stands where the feature service is fed, and is gone."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def stream(self, *_: Any, **__: Any) -> Any:
        raise self.error
