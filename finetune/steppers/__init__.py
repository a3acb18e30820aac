"""Steppers: how batches are drawn and steps are taken, one file each.

Importing this package imports every file of it, which makes the steppers known by name.
"""

from importlib import import_module
from pkgutil import iter_modules

from finetune.steppers.base import STEPPERS, Drawing, Learner, Stepper, register_stepper

__all__ = ["STEPPERS", "Drawing", "Learner", "Stepper", "register_stepper"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
