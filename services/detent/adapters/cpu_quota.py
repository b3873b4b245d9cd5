"""Say how many processors this process may really use.

The host's count is the wrong one in a container: a pool of its size on a quota of one processor
spends its time being throttled.
"""

import math
import os
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")


def cpu_count(root: Path = CGROUP_ROOT) -> int:
    """Count the processors that affinity and quota leave, at least 1.

    Args:
        root: Where the control groups are mounted; version 2 (`cpu.max`) and version 1
            (`cpu/cpu.cfs_quota_us`) are read. What cannot be read limits nothing.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = _quota_v2(root) or _quota_v1(root)
    counts = [allowed or 1] if quota is None else [allowed or 1, math.floor(quota)]
    return max(1, min(counts))


def _quota_v2(root: Path) -> float | None:
    words = _words(root / "cpu.max")
    return _share(*words[:2]) if len(words) > 1 else None


def _quota_v1(root: Path) -> float | None:
    quota, period = (_words(root / "cpu" / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    return _share(quota[0], period[0]) if quota and period else None


def _share(quota: str, period: str) -> float | None:
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        # `max` in version 2, -1 in version 1: no quota.
        return None
    return int(quota) / int(period)


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except OSError:
        return []
