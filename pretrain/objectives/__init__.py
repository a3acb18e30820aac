"""Self-supervised objectives, one file each; importing this package imports every file of it, which registers them."""

from importlib import import_module
from pkgutil import iter_modules

from pretrain.objectives.base import OBJECTIVES, Objective, check_parameters, create_objective
from pretrain.objectives.views import Views

__all__ = ["OBJECTIVES", "Objective", "Views", "check_parameters", "create_objective"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
