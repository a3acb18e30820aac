"""Transfer strategies: which weights move, one file each.

Importing this package imports every file of it, which makes the strategies known by name.
"""

from importlib import import_module
from pkgutil import iter_modules

from finetune.strategies.base import STRATEGIES, Rates, Stage, Strategy, create_strategy, register_strategy

__all__ = ["STRATEGIES", "Rates", "Stage", "Strategy", "create_strategy", "register_strategy"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
