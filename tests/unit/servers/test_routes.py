"""Proves that a binding is asked where its artifact is served, and nowhere else."""

import pytest
from tests.fakes import FakeFeatures, FakeInference
from tests.rollout_host import CANDIDATE, STABLE

from detent.contracts.errors import InvalidField
from detent.servers.policy.routes import FixedRoutes

FEATURES, INFERENCE = FakeFeatures(STABLE), FakeInference(STABLE)
OTHER = FakeInference(CANDIDATE)
MODEL_IDS = {one.binding_hash: one.model_id for one in (STABLE, CANDIDATE)}


@pytest.mark.parametrize("key", [CANDIDATE.binding_hash, CANDIDATE.model_id])
def test_a_route_is_by_hash_or_by_model_and_all_else_goes_to_the_default(key: str) -> None:
    routes = FixedRoutes(FEATURES, INFERENCE, inference_of={key: OTHER}).knowing(MODEL_IDS)

    assert routes.route_of(CANDIDATE.binding_hash) == (FEATURES, OTHER)
    assert routes.route_of(STABLE.binding_hash) == (FEATURES, INFERENCE)
    assert routes.route_of("0" * 64) == (FEATURES, INFERENCE)


def test_a_route_of_nothing_that_is_held_is_refused() -> None:
    """A slip of the pen would send the candidate's bars to the stable deployment."""
    routes = FixedRoutes(FEATURES, INFERENCE, inference_of={"direction_tset_v1.1.0": OTHER})

    with pytest.raises(InvalidField, match="direction_tset"):
        routes.knowing(MODEL_IDS)
