"""Self-supervised objectives, one file each; importing this package registers them."""

from pretrain.objectives import barlow_twins, byol, simclr  # noqa: F401  (registration)
from pretrain.objectives.base import OBJECTIVES, Objective, check_parameters, create_objective
from pretrain.objectives.views import Views

__all__ = ["OBJECTIVES", "Objective", "Views", "check_parameters", "create_objective"]
