"""Vision transformers for volumes: timm's, with cubes for patches.

The plain ViT of volumetric baselines (UNETR, Hatamizadeh et al., WACV 2022, section 3.1, and MONAI's): one linear map
of each cube of voxels, a learned position for each cube, timm's blocks. Of other sizes the position table is resampled
trilinearly, and edges that no cube fills are padded with zeros.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.models import generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from pretrain.foreign.registering import create_volumetric, volumetric_cfg

NAMES = ("vit_tiny_3d", "vit_small_3d")
_SIZE, _PATCH = 96, 16

default_cfgs = generate_default_cfgs(
    {f"{name}.untrained": volumetric_cfg(_SIZE, "patch_embed.proj", "head") for name in NAMES}
)


class PatchEmbed3d(nn.Module):
    """A linear map of each cube of voxels, the arguments as of timm's of planes.

    Args:
        img_size: nominal size, one number or one for each axis.
        patch_size: side of a cube.
        in_chans: channels of the volume.
        embed_dim: channels of a token.
        bias: whether the map has one.
    """

    def __init__(
        self,
        img_size: int | Sequence[int],
        patch_size: int,
        in_chans: int = 3,
        embed_dim: int = 768,
        bias: bool = True,
        **_: Any,
    ) -> None:
        super().__init__()
        self.img_size = (img_size,) * 3 if isinstance(img_size, int) else tuple(img_size)
        if len(self.img_size) != 3:
            raise ValueError(f"img_size {img_size}: one number is expected, or one for each of 3 axes")
        self.patch_size = (int(patch_size),) * 3
        self.grid_size = self.dynamic_feat_size(self.img_size)
        self.num_patches = math.prod(self.grid_size)
        self.proj = nn.Conv3d(in_chans, embed_dim, self.patch_size, self.patch_size, bias=bias)

    def feat_ratio(self) -> int:
        """Voxels per token along each axis."""
        return self.patch_size[0]

    def dynamic_feat_size(self, size: Sequence[int]) -> tuple[int, ...]:
        """Tokens along each axis of a volume."""
        return tuple(-(-length // side) for length, side in zip(size, self.patch_size, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """``B, C, D, H, W`` to a map ``B, *grid, embed_dim``."""
        short = [-length % side for length, side in zip(x.shape[2:], self.patch_size, strict=True)]
        padded = F.pad(x, [each for missing in reversed(short) for each in (0, missing)])
        return self.proj(padded).movedim(1, -1)


class VisionTransformer3d(VisionTransformer):
    """timm's VisionTransformer on volumes; arguments as there, any size at run time."""

    def __init__(self, img_size: int | Sequence[int] = _SIZE, patch_size: int = _PATCH, **kwargs: Any) -> None:
        super().__init__(img_size=img_size, patch_size=patch_size, embed_layer=PatchEmbed3d, **kwargs)

    def _pos_embed(self, x: Tensor) -> Tensor:
        grid = x.shape[1:-1]
        x_BTD = x.flatten(1, 3)
        prefix = torch.cat([each for each in (self.cls_token, self.reg_token) if each is not None], dim=1)
        assert self.pos_embed is not None
        own, place_1TD = self.pos_embed.split([self.pos_embed.shape[1] - self.patch_embed.num_patches,
                                               self.patch_embed.num_patches], dim=1)  # fmt: skip
        if grid != self.patch_embed.grid_size:
            table = place_1TD.movedim(-1, 1).unflatten(2, self.patch_embed.grid_size)
            place_1TD = F.interpolate(table, grid, mode="trilinear").flatten(2).movedim(1, -1)
        tokens_BTD = torch.cat([(prefix + own).expand(len(x_BTD), -1, -1), x_BTD + place_1TD], dim=1)
        dropped: Tensor = self.pos_drop(tokens_BTD)
        return dropped


def _create(variant: str, pretrained: bool, **kwargs: Any) -> Any:
    return create_volumetric(variant, pretrained, VisionTransformer3d, kwargs)


@register_model
def vit_tiny_3d(pretrained: bool = False, **kwargs: Any) -> VisionTransformer3d:
    """192 channels, 12 layers, 3 heads, cubes of 16 voxels; for small volumes set ``img_size`` and ``patch_size``."""
    size = {"embed_dim": 192, "depth": 12, "num_heads": 3}
    return _create("vit_tiny_3d", pretrained, **{**size, **kwargs})


@register_model
def vit_small_3d(pretrained: bool = False, **kwargs: Any) -> VisionTransformer3d:
    """384 channels, 12 layers, 6 heads, cubes of 16 voxels; for small volumes set ``img_size`` and ``patch_size``."""
    size = {"embed_dim": 384, "depth": 12, "num_heads": 6}
    return _create("vit_small_3d", pretrained, **{**size, **kwargs})
