"""The sizes of Medformer, registered with timm; all but nano have width, depth and heads of ViT-Ti, -S, -B and -L."""

from __future__ import annotations

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model

from pretrain.backbone.loading import checkpoint_filter_fn
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
    "first_conv": "adapter.stem.first",
    "classifier": "head",
    "license": "apache-2.0",
}

# A wide first convolution would take more than all else in volumes.
_COARSE = {"img_size": 224, "stride": 8, "stem_width": 32}
_LARGE_CFG = {**_CFG, "input_size": (3, 224, 224)}

default_cfgs = generate_default_cfgs(
    {
        "medformer_nano.untrained": dict(_CFG),
        "medformer_tiny.untrained": dict(_CFG),
        "medformer_small.untrained": dict(_CFG),
        "medformer_base.untrained": dict(_LARGE_CFG),
        "medformer_large.untrained": dict(_LARGE_CFG),
    }
)


def _create(variant: str, pretrained: bool, **kwargs: Any) -> Medformer:
    return build_model_with_cfg(
        Medformer,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"out_indices": 3, "feature_cls": "getter"},
        **kwargs,
    )


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


@register_model
def medformer_base(pretrained: bool = False, **kwargs: Any) -> Medformer:
    """768 channels, 12 layers, 12 heads, 200 latents, a token for each 8 pixels; for images of 224 pixels, 96^3."""
    size = {"embed_dim": 768, "depth": 12, "num_heads": 12, "latents": 192, **_COARSE}
    return _create("medformer_base", pretrained, **dict(size, **kwargs))


@register_model
def medformer_large(pretrained: bool = False, **kwargs: Any) -> Medformer:
    """1024 channels, 24 layers, 16 heads, 264 latents, a token for each 8 pixels; for images of 224 pixels, 96^3."""
    size = {"embed_dim": 1024, "depth": 24, "num_heads": 16, "latents": 256, **_COARSE}
    return _create("medformer_large", pretrained, **dict(size, **kwargs))
