"""Proves that a model in doubt is not asked, that the proxy answers, and that it comes back."""

from pathlib import Path

import pytest
from tests.builders import OTHER_SYMBOL, SYMBOL, row_of
from tests.fakes import PolicyHost, raises
from tests.service.policy_calls import PLAN, ask, open_plan

from detent.contracts.binding import ModelBinding, SignalSource
from detent.contracts.errors import InternalError
from detent.contracts.reasons import Reason
from detent.core.rollout.model_breaker import BreakerLimits
from detent.servers.policy.model_breakers import ModelBreakers

BOTH = (row_of(SYMBOL), row_of(OTHER_SYMBOL))


@pytest.mark.proves("R342")
async def test_a_model_that_fails_is_spared_until_the_window_is_over(
    tmp_path: Path, binding: ModelBinding, caplog: pytest.LogCaptureFixture
) -> None:
    """It fails to the proxy: nothing that a gate holds back is let through by it."""
    now = [0.0]
    breakers = ModelBreakers(BreakerLimits(rows_min=4), lambda: now[0])
    async with PolicyHost(tmp_path / "ledger.sqlite", binding, breakers=breakers) as host:
        await open_plan(host, PLAN, binding)
        host.inference.behavior = raises(InternalError("broken"))

        async def reasons(bar: int) -> set[tuple[SignalSource, Reason | None]]:
            results = (await ask(host, *BOTH, bar=bar)).results
            decisions = [one.decision for one in results]
            return {(one.signal_source, one.fallback_reason) for one in decisions if one}

        failing = {(SignalSource.PROXY, Reason.INFERENCE_ERROR)}
        spared = {(SignalSource.PROXY, Reason.MODEL_BREAKER_OPEN)}
        assert [await reasons(bar) for bar in (0, 1)] == [failing, failing]
        asked = len(host.inference.asked)
        assert [await reasons(bar) for bar in (2, 3, 4)] == [spared] * 3
        assert (len(host.inference.asked), len(host.features.asked)) == (asked, asked)

        host.inference.behavior = host.inference.answers
        now[0] = 299.9
        assert await reasons(5) == spared
        now[0] = 300.0
        assert await reasons(6) == {(SignalSource.MODEL, None)}
    opened = [one for one in caplog.records if one.message == "MODEL_BREAKER_OPENED"]
    assert [vars(one)["episode"] for one in opened] == [1]


@pytest.mark.proves("R342")
async def test_without_a_breaker_a_failing_model_is_asked_on_every_bar(
    tmp_path: Path, binding: ModelBinding
) -> None:
    breakers = ModelBreakers(BreakerLimits(), lambda: 0.0)
    async with PolicyHost(tmp_path / "ledger.sqlite", binding, breakers=breakers) as host:
        await open_plan(host, PLAN, binding)
        host.inference.behavior = raises(InternalError("broken"))
        for bar in range(20):
            await ask(host, *BOTH, bar=bar)

        assert len(host.inference.asked) == 20
