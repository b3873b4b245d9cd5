"""Every head's answer is a row of integers under the names of its signal."""

from __future__ import annotations

import numpy as np
import pytest

from detent.api.inference import grpc_service_pb2 as pb
from detent.api.v1 import ml_signal_snapshot_pb2
from detent.contracts.binding import Head
from detent.contracts.signals import (
    BracketProbability,
    BracketsSignal,
    DirectionSignal,
    FillSignal,
    HeadSignal,
    Regime,
    RegimeSignal,
    ToxicitySignal,
)
from detent.servers.inference.tensors import (
    columns_of,
    name_outputs,
    outputs_of,
    write_elements,
)

BRACKETS = ("low", "mid", "high")


def brackets(*shares: int, coupled: bool) -> BracketsSignal:
    """Give three brackets, coupled or not."""
    return BracketsSignal(
        brackets=tuple(
            BracketProbability(
                bracket_key=key, p_hat_bps=share, p_unified_bps=share if coupled else None
            )
            for key, share in zip(BRACKETS, shares, strict=True)
        )
    )


SIGNALS: dict[Head, tuple[HeadSignal, dict[str, list[int]]]] = {
    Head.DIRECTION: (
        DirectionSignal(p_hat_raw_bps=5_100, p_hat_bps=5_200),
        {"p_hat_raw_bps": [5_100], "p_hat_bps": [5_200]},
    ),
    Head.REGIME: (
        RegimeSignal(
            regime_low_prob_bps=2_000,
            regime_mid_prob_bps=3_000,
            regime_high_prob_bps=5_000,
            predicted_regime=Regime.HIGH,
            regime_confidence_bps=5_000,
            spacing_multiplier_x1000=1_500,
        ),
        {
            "regime_low_prob_bps": [2_000],
            "regime_mid_prob_bps": [3_000],
            "regime_high_prob_bps": [5_000],
            "predicted_regime": [3],
            "regime_confidence_bps": [5_000],
            "spacing_multiplier_x1000": [1_500],
        },
    ),
    Head.TOXICITY: (
        ToxicitySignal(
            toxicity_low_prob_bps=6_000,
            toxicity_mid_prob_bps=3_000,
            toxicity_high_prob_bps=1_000,
            predicted_toxicity=Regime.LOW,
            next_regime=Regime.MID,
        ),
        {
            "toxicity_low_prob_bps": [6_000],
            "toxicity_mid_prob_bps": [3_000],
            "toxicity_high_prob_bps": [1_000],
            "predicted_toxicity": [1],
            "next_regime": [2],
        },
    ),
    Head.FILL: (FillSignal(p_fill_bps=700), {"p_fill_bps": [700]}),
    Head.BRACKETS: (
        brackets(1_000, 2_000, 7_000, coupled=True),
        {"p_hat_bps": [1_000, 2_000, 7_000], "p_unified_bps": [1_000, 2_000, 7_000]},
    ),
}


def test_there_is_an_answer_for_every_head() -> None:
    assert set(SIGNALS) == set(Head)


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("head", list(Head))
def test_answer_of_each_head_is_integers(head: Head, raw: bool) -> None:
    signal, expected = SIGNALS[head]
    outputs = outputs_of(head, len(BRACKETS))
    response = pb.ModelInferResponse()
    name_outputs(response, outputs, count=2)
    write_elements(response, outputs, columns_of(outputs, [signal, signal]), raw=raw)

    assert [output.name for output in outputs] == list(expected)
    for index, output in enumerate(response.outputs):
        found = list(output.contents.int_contents)
        if raw:
            found = np.frombuffer(response.raw_output_contents[index], "<i4").tolist()
        assert found == 2 * expected[output.name]
        assert list(output.shape) == [2, len(expected[output.name])]
        assert output.datatype == "INT32"


def test_share_that_is_absent_is_no_probability() -> None:
    outputs = outputs_of(Head.BRACKETS, len(BRACKETS))
    response = pb.ModelInferResponse()
    signals = [brackets(1_000, 2_000, 9_000, coupled=False)]
    name_outputs(response, outputs, count=1)
    write_elements(response, outputs, columns_of(outputs, signals), raw=False)

    assert list(response.outputs[1].contents.int_contents) == [-1, -1, -1]
    assert outputs[1].unit == "basis points, 0 to 10000; -1 where there is none"


def test_regimes_have_the_numbers_of_our_own_wire() -> None:
    unit = {output.name: output.unit for output in outputs_of(Head.TOXICITY, 3)}
    numbers = ml_signal_snapshot_pb2.Regime

    assert unit["next_regime"] == "1 LOW, 2 MID, 3 HIGH"
    assert [numbers.Value(f"REGIME_{name}") for name in ("LOW", "MID", "HIGH")] == [1, 2, 3]
