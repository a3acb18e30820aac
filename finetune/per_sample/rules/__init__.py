"""How gradients by sample are made, one file for each kind of layer; importing this package registers them all."""

from importlib import import_module
from pkgutil import iter_modules

from finetune.per_sample.rules.base import Rule, Watch, known_kinds, register_rule, rule_of
from finetune.per_sample.rules.whole import Whole

__all__ = ["Rule", "Watch", "Whole", "known_kinds", "register_rule", "rule_of"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
