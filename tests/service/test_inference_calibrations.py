"""Artifacts of every calibration method, from their bytes over the wire to the integers."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from tests.service.test_inference_heads import served
from tests.unit.artifacts import model_inputs
from tests.unit.core.signals.test_binary_maps import WON
from tests.unit.head_artifacts import write_head_artifact

from detent.adapters.artifact_store import read_artifact
from detent.adapters.serving import open_serving
from detent.contracts.binding import Head
from detent.contracts.calibration import (
    BetaSpec,
    Calibration,
    CalibrationMethod,
    CalibrationSpec,
    DirichletRow,
    DirichletSpec,
    TemperatureSpec,
)
from detent.contracts.errors import ArtifactInvalid
from detent.contracts.reasons import Reason
from detent.core.signals.calibration_tables import fit_isotonic, fit_venn_abers

IDENTITY = CalibrationSpec(method=CalibrationMethod.IDENTITY, a=None, b=None, choice=WON)


def _tables() -> tuple[Calibration, Calibration]:
    chance = np.random.default_rng(2)
    p = chance.uniform(0.2, 0.8, 400)
    labels = chance.random(400) < 0.8 * p + 0.05
    return fit_isotonic(p, labels), fit_venn_abers(p, labels)


BINARY: tuple[Calibration, ...] = (
    IDENTITY,
    TemperatureSpec(temperature=Decimal("1.5")),
    CalibrationSpec(method=CalibrationMethod.PLATT, a=Decimal("-0.8"), b=Decimal("0.1")),
    BetaSpec(a=Decimal("0.7"), b=Decimal("0.9"), c=Decimal("0.05")),
    *_tables(),
)
CLASSES: tuple[Calibration, ...] = (
    IDENTITY,
    TemperatureSpec(temperature=Decimal("1.5")),
    DirichletSpec(
        rows=tuple(
            DirichletRow(
                weights=tuple(Decimal("0.9") if i == j else Decimal("0.05") for j in range(3)),
                offset=Decimal(i) / 10,
            )
            for i in range(3)
        )
    ),
)
CASES = [
    *((head, spec) for head in (Head.DIRECTION, Head.FILL) for spec in BINARY),
    *((head, spec) for head in (Head.REGIME, Head.TOXICITY) for spec in CLASSES),
]


@pytest.mark.proves("R167")
@pytest.mark.parametrize(
    ("head", "spec"), CASES, ids=[f"{head}-{spec.method}" for head, spec in CASES]
)
async def test_an_artifact_of_any_method_proves_itself_and_answers(
    head: Head, spec: Calibration, tmp_path: Path
) -> None:
    """It is read, certified at every batch size, and asked in a batch and row by row."""
    artifact = read_artifact(write_head_artifact(tmp_path, head, calibration=spec))
    inputs = model_inputs()[: len(artifact.golden.rows)]
    async with served(artifact) as asked:
        batch = await asked.infer(*inputs)
        alone = [(await asked.infer(row)).rows[0] for row in inputs]
        described = await asked.describe()

    assert artifact.calibration == spec
    assert described.calibration_method == spec.method
    assert batch.calibration_version == spec.calibration_version
    for golden, row, single in zip(artifact.golden.rows, batch.rows, alone, strict=True):
        assert row.signal is not None
        assert single.signal is not None
        assert row.signal.answer == single.signal.answer == golden.answer
    assert len({str(golden.answer) for golden in artifact.golden.rows}) > 1


def test_every_method_of_a_head_is_served() -> None:
    assert {spec.method for spec in (*BINARY, *CLASSES)} == {*CalibrationMethod} - {
        CalibrationMethod.BRACKETS
    }


@pytest.mark.proves("R140", "R206")
@pytest.mark.parametrize("head", [Head.DIRECTION, Head.REGIME])
def test_an_identity_that_won_nothing_is_refused_when_it_is_read(
    head: Head, tmp_path: Path
) -> None:
    """The control: the same artifact with a recorded choice is served."""
    won = write_head_artifact(tmp_path, head, calibration=IDENTITY)
    artifact = open_serving(read_artifact(won)).artifact
    assert artifact.calibration.may_serve
    for row in artifact.golden.rows:
        if row.direction is not None:
            # Both are answered, and so recorded: alike, as nothing was mended.
            assert row.direction.p_hat_raw_bps == row.direction.p_hat_bps
    bare = CalibrationSpec(method=CalibrationMethod.IDENTITY, a=None, b=None)

    with pytest.raises(ArtifactInvalid) as caught:
        write_head_artifact(tmp_path / "bare", head, calibration=bare)
    assert caught.value.gate_reason is Reason.CALIBRATION_MISSING
