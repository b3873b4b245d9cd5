"""Read what training and back-tests left: predictions out of fold, and accounts."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from detent.contracts.binding import PROXY_BINDING, ModelBinding
from detent.contracts.errors import InvalidField
from detent.contracts.units import BPS_ONE
from detent.core.evaluation.equity import EquityCurve, curve_after
from detent.offline.backtesting.folder import EQUITY_FILE, SUMMARY_FILE
from detent.offline.backtesting.folder import read_run as read_backtest
from detent.offline.cells import invalid
from detent.offline.parquet import read_parquet
from detent.offline.promotion.scores import Predictions

RUN_SUFFIX = ".run"
RUN_FILE, PREDICTIONS_FILE = "run.json", "predictions.parquet"
# What two back-tests have to share before they say anything about each other: the market,
# what trading in it costs and how its volatility is forecast; in their plans what was permitted.
CONDITIONS = (
    "data_hash",
    "bar_count",
    "execution",
    "fee_bps",
    "slippage_bps",
    "vol_bars",
    "policy_config_hash",
)
PLAN_CONDITIONS = ("symbols", "triggers", "risk_limits")
PREDICTION_COLUMNS = ("ts_ms", "symbol", "p_raw", "p_hat_bps", "proxy_p_hat_bps", "label")
EQUITY_COLUMNS = ("ts_ms", "equity", "traded", "fees", "slippage", "trades")
RUN_BYTES_MAX = 16 * 2**20


class RunFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what a training run says of itself; None is what it does not say.

    Attributes:
        model_version_hash: Manifest hash of the artifact that came out, 64 hex.
        dataset_id: Data set that it read.
        dataset_hash: Hash of that data set's manifest, 64 hex.
        trial_count: Every candidate that it tried, at least 1.
    """

    model_version_hash: str | None
    dataset_id: str | None
    dataset_hash: str | None
    trial_count: int | None


def run_folder_of(artifact: Path) -> Path:
    """Name the folder of the run that made an artifact: it lies beside it."""
    return artifact.parent / f"{artifact.name}{RUN_SUFFIX}"


def read_run(folder: Path) -> RunFacts:
    """Read `run.json`; without one nothing is said.

    Raises:
        DataInvalid: It is there and cannot be read.
    """
    path = folder / RUN_FILE
    if not path.is_file():
        return RunFacts(
            model_version_hash=None, dataset_id=None, dataset_hash=None, trial_count=None
        )
    fields = _object(path)
    texts = {
        name: value
        for name in ("model_version_hash", "dataset_id", "dataset_hash")
        if isinstance(value := fields.get(name), str)
    }
    trials = fields.get("trial_count")
    return RunFacts(
        model_version_hash=texts.get("model_version_hash"),
        dataset_id=texts.get("dataset_id"),
        dataset_hash=texts.get("dataset_hash"),
        trial_count=trials if type(trials) is int and trials >= 1 else None,
    )


def backtest_finding(model: Path | None, proxy: Path | None, binding: ModelBinding) -> str | None:
    """Say why two back-tests are not of an artifact and the proxy under the same conditions.

    Returns:
        Empty where they are, on some bars later than all that the artifact has seen; None
        where one of them is not there.

    Raises:
        DataInvalid: One is there and lacks a part.
    """
    if model is None or proxy is None:
        return None
    if not all((folder / SUMMARY_FILE).is_file() for folder in (model, proxy)):
        return None
    mine = read_backtest(model, records=False).summary
    theirs = read_backtest(proxy, records=False).summary
    named = (("model", mine, binding), ("proxy", theirs, PROXY_BINDING))
    for name, summary, expected in named:
        if summary.binding_hash != expected.binding_hash:
            found = summary.binding_hash[:16]
            return f"{name}: bound to {found}, expected {expected.binding_hash[:16]}"
    differing = [name for name in CONDITIONS if getattr(mine, name) != getattr(theirs, name)]
    differing += [
        name for name in PLAN_CONDITIONS if getattr(mine.plan, name) != getattr(theirs.plan, name)
    ]
    if differing:
        return f"other {', '.join(differing)}"
    cutoff_ts_ms = binding.data_cutoff_ts_ms
    if mine.last_ts_ms <= cutoff_ts_ms:
        return f"bars to {mine.last_ts_ms}, expected some after the data cutoff {cutoff_ts_ms}"
    return ""


def read_predictions(folder: Path) -> Predictions | None:
    """Read the rows that were predicted out of fold; None where there are none.

    What a model said before calibration is rounded as what it said after: otherwise the identity
    would win or lose what rounding alone does.

    Raises:
        DataInvalid: They are there and cannot be read, or a bar and symbol occurs twice.
    """
    path = folder / PREDICTIONS_FILE
    columns = _columns(path, PREDICTION_COLUMNS)
    if columns is None or not len(columns["ts_ms"]):
        return None
    keys = list(zip(columns["ts_ms"].tolist(), columns["symbol"].tolist(), strict=True))
    if len(set(keys)) != len(keys):
        raise invalid(path.name, "a bar and symbol twice", "one row out of fold for each")
    return Predictions(
        ts_ms=columns["ts_ms"].astype(np.int64),
        symbols=columns["symbol"].astype(np.str_),
        p_raw=np.rint(columns["p_raw"].astype(np.float64) * BPS_ONE) / BPS_ONE,
        p=columns["p_hat_bps"].astype(np.float64) / BPS_ONE,
        proxy_p=columns["proxy_p_hat_bps"].astype(np.float64) / BPS_ONE,
        labels=columns["label"].astype(np.bool_),
    )


def read_account(folder: Path | None, *, after_ts_ms: int | None = None) -> EquityCurve | None:
    """Read the equity curve of a back-test; None where there is none.

    Args:
        folder: What the back-test left.
        after_ts_ms: Last instant that the model had seen: what it did until then is no
            evidence. None keeps everything.

    Raises:
        DataInvalid: It is there and is no equity curve.
    """
    if folder is None:
        return None
    path = folder / EQUITY_FILE
    columns = _columns(path, EQUITY_COLUMNS)
    if columns is None or not len(columns["ts_ms"]):
        return None
    whole = {"ts_ms", "trades"}
    kinds = {name: np.int64 if name in whole else np.float64 for name in EQUITY_COLUMNS}
    try:
        curve = EquityCurve(**{name: columns[name].astype(kinds[name]) for name in EQUITY_COLUMNS})
    except InvalidField as error:
        raise invalid(path.name, error.found, error.expected) from error
    return curve if after_ts_ms is None else curve_after(curve, after_ts_ms)


def _object(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(RUN_BYTES_MAX), type=dict[str, Any])
    except (OSError, msgspec.MsgspecError) as error:
        raise invalid(path.name, type(error).__name__, "a JSON object") from error


def _columns(path: Path, names: tuple[str, ...]) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        table = read_parquet(path, names)
    except (OSError, pa.ArrowException) as error:
        raise invalid(path.name, type(error).__name__, f"columns {', '.join(names)}") from error
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise invalid(path.name, f"no {', '.join(missing)}", f"columns {', '.join(names)}")
    found = {name: table.column(name) for name in names}
    for name, column in found.items():
        if column.null_count:
            raise invalid(path.name, f"{column.null_count} empty cells in {name}", "none")
    return {name: column.to_numpy() for name, column in found.items()}
