"""Rebuilds the stored artifact: `python -m tests.data.golden_artifact FOLDER`.

The bars are whole numbers from a formula, so that every machine has the same. The bytes of
the model depend on the libraries that train and export it; `train_report.json` names them.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from tests.builders import HORIZON, bar_series

from detent.contracts.market import Bar
from detent.offline.commands import build_artifact, load_table

FOLDER = Path(__file__).parent / "golden"
MODEL_ID = "golden_direction_v1.0.0"
CREATED_AT = "2024-01-15T10:30:00Z"
BARS = 700


def bars() -> tuple[Bar, ...]:
    """Give the bars that it is trained on."""
    return bar_series("EURUSD", seed=11, count=BARS)


def write_bars(path: Path) -> Path:
    """Write the bars as a person would have them, dated by when they open."""
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["ts_ms", "symbol", "open", "high", "low", "close", "volume"])
        for bar in bars():
            numbers = (bar.open, bar.high, bar.low, bar.close, bar.volume)
            out.writerow([bar.ts_ms - bar.interval_ms, bar.symbol, *numbers])
    return path


def rebuild(out_dir: Path) -> Path:
    """Build it anew with the command's own function, below a folder."""
    out_dir.mkdir(parents=True, exist_ok=True)
    name, _, version = MODEL_ID.rpartition("_")
    return build_artifact(
        load_table(write_bars(out_dir / "bars.csv")),
        model_name=name,
        version=version,
        horizon_bars=4,
        horizon_id=HORIZON,
        created_at=CREATED_AT,
        out_dir=out_dir,
    )


if __name__ == "__main__":
    sys.stdout.write(f"{rebuild(Path(sys.argv[1]))}\n")
