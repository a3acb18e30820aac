"""Targets: what is to be told of a case, one file each.

Importing this package imports every file of it, which makes the targets known by name.
"""

from importlib import import_module
from pkgutil import iter_modules

from finetune.targets.base import TARGETS, Affine, Metric, Target, create_target, target_from_state

__all__ = ["TARGETS", "Affine", "Metric", "Target", "create_target", "target_from_state"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
