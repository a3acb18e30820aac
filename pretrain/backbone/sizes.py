"""The sizes of Medformer, registered with timm; all but nano have width, depth and heads of ViT-Ti, -S, -B and -L."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from safetensors import SafetensorError
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model

from data_shards.support.errors import CheckpointError
from pretrain.backbone.loading import checkpoint_filter_fn
from pretrain.backbone.perceiver import Medformer, nominal_stride
from pretrain.backbone.recorded import as_recorded
from pretrain.backbone.timm_model import check_size

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
    device, dtype = kwargs.pop("device", None), kwargs.pop("dtype", None)
    if isinstance(kwargs.get("pretrained_cfg"), dict):  # of a folder, as are the arguments
        kwargs = as_recorded(variant, kwargs)
    volume = _volume_size(kwargs)
    if volume is not None and kwargs.get("stride") is None:
        kwargs["stride"] = nominal_stride(volume, kwargs.get("stem"))
    try:
        with torch.device(device) if device is not None else nullcontext():
            model = build_model_with_cfg(
                Medformer,
                variant,
                pretrained,
                pretrained_filter_fn=checkpoint_filter_fn,
                feature_cfg={"out_indices": min(3, kwargs["depth"]), "feature_cls": "getter"},
                **kwargs,
            )
    except (SafetensorError, FileNotFoundError) as error:  # timm names neither the file nor what is wrong with it
        raise CheckpointError(_unreadable(kwargs, error)) from None
    if volume is not None:
        backbone = getattr(model, "model", model)  # inside timm's wrapper when features_only is set
        backbone.set_input_size(volume)
        model.pretrained_cfg["input_size"] = (backbone.in_chans, *volume)
    return model.to(dtype=dtype) if dtype is not None else model


def _volume_size(kwargs: dict[str, Any]) -> tuple[int, ...] | None:
    """The nominal size when it has three axes, taken out of the arguments: timm knows two."""
    for name in ("pretrained_cfg_overlay", "pretrained_cfg"):
        cfg = kwargs.get(name)
        if isinstance(cfg, dict) and len(cfg.get("input_size") or ()) == 4:
            kwargs[name] = {**cfg, "input_size": (cfg["input_size"][0], *cfg["input_size"][2:])}
            kwargs.setdefault("img_size", tuple(cfg["input_size"][1:]))
    size = kwargs.get("img_size")
    if size is None or len(checked := check_size(size)) != 3:
        return None
    del kwargs["img_size"]
    return checked


def _unreadable(kwargs: dict[str, Any], error: Exception) -> str:
    cfg = kwargs.get("pretrained_cfg")
    sources = [kwargs.get("pretrained_cfg_overlay"), cfg if isinstance(cfg, dict) else None]
    file = next((source["file"] for source in sources if source and source.get("file")), "the weights")
    if isinstance(error, FileNotFoundError):
        return f"{file}: there is no such file"
    return f"{file}: not a readable safetensors file: {error}"


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
    """768 channels, 12 layers, 12 heads, 200 latents; for images of 224 pixels, 96^3."""
    size = {"embed_dim": 768, "depth": 12, "num_heads": 12, "latents": 192, "img_size": 224}
    return _create("medformer_base", pretrained, **dict(size, **kwargs))


@register_model
def medformer_large(pretrained: bool = False, **kwargs: Any) -> Medformer:
    """1024 channels, 24 layers, 16 heads, 264 latents; for images of 224 pixels, 96^3."""
    size = {"embed_dim": 1024, "depth": 24, "num_heads": 16, "latents": 256, "img_size": 224}
    return _create("medformer_large", pretrained, **dict(size, **kwargs))
