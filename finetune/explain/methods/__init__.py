"""Methods of explanation, one file each.

Importing this package imports every file of it, which makes the methods known by name.
"""

from importlib import import_module
from pkgutil import iter_modules

from finetune.explain.base import (
    CaseMethod,
    CasesMethod,
    Method,
    create_method,
    method_config,
    method_names,
    register_method,
)

__all__ = [
    "CaseMethod", "CasesMethod", "Method", "create_method", "method_config", "method_names", "register_method",
]  # fmt: skip

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
