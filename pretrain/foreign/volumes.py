"""Names of the networks for volumes that are built of timm's blocks; importing this module registers them with timm."""

from __future__ import annotations

from pretrain.foreign import resnet_3d as _resnet_3d
from pretrain.foreign import vit_3d as _vit_3d

VOLUMETRIC = (*_resnet_3d.NAMES, *_vit_3d.NAMES)
"""They are taken by name without a prefix, and by ``timm:`` like any other."""
