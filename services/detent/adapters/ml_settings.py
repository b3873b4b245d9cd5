"""Read the seed's `ml:` settings file, every key checked, and say what it sets here.

Source: seed 003, sections 12.5.1, 12.5.4 and 12.13; rows R74, R262 and R263.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from detent.contracts.errors import InvalidField

Model = Literal["lightgbm", "logistic", "random_forest"]
Count = Annotated[int, Field(strict=True, ge=1)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CalibrationSection(_Section):
    """States how often the calibration model is fitted anew."""

    model: Model = "lightgbm"
    retrain_interval_days: Count = 7
    min_training_samples: Count = 10_000


class ToxicitySection(_Section):
    """States what the toxicity model looks at."""

    model: Model = "lightgbm"
    lookback_windows: tuple[Count, ...] = (10, 30, 60)
    prediction_horizon_s: Count = 60


class FillSection(_Section):
    """States what the fill model looks at."""

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


class MlSettings(_Section):
    """Holds the file; what it does not say stands at the seed's default.

    Attributes:
        enabled: Whether the model runs at all.
        shadow_only: Whether it runs unused.
        model_dir: Folder of the artifact.
        max_inference_latency_ms: Longer answers are dropped.
        fallback_on_error: What a regime answers that has no model.
        use_l1_features: Whether quotes are used; bound artifacts say it themselves.
        use_l2_features: Whether books are used; bound artifacts say it themselves.
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
    def policy(self) -> dict[str, bool]:
        """Give the settings of the policy process that the file sets."""
        return {
            "infer_enabled": self.enabled,
            "active_enabled": self.enabled and not self.shadow_only,
            "shadow_mode": self.enabled and self.shadow_only,
        }


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
        return _File.model_validate(content).ml
    except ValidationError as error:
        raise _named(error) from error


def _named(error: ValidationError) -> InvalidField:
    first: Any = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "ml_settings"
    match first["type"]:
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
