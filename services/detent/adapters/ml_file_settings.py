"""Read settings of a process from the seed's file too, for what no variable says."""

from pathlib import Path
from typing import ClassVar

from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
)


class MlFileSettings(BaseSettings):
    """Says where such a file lies; each process names the part of it that is its own.

    Attributes:
        ML_PART: Which field of `MlSettings` holds this process's settings.
        ml_settings: File in the seed's form, `ml:` in YAML, for what no variable says.
    """

    ML_PART: ClassVar[str]

    ml_settings: Path | None = None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  The signature is theirs.
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  The signature is theirs.
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the file last: a variable says more than it."""
        given = {**env_settings(), **init_settings()}.get("ml_settings")
        if given is None:
            return init_settings, env_settings
        # Slow to load, and not needed without such a file.
        from detent.adapters.ml_settings import read_ml_settings  # noqa: PLC0415

        file = getattr(read_ml_settings(Path(str(given))), cls.ML_PART)
        return init_settings, env_settings, InitSettingsSource(settings_cls, file)
