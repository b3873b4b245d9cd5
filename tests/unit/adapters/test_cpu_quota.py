"""How many processors a process may use: its affinity and its quota, never the host's count."""

import os
from pathlib import Path

import pytest

from detent.adapters.cpu_quota import cpu_count

ALLOWED = len(os.sched_getaffinity(0))


@pytest.mark.proves("R82")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("100000 100000", 1),
        ("50000 100000", 1),
        ("150000 100000\n", 1),
        ("6400000 100000", ALLOWED),
        ("max 100000", ALLOWED),
        ("nonsense", ALLOWED),
        ("1 0", ALLOWED),
    ],
)
def test_the_quota_of_version_2_counts(tmp_path: Path, text: str, expected: int) -> None:
    (tmp_path / "cpu.max").write_text(text)

    assert cpu_count(tmp_path) == expected


@pytest.mark.parametrize(("quota", "expected"), [("100000", 1), ("-1", ALLOWED)])
def test_the_quota_of_version_1_counts(tmp_path: Path, quota: str, expected: int) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")

    assert cpu_count(tmp_path) == expected


def test_without_control_groups_the_affinity_counts(tmp_path: Path) -> None:
    assert cpu_count(tmp_path / "none") == ALLOWED
