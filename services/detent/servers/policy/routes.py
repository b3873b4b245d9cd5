"""Ask for each binding where its artifact is served."""

from collections.abc import Mapping

from detent.servers.policy.ports import Features, Inference


class FixedRoutes:
    """Holds which deployments answer for which binding; one answers for all others."""

    def __init__(
        self,
        features: Features,
        inference: Inference,
        *,
        features_by_hash: Mapping[str, Features] | None = None,
        inference_by_hash: Mapping[str, Inference] | None = None,
    ) -> None:
        """Take the default, and by binding hash what is asked instead."""
        self._features = features
        self._inference = inference
        self._features_by_hash = features_by_hash or {}
        self._inference_by_hash = inference_by_hash or {}

    def route_of(self, binding_hash: str) -> tuple[Features, Inference]:
        """Give what is asked for model inputs and for signals under a binding."""
        return (
            self._features_by_hash.get(binding_hash, self._features),
            self._inference_by_hash.get(binding_hash, self._inference),
        )
