"""Methods of explanation, one file each.

Importing this package imports every file of it, which makes the methods known by name.
"""

from importlib import import_module
from pkgutil import iter_modules

from finetune.explain.base import METHODS, CaseMethod, CasesMethod, Method, create_method, register_method

__all__ = ["METHODS", "CaseMethod", "CasesMethod", "Method", "create_method", "register_method"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
