"""What can go wrong outside the training itself."""

from __future__ import annotations

from data_shards.support.errors import MedformerError


class RegistryError(MedformerError):
    """A model, a version, an alias or a model file that the registry does not have, or will not take."""


TOKEN_NEEDED = "it asks for a token: set RAY_AUTH_TOKEN, or RAY_AUTH_MODE=token with the token in ~/.ray/auth_token"
TOKEN_REFUSED = "it refuses this token, which is that of RAY_AUTH_TOKEN, else of ~/.ray/auth_token"


class ClusterError(MedformerError):
    """A cluster that cannot be reached, lacks the resources asked for, or lost the run."""
