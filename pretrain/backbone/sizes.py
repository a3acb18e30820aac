"""The sizes of Medformer, registered with timm; tiny and small have width, depth and heads of ViT-Ti and ViT-S."""

from __future__ import annotations

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model

from pretrain.backbone.perceiver import Medformer

_CFG = {
    "url": "",
    "num_classes": 0,
    "input_size": (3, 28, 28),
    "fixed_input_size": False,
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "interpolation": "bilinear",
    "crop_pct": 1.0,
    "first_conv": "planar.stem.first",
    "classifier": "head",
    "license": "apache-2.0",
}

default_cfgs = generate_default_cfgs(
    {name: dict(_CFG) for name in ("medformer_nano.untrained", "medformer_tiny.untrained", "medformer_small.untrained")}
)


def _create(variant: str, pretrained: bool, **kwargs: Any) -> Medformer:
    return build_model_with_cfg(Medformer, variant, pretrained, **kwargs)


@register_model
def medformer_nano(pretrained: bool = False, **kwargs: Any) -> Medformer:
    """For tests and CPU demonstrations: 128 channels, 4 layers, 4 heads, 24 latents."""
    return _create("medformer_nano", pretrained, **dict({"embed_dim": 128, "depth": 4, "num_heads": 4}, **kwargs))


@register_model
def medformer_tiny(pretrained: bool = False, **kwargs: Any) -> Medformer:
    """192 channels, 12 layers, 3 heads, 72 latents."""
    size = {"embed_dim": 192, "depth": 12, "num_heads": 3, "latents": 64}
    return _create("medformer_tiny", pretrained, **dict(size, **kwargs))


@register_model
def medformer_small(pretrained: bool = False, **kwargs: Any) -> Medformer:
    """384 channels, 12 layers, 6 heads, 136 latents."""
    size = {"embed_dim": 384, "depth": 12, "num_heads": 6, "latents": 128}
    return _create("medformer_small", pretrained, **dict(size, **kwargs))
