"""Read the seed's `ml:` settings file, and say what every key of it sets here.

A key sets something, or states what is so anyway: any other value of such a key is refused by
name, with what of ours says it instead. None is taken and forgotten.

Source: seed 003, sections 12.5.1, 12.5.4 and 12.13; rows R74, R262 and R263.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from detent.contracts.errors import InvalidField
from detent.contracts.units import BPS_ONE

Model = Literal["lightgbm", "logistic", "random_forest"]
DEFAULT_WINDOWS, DEFAULT_HORIZON_S = (10, 30, 60), 60
FILL_FEATURES = ("distance_bps", "spread_bps", "ofi_zscore", "depth_imbalance", "natr_14_5m")
REGISTRY_FILE = "registry.sqlite"
Count = Annotated[int, Field(strict=True, ge=1)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CalibrationSection(_Section):
    """States how often the calibration model is fitted anew; the monitor advises by it."""

    model: Model = "lightgbm"
    retrain_interval_days: Count = 7
    min_training_samples: Count = 10_000


class ToxicitySection(_Section):
    """States what the toxicity model looks at, as `detent heads class` trains it."""

    model: Model = "lightgbm"
    lookback_windows: tuple[Count, ...] = (10, 30, 60)
    prediction_horizon_s: Count = 60


class FillSection(_Section):
    """States what the fill model looks at, as `detent heads fill` trains it."""

    model: Model = "lightgbm"
    features: tuple[str, ...] = ()


class MonitoringSection(_Section):
    """States when to raise an alarm; shares."""

    drift_check_interval_hours: Count = 1
    accuracy_threshold: Share = 0.7
    drift_threshold: Share = 0.2


class RegistrySection(_Section):
    """States where models are kept, and how many versions of one."""

    path: str = "models/"
    max_versions: Count = 10

    @property
    def url(self) -> str:
        """Give the control database of the folder, for `--registry`."""
        return f"sqlite:///{Path(self.path).absolute() / REGISTRY_FILE}"


class MlSettings(_Section):
    """Holds the file; what it does not say stands at the seed's default.

    Attributes:
        enabled: Whether the model runs at all.
        shadow_only: Whether it runs unused.
        model_dir: Folder of the artifact; what acts is not named so (G-REG-1).
        max_inference_latency_ms: Longer answers are dropped.
        fallback_on_error: What a regime answers that has no model, as its artifact has it bound.
        use_l1_features: Whether artifacts may read quotes.
        use_l2_features: Whether artifacts may read books.
    """

    enabled: Annotated[bool, Field(strict=True)] = False
    shadow_only: Annotated[bool, Field(strict=True)] = False
    model_dir: str | None = None
    max_inference_latency_ms: Annotated[int, Field(strict=True, ge=1, le=10_000)] = 10
    fallback_on_error: Literal["neutral", "previous", "error"] = "neutral"
    use_l1_features: Annotated[bool, Field(strict=True)] = True
    use_l2_features: Annotated[bool, Field(strict=True)] = True
    calibration: CalibrationSection = CalibrationSection()
    toxicity_prediction: ToxicitySection = ToxicitySection()
    fill_probability: FillSection = FillSection()
    monitoring: MonitoringSection = MonitoringSection()
    registry: RegistrySection = RegistrySection()

    @property
    def policy(self) -> dict[str, Any]:
        """Give the settings of the policy process that the file sets."""
        found: dict[str, Any] = {
            "infer_enabled": self.enabled,
            "active_enabled": self.enabled and not self.shadow_only,
            "shadow_mode": self.enabled and self.shadow_only,
        }
        if self.model_dir is not None:
            found["artifacts_dir"] = Path(self.model_dir).absolute().parent
        return found

    @property
    def monitor(self) -> dict[str, Any]:
        """Give the settings of the monitor that the file states; sections it lacks set nothing."""
        found: dict[str, Any] = {}
        if "calibration" in self.model_fields_set:
            found["retrain_interval_days"] = self.calibration.retrain_interval_days
            found["training_samples_min"] = self.calibration.min_training_samples
        if self.is_monitored:
            # The seed's thresholds are those of the seed's rules.
            found["profile"] = "seed"
            found["check_interval_s"] = 3_600 * self.monitoring.drift_check_interval_hours
            found["accuracy_threshold_bps"] = round(BPS_ONE * self.monitoring.accuracy_threshold)
            found["drift_threshold_bps"] = round(BPS_ONE * self.monitoring.drift_threshold)
        return found

    @property
    def is_monitored(self) -> bool:
        """Say whether the file asks for a monitor."""
        return "monitoring" in self.model_fields_set


class _File(_Section):
    ml: MlSettings


def read_ml_settings(path: Path) -> MlSettings:
    """Read a file.

    Raises:
        InvalidField: It cannot be read, is no YAML, or holds a key or value that is unknown;
            names the first by its path, what was found and what was expected.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidField("ml_settings", type(error).__name__, "a YAML file") from error
    try:
        settings = _File.model_validate(content).ml
    except ValidationError as error:
        raise _named(error) from error
    _check_stated(settings)
    return settings


def _check_stated(settings: MlSettings) -> None:
    """Refuse what is said elsewhere here, unless it says what is so anyway."""
    fill, toxicity = settings.fill_probability, settings.toxicity_prediction
    candidates = "the candidates of `detent train --candidate` say which models are tried"
    heads = "which is what `detent heads` trains"
    stated: tuple[tuple[str, object, tuple[object, ...], str], ...] = (
        ("calibration.model", settings.calibration.model, ("lightgbm",), candidates),
        ("toxicity_prediction.model", toxicity.model, ("lightgbm",), heads),
        (
            "toxicity_prediction.lookback_windows",
            toxicity.lookback_windows,
            (DEFAULT_WINDOWS,),
            f"{heads}; other windows are a feature set's (`detent features`)",
        ),
        (
            "toxicity_prediction.prediction_horizon_s",
            toxicity.prediction_horizon_s,
            (DEFAULT_HORIZON_S,),
            f"{heads}; another horizon is the data set's (`detent dataset build`)",
        ),
        ("fill_probability.model", fill.model, ("lightgbm",), heads),
        ("fill_probability.features", fill.features, ((), FILL_FEATURES), heads),
    )
    for name, found, known, instead in stated:
        if found not in known:
            raise InvalidField(f"ml.{name}", found, f"{known[-1]} or nothing; {instead}")


# Keys that the seeds name somewhere and that are no setting of a process here.
_ELSEWHERE = {
    "ml.canary_pct": (
        "no such key: a share of the symbols belongs to a rollout, `detent rollout percent`"
    )
}


def _named(error: ValidationError) -> InvalidField:
    first: Any = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "ml_settings"
    match first["type"]:
        case "extra_forbidden" if where in _ELSEWHERE:
            return InvalidField(where, repr(first["input"]), _ELSEWHERE[where])
        case "extra_forbidden":
            return InvalidField(where, "an unknown key", f"one of {', '.join(_known(where))}")
        case "missing":
            return InvalidField(where, "(missing)", "the settings under ml:")
        case _:
            return InvalidField(where, repr(first["input"]), first["msg"])


def _known(where: str) -> list[str]:
    """List the keys that may stand beside an unknown one."""
    model: type[BaseModel] = _File
    for name in where.split(".")[:-1]:
        inner = model.model_fields[name].annotation
        assert isinstance(inner, type)
        model = inner
    return sorted(model.model_fields)
