"""The rows of a training, as a monitor reads them: those that were served, in their order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.unit.artifacts import HOUR_MS, bar_table

from detent.contracts.errors import DataInvalid
from detent.core.features.feature_set import direction_bars_v1
from detent.offline.feature_build import iter_table_rows
from detent.offline.feature_files import feature_writer
from detent.offline.feature_reference import write_reference
from detent.servers.monitor.main import read_reference

FEATURES = direction_bars_v1(HOUR_MS)


def test_a_feature_file_becomes_the_reference_of_a_monitor(tmp_path: Path) -> None:
    expected = []
    with feature_writer(tmp_path / "f.parquet", FEATURES, metadata={}, force=False) as write:
        for symbol, block in iter_table_rows(bar_table(), FEATURES):
            write(symbol, block)
            served = [refusal is None for refusal in block.refusals]
            expected.append(np.asarray(block.values)[served])
    with pytest.raises(DataInvalid, match=r"r\.npy: found FileExistsError"):
        write_reference(tmp_path / "f.parquet", tmp_path / "f.parquet" / "r.npy")
    rows = write_reference(tmp_path / "f.parquet", tmp_path / "out" / "r.npy")
    found = read_reference(tmp_path / "out" / "r.npy", FEATURES.feature_names)
    matrix = np.concatenate(expected)

    assert rows == len(matrix) > 1_000
    assert list(found) == list(FEATURES.feature_names)
    assert np.array_equal(np.column_stack(list(found.values())), matrix.astype(np.float64))


def test_what_is_no_reference_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npy").write_text("no rows")
    np.save(tmp_path / "narrow.npy", np.zeros((4, 3)))
    np.save(tmp_path / "infinite.npy", np.full((4, len(FEATURES.feature_names)), np.inf))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)

    for name in ("absent", "text", "narrow", "infinite", "objects"):
        with pytest.raises(DataInvalid, match=name):
            read_reference(tmp_path / f"{name}.npy", FEATURES.feature_names)
    with pytest.raises(DataInvalid, match="text"):
        write_reference(tmp_path / "text.npy", tmp_path / "out.npy")
