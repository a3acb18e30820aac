"""Corruptions, one idea a file.

Importing this package imports every file of it, which makes the corruptions known by name.
"""

from importlib import import_module
from pkgutil import iter_modules

from finetune.shift.base import CORRUPTIONS, SEVERITIES, Corruption, register_corruption

__all__ = ["CORRUPTIONS", "SEVERITIES", "Corruption", "register_corruption"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
