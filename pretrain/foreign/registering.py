"""Registering a network of three axes with timm, whose own configuration knows two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from timm.models import load_pretrained, resolve_pretrained_cfg
from torch import nn


def volumetric_cfg(img_size: int, first_conv: str, classifier: str) -> dict[str, Any]:
    """The default configuration: three channels, mean and deviation of MedMNIST's reference recipe."""
    return {
        "url": "",
        "num_classes": 0,
        "input_size": (3, img_size, img_size, img_size),
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "interpolation": "trilinear",
        "crop_pct": 1.0,
        "first_conv": first_conv,
        "classifier": classifier,
        "license": "apache-2.0",
    }


def create_volumetric(variant: str, pretrained: bool, make: Callable[..., nn.Module], kwargs: dict[str, Any]) -> Any:
    """What ``timm.models.build_model_with_cfg`` does of a model of planes.

    Args:
        variant: registered name.
        pretrained: whether the weights that the configuration names are loaded.
        make: the network of its arguments.
        kwargs: timm's own, and those of the network.
    """
    ours = {name: kwargs.pop(name, None) for name in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")}
    kwargs.pop("pretrained_model_args", None)
    cfg = resolve_pretrained_cfg(variant, ours["pretrained_cfg"], ours["pretrained_cfg_overlay"]).to_dict()
    kwargs.setdefault("num_classes", cfg["num_classes"])
    kwargs.setdefault("in_chans", cfg["input_size"][0])
    model: Any = make(**kwargs)
    model.pretrained_cfg = model.default_cfg = cfg
    if pretrained:
        load_pretrained(model, cfg, num_classes=kwargs["num_classes"], in_chans=kwargs["in_chans"])
    return model
