"""Heads: small networks from what the backbone gives to outputs, one file each.

Importing this package imports every file of it, which makes the heads known by name.
"""

from importlib import import_module
from pkgutil import iter_modules

from finetune.heads.base import HEADS, Head, check_head, create_head, register_head
from finetune.heads.features import CaseFeatures
from finetune.heads.instances import Instances

__all__ = ["HEADS", "CaseFeatures", "Head", "Instances", "check_head", "create_head", "register_head"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
