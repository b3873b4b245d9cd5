"""Which of two architectures is the simpler."""

from __future__ import annotations

import pytest

from detent.core.evaluation.simplicity import is_simpler


@pytest.mark.proves("R164")
@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        pytest.param("logistic", "tcn", True, id="logistic-tcn"),
        pytest.param("logistic", "gbt_v1", True, id="logistic-trees"),
        pytest.param("mlp_small", "tcn-3", True, id="mlp-tcn"),
        pytest.param("tcn", "logistic", False, id="tcn-logistic"),
        pytest.param("logistic", "logistic", False, id="the-same"),
        pytest.param("logistic", "transformer", False, id="unknown"),
        pytest.param("transformer", "tcn", False, id="of-unknown"),
    ],
)
def test_the_order_is_of_what_is_known(first: str, second: str, expected: bool) -> None:
    assert is_simpler(first, second) is expected
