"""What can go wrong outside the training itself."""

from __future__ import annotations

from data_shards.support.errors import MedformerError


class RegistryError(MedformerError):
    """A model, a version, an alias or a model file that the registry does not have, or will not take."""


class ClusterError(MedformerError):
    """A cluster that cannot be reached, lacks the resources asked for, or lost the run."""
