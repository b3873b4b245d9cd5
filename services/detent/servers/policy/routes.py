"""Ask for each binding where its artifact is served."""

from collections.abc import Mapping

from detent.contracts.errors import InvalidField
from detent.servers.policy.ports import Features, Inference

NOTHING: Mapping[str, str] = {}


class FixedRoutes:
    """Holds which deployments answer for which binding; one answers for all others."""

    def __init__(
        self,
        features: Features,
        inference: Inference,
        *,
        features_of: Mapping[str, Features] | None = None,
        inference_of: Mapping[str, Inference] | None = None,
        model_ids: Mapping[str, str] = NOTHING,
    ) -> None:
        """Take the default, and what is asked instead.

        Args:
            features: What gives model inputs.
            inference: What gives signals.
            features_of: What gives model inputs instead, by binding hash or model id.
            inference_of: What gives signals instead, by the same.
            model_ids: The model id of each binding, by its hash.
        """
        self._features = features
        self._inference = inference
        self._features_of = features_of or {}
        self._inference_of = inference_of or {}
        self._model_ids = model_ids

    def knowing(self, model_ids: Mapping[str, str]) -> "FixedRoutes":
        """Give the same routes for bindings that are known by their models.

        Raises:
            InvalidField: A route is of a binding or model that nobody knows: a slip of the pen
                would send its bars to the default in silence.
        """
        known = {*model_ids, *model_ids.values()}
        for field, routes in (("features", self._features_of), ("inference", self._inference_of)):
            for key in routes:
                if key not in known:
                    expected = "a binding hash or a model id that a held manifest gives"
                    raise InvalidField(f"{field} targets", key, expected)
        return FixedRoutes(
            self._features,
            self._inference,
            features_of=self._features_of,
            inference_of=self._inference_of,
            model_ids=model_ids,
        )

    def route_of(self, binding_hash: str) -> tuple[Features, Inference]:
        """Give what is asked for model inputs and for signals under a binding."""
        model_id = self._model_ids.get(binding_hash, binding_hash)
        return (
            self._features_of.get(binding_hash) or self._features_of.get(model_id, self._features),
            self._inference_of.get(binding_hash)
            or self._inference_of.get(model_id, self._inference),
        )
