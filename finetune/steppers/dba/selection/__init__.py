"""Which strides of a batch a layer learns from, one file for each rule; importing this package registers them all."""

from importlib import import_module
from pkgutil import iter_modules

from finetune.steppers.dba.selection.base import SELECTIONS, Selection, Strides, register_selection

__all__ = ["SELECTIONS", "Selection", "Strides", "register_selection"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
