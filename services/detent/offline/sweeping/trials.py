"""Write what was tried before it is tried, and count it for whoever judges the model.

    ARTIFACT.sweeps/NAME/trials.json   what is swept; there from the first moment on
    ARTIFACT.sweeps/NAME/sweep.json    what was found
    ARTIFACT.sweeps/NAME/policy.json   the policy config that the newest bars would choose

A sweep that was broken off has been seen as well: it counts like one that was finished.
"""

from pathlib import Path
from typing import ClassVar

import msgspec

from detent.contracts.canonical import canonical_bytes, parse_json
from detent.contracts.checks import check_int, check_name
from detent.contracts.errors import DataInvalid, DetentError
from detent.contracts.json_codec import from_json, to_json
from detent.contracts.plan import PolicyConfig
from detent.contracts.units import INT32_MAX
from detent.offline.cells import invalid
from detent.offline.sweeping.grid import Axis
from detent.offline.sweeping.report import SweepReport

SWEEPS_SUFFIX = ".sweeps"
TRIALS_FILE, SWEEP_FILE, POLICY_FILE = "trials.json", "sweep.json", "policy.json"


class TrialLog(msgspec.Struct, frozen=True, kw_only=True):
    """Says what is swept.

    Attributes:
        name: Name of the sweep.
        axes: The settings and their values.
        trial_count: How many combinations they make, at least 1.
    """

    SCHEMA: ClassVar[str] = "detent.sweep_trials.v1"

    name: str
    axes: tuple[Axis, ...]
    trial_count: int

    def __post_init__(self) -> None:
        """Refuse a log of nothing."""
        check_name("name", self.name)
        check_int("trial_count", self.trial_count, 1, INT32_MAX)


def sweeps_folder_of(artifact: Path) -> Path:
    """Name the folder of all sweeps of an artifact: it lies beside it."""
    return artifact.parent / f"{artifact.name}{SWEEPS_SUFFIX}"


def begin(artifact: Path, log: TrialLog) -> Path:
    """Log what will be tried; gives the sweep's own folder.

    Raises:
        DataInvalid: A sweep of that name has been begun: each counts, so none is written over.
    """
    if "/" in log.name or log.name.startswith("."):
        raise invalid("name", log.name, "a name that can be a folder's")
    folder = sweeps_folder_of(artifact) / log.name
    try:
        folder.mkdir(parents=True)
        (folder / TRIALS_FILE).write_bytes(canonical_bytes(log.SCHEMA, to_json(log)))
    except FileExistsError as error:
        raise invalid(log.name, "a sweep of that name", "a new name: every trial counts") from error
    except OSError as error:
        raise invalid(log.name, type(error).__name__, "a folder that can be written") from error
    return folder


def finish(folder: Path, report: SweepReport) -> None:
    """Write what was found, and the policy config to go on with."""
    config = report.settings[report.chosen].policy_config
    (folder / POLICY_FILE).write_bytes(canonical_bytes(PolicyConfig.SCHEMA, to_json(config)))
    (folder / SWEEP_FILE).write_bytes(report.canonical)


def swept_trials(artifact: Path) -> int:
    """Count every trial of every sweep of an artifact.

    Raises:
        DataInvalid: A sweep does not say what it tried.
    """
    folder = sweeps_folder_of(artifact)
    if not folder.is_dir():
        return 0
    return sum(read_log(entry).trial_count for entry in sorted(folder.iterdir()))


def read_log(folder: Path) -> TrialLog:
    """Read what a sweep tried.

    Raises:
        DataInvalid: It does not say.
    """
    try:
        return from_json(TrialLog, parse_json(TRIALS_FILE, (folder / TRIALS_FILE).read_bytes()))
    except (OSError, DetentError) as error:
        expected = f"{TRIALS_FILE} with what was tried"
        message = f"{folder.name}: found {error}, expected {expected}"
        raise DataInvalid(message, found=str(error), expected=expected) from error
