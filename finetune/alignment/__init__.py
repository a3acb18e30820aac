"""Alignment: the features of one site and of another are made alike without labels of the other, one file each.

Importing this package imports every file of it, which makes the methods known by name.
"""

from importlib import import_module
from pkgutil import iter_modules

from finetune.alignment.base import (
    ALIGNMENTS,
    Alignment,
    AlignmentConfig,
    alignment_config,
    create_alignment,
    register_alignment,
)

__all__ = [
    "ALIGNMENTS", "Alignment", "AlignmentConfig", "alignment_config", "create_alignment", "register_alignment",
]  # fmt: skip

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
