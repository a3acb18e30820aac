"""ResNet-18 for volumes: timm's, with every kernel a cube.

This is how MedMNIST makes its baseline "ResNet-18 + 3D" (Yang et al., Scientific Data 2023): each convolution,
normalisation and pooling of the planar network is replaced by that of three axes, with the same widths and strides.
``resnet18_3d`` has the stem of ImageNet (a kernel of 7 and a pooling, each of stride 2), ``resnet18_3d_cifar`` that of
MedMNIST's network for 28 voxels (a kernel of 3, no stride, no pooling); ``resnet18_cifar`` is the latter for planes.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from timm.models import generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn

from pretrain.foreign.registering import create_volumetric, volumetric_cfg

NAMES = ("resnet18_3d", "resnet18_3d_cifar")

_PLANAR = {**volumetric_cfg(28, "conv1", "fc"), "input_size": (3, 28, 28), "interpolation": "bilinear"}
default_cfgs = generate_default_cfgs(
    {
        "resnet18_cifar.untrained": _PLANAR,
        "resnet18_3d.untrained": volumetric_cfg(96, "conv1", "fc"),
        "resnet18_3d_cifar.untrained": volumetric_cfg(28, "conv1", "fc"),
    }
)


class Pool3d(nn.Module):
    """The mean over all voxels, in the place of timm's pooling of planes."""

    pool_type = "avg"

    def forward(self, x: Tensor) -> Tensor:
        """``B, C, D, H, W`` to ``B, C``."""
        return x.mean(dim=(2, 3, 4))

    def feat_mult(self) -> int:
        """So many times as many channels come out."""
        return 1


class ResNet3d(ResNet):
    """timm's ResNet on three axes; arguments as there.

    Args:
        small_stem: see :func:`with_small_stem`.
    """

    def __init__(self, *, small_stem: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if small_stem:
            with_small_stem(self)
        _to_three_axes(self)
        self.global_pool = Pool3d()
        self.init_weights()

    def init_weights(self, zero_init_last: bool = True) -> None:
        """As timm does it, for kernels of three axes."""
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        super().init_weights(zero_init_last=zero_init_last)


class PaddedConv3d(nn.Conv3d):
    """A convolution that is handed its zeros around the volume.

    Where a kernel of 7 is longer than a volume of 6 slices, the gradient of its weight by torch 2.15 on a CPU is made
    of whatever was in memory, unless the volume has its zeros already.
    """

    def forward(self, x: Tensor) -> Tensor:
        """The result of ``nn.Conv3d``."""
        assert not isinstance(self.padding, str)
        around = [side for side in reversed(self.padding) for _ in range(2)]
        return F.conv3d(F.pad(x, around), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def with_small_stem(model: ResNet) -> ResNet:
    """A stem for small images: one kernel of 3 without stride, no pooling; everything later sees 4 times the side."""
    first = model.conv1
    model.conv1 = nn.Conv2d(first.in_channels, first.out_channels, 3, 1, 1, bias=False)
    model.maxpool = nn.Identity()
    return model


def _to_three_axes(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            found: nn.Module = PaddedConv3d(
                child.in_channels, child.out_channels, child.kernel_size[0], child.stride[0], int(child.padding[0]),
                child.dilation[0], child.groups, bias=child.bias is not None,
            )  # fmt: skip
        elif isinstance(child, nn.BatchNorm2d):
            found = nn.BatchNorm3d(child.num_features, child.eps, child.momentum)
        elif isinstance(child, nn.MaxPool2d):
            found = nn.MaxPool3d(child.kernel_size, child.stride, child.padding)
        else:
            _to_three_axes(child)
            continue
        setattr(module, name, found)


_LAYERS: dict[str, Any] = {"block": BasicBlock, "layers": (2, 2, 2, 2)}


@register_model
def resnet18_cifar(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """ResNet-18 for small planes: MedMNIST's (28), as on CIFAR."""

    def make(**own: Any) -> ResNet:
        model = with_small_stem(ResNet(**own))
        model.init_weights()
        return model

    return create_volumetric("resnet18_cifar", pretrained, make, {**_LAYERS, **kwargs})


@register_model
def resnet18_3d(pretrained: bool = False, **kwargs: Any) -> ResNet3d:
    """ResNet-18 for volumes with the stem of ImageNet."""
    return create_volumetric("resnet18_3d", pretrained, ResNet3d, {**_LAYERS, **kwargs})


@register_model
def resnet18_3d_cifar(pretrained: bool = False, **kwargs: Any) -> ResNet3d:
    """ResNet-18 for small volumes: MedMNIST's "ResNet-18 + 3D"."""
    return create_volumetric("resnet18_3d_cifar", pretrained, ResNet3d, {**_LAYERS, "small_stem": True, **kwargs})
