"""Transforms of views, one file each; importing this package imports every file of it, which registers them."""

from importlib import import_module
from pkgutil import iter_modules

from pretrain.views.transforms.base import (
    TRANSFORMS,
    Change,
    Draws,
    Frame,
    Move,
    Transform,
    TransformConfig,
    Warp,
    transform,
)

__all__ = ["TRANSFORMS", "Change", "Draws", "Frame", "Move", "Transform", "TransformConfig", "Warp", "transform"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
