"""Hold artifacts against the seed's `ml:` file: what it switches off, no artifact may need.

Fallbacks and features are bound with an artifact and never set from outside, so the file cannot
change them; where it says otherwise than what is bound, the artifact is refused by name.

Source: seed 003, sections 12.5.1 and 12.5.3; row R74.
"""

from collections.abc import Iterable

from detent.adapters.artifact_store import ManifestFolder, PinnedManifest
from detent.adapters.ml_settings import MlSettings
from detent.contracts.binding import FallbackMode, Head
from detent.contracts.errors import ArtifactInvalid
from detent.core.features.engine import BarSource
from detent.core.features.feature_set import FeatureSet
from detent.core.features.feature_spec import BOOK_TRANSFORMS
from detent.core.features.transforms.quote_values import OF_QUOTE


def check_agrees(settings: MlSettings, pinned: PinnedManifest) -> None:
    """Refuse an artifact that needs what the file switches off, or is bound to another fallback.

    Raises:
        ArtifactInvalid: It is one; names the key, what it holds and what was found.
    """
    features = pinned.feature_set
    for key, allowed, needed in (
        ("use_l1_features", settings.use_l1_features, _of_quotes(features)),
        ("use_l2_features", settings.use_l2_features, _of_books(features)),
    ):
        if not allowed and needed:
            raise _refused(pinned, key, "false", f"true: it reads {', '.join(needed)}")
    bound = FallbackMode.NEUTRAL.value
    if pinned.binding.regime_fallback is not None:
        bound = pinned.binding.regime_fallback.mode.value
    wanted = settings.fallback_on_error
    if wanted != bound and pinned.manifest.head is Head.REGIME:
        raise _refused(pinned, "fallback_on_error", wanted, f"{bound}, which it has bound")
    if wanted != FallbackMode.NEUTRAL.value and pinned.manifest.head is not Head.REGIME:
        expected = f"neutral: only a regime has another, and its head is {pinned.manifest.head}"
        raise _refused(pinned, "fallback_on_error", wanted, expected)


def agreeing(settings: MlSettings, folder: ManifestFolder) -> ManifestFolder:
    """Give the folder with what does not agree among what is refused."""
    accepted, refused = dict(folder.accepted), dict(folder.refused)
    for binding_hash, pinned in folder.accepted.items():
        try:
            check_agrees(settings, pinned)
        except ArtifactInvalid as error:
            refused[pinned.manifest.model_id] = error
            del accepted[binding_hash]
    return ManifestFolder(accepted=accepted, refused=refused)


def _refused(pinned: PinnedManifest, key: str, found: str, expected: str) -> ArtifactInvalid:
    name = pinned.manifest.model_id
    return ArtifactInvalid(
        f"{name}: ml.{key}: found {found}, expected {expected}", artifact=name, key=f"ml.{key}"
    )


def _of_quotes(features: FeatureSet) -> list[str]:
    """Name what a set reads of quotes: its features of them, or all where they make its bars."""
    named = _named(features, OF_QUOTE)
    if not named and features.engine.bar_source is BarSource.FROM_QUOTES:
        return ["bars that are built from quotes"]
    return named


def _of_books(features: FeatureSet) -> list[str]:
    return _named(features, BOOK_TRANSFORMS)


def _named(features: FeatureSet, transforms: Iterable[object]) -> list[str]:
    wanted = set(transforms)
    return [spec.name for spec in features.features if spec.transform in wanted]
