"""Holds a stand-down to telling every replica, whichever of them is away."""

from pathlib import Path

import pytest
from tests.unit.client.test_client import Service, client_with, gone

from detent.contracts.calls.policy import SetStandDownRequest, SetStandDownResponse
from detent.contracts.errors import ServiceUnavailable
from detent.contracts.plan import StandDownSource

# Of lengths as clusters have them: three of them are longer than a fact of an error may be.
OTHERS = tuple(f"policy-{at}.policy.detent.svc.cluster.local:7303" for at in range(1, 5))
LIFT = SetStandDownRequest(book="book", lift=StandDownSource.OPS)
FIRST = SetStandDownResponse(book="book", changed_count=0, known_count=1, other_targets=OTHERS)
TOLD = SetStandDownResponse(book="book", changed_count=1, known_count=0, other_targets=OTHERS)


async def test_every_replica_is_told_and_none_is_left_to_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Service(TOLD)
    client = client_with(Service(FIRST), tmp_path)
    monkeypatch.setattr(client._owners, "at", lambda _target: other)
    done = await client.set_stand_down(LIFT)

    assert other.requests == [LIFT] * len(OTHERS)
    assert (done.changed_count, done.known_count, done.other_targets) == (1, 0, ())


async def test_replicas_that_are_away_are_named_whole_and_keep_no_call_from_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often: their failures open no breaker of those that are there."""
    first = Service(FIRST)
    client = client_with(first, tmp_path, attempts_max=1, breaker_failures=3)
    monkeypatch.setattr(client._owners, "at", lambda _target: Service(gone()))
    for _ in range(3):
        with pytest.raises(ServiceUnavailable) as refused:
            await client.set_stand_down(LIFT)
        assert set(refused.value.metadata["untold_targets"].split(", ")) == set(OTHERS)

    assert first.requests == [LIFT] * 3
