"""Policy code has no word for a model, so it has no branch for one."""

from __future__ import annotations

import pytest
from tests.tidy.authority import POLICY, check_policy_sees_strength_only
from tests.tidy.tree import Source, python_sources, report


@pytest.mark.proves("R197")
def test_policy_names_no_model_and_no_feature() -> None:
    sources = [s for s in python_sources("services") if s.path.startswith(POLICY)]
    offences = [offence for s in sources for offence in check_policy_sees_strength_only(s)]

    assert any(len(source.tree.body) > 1 for source in sources)
    assert not offences, report(offences)


@pytest.mark.proves("R197")
@pytest.mark.parametrize(
    "text",
    [
        "if binding.model_id == 'ours': weight = 0",
        "def weigh(p_hat_bps: int) -> int: ...",
        "weigh(model_version_hash=x)",
        "getattr(binding, 'architecture_id')",
        "match row:\n    case {'model_id': 'ours'}: ...",
        "from detent.contracts.snapshots import FeatureSnapshot",
        "from detent.core.signals import proxy",
        "import detent.core.features.engine",
    ],
)
def test_policy_that_looks_behind_the_signal_is_reported(text: str) -> None:
    assert check_policy_sees_strength_only(Source(f"{POLICY}weight.py", text))


def test_strength_is_all_that_policy_needs() -> None:
    text = "def weigh(signal_strength_bps: int, binding_hash: str) -> int: ..."

    assert check_policy_sees_strength_only(Source(f"{POLICY}weight.py", text)) == []
    assert check_policy_sees_strength_only(Source("services/detent/core/x.py", "model_id")) == []
