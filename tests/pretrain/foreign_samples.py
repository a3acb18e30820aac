"""Small networks of several of timm's families, under arguments that make them quick."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import Tensor

from pretrain.foreign import TimmBackbone, create_foreign

RESNET: dict[str, Any] = {"channels": [8, 12, 16, 24]}
VIT: dict[str, Any] = {"img_size": 28, "patch_size": 7, "embed_dim": 24, "depth": 2, "num_heads": 2}
SWIN: dict[str, Any] = {"img_size": 28, "embed_dim": 12, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 2, 4]}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet": ("resnet18", RESNET),
    "vit": ("vit_tiny_patch16_224", VIT),
    "convnext": ("convnext_atto", {"dims": [8, 12, 16, 24]}),
    "efficientnet": ("efficientnet_b0", {}),
    "swin": ("swin_tiny_patch4_window7_224", SWIN),
}


def made(family: str, seed: int = 0, **kwargs: Any) -> TimmBackbone:
    name, args = FAMILIES[family]
    torch.manual_seed(seed)
    backbone = create_foreign(name, {**args, **kwargs})
    with torch.no_grad():
        for key, tensor in backbone.network.state_dict(keep_vars=True).items():
            if key.endswith("running_mean"):  # else normalisation in evaluation does nothing
                tensor.uniform_(-0.2, 0.2)
            elif key.endswith("running_var") or (key.endswith("weight") and tensor.ndim == 1):  # some begin at zero
                tensor.uniform_(0.5, 1.5)
    return backbone.eval()


def stock(backbone: TimmBackbone, **kwargs: Any) -> torch.nn.Module:
    """timm's own model with the same weights, loaded strictly."""
    model = timm.create_model(backbone.architecture, num_classes=0, **{**backbone.model_args, **kwargs})
    model.load_state_dict(backbone.network.state_dict(), strict=True)
    return model.eval()


def in_own_range(images: Tensor, model: torch.nn.Module) -> Tensor:
    """Images of [-1, 1] as ``timm.data`` hands them to a model: from [0, 1] by its mean and deviation."""
    config = timm.data.resolve_data_config({}, model=model)
    mean, std = (torch.tensor(config[name]).view(-1, 1, 1) for name in ("mean", "std"))
    return ((images + 1) / 2 - mean) / std
