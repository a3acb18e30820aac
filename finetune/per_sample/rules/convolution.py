"""Convolutions of any groups, stride, padding and dilation, and those that planes and volumes share.

The forward pass is that of the layer. What a kernel gets of a sample is the product of the patches that it met and the
gradients of the outputs there, as of a linear layer whose rows are places.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finetune.per_sample.contributions import Dense, summed
from finetune.per_sample.rules.base import Rule, Watch, register_rule
from finetune.per_sample.rules.whole import Whole
from pretrain.backbone.stems import InflatedConv

MOST_UNFOLDED = 1 << 20
"""Numbers of patches that are held at a time, unless those of one sample are more."""

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def patches(x: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Tensor:
    """What a kernel meets at each place, ``B, C, places..., kernel...``, without a copy; ``x`` is padded already."""
    axes = len(kernel)
    sizes = [
        (length - step * (size - 1) - 1) // jump + 1
        for length, size, jump, step in zip(x.shape[2:], kernel, stride, dilation, strict=True)
    ]
    jumps = [x.stride(2 + axis) * stride[axis] for axis in range(axes)]
    steps = [x.stride(2 + axis) * dilation[axis] for axis in range(axes)]
    return x.as_strided((*x.shape[:2], *sizes, *kernel), (x.stride(0), x.stride(1), *jumps, *steps), x.storage_offset())


def kernel_gradients(
    x: Tensor,
    gradient: Tensor,
    group_B: Tensor,
    count: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """The gradient of the kernel of each of ``count`` groups of samples, ``K, O, C / groups`` and the kernel's axes.

    Args:
        x: inputs ``B, C, ...``, padded already.
        gradient: of the outputs, ``B, O, ...``.
        group_B: the group of each sample.
        count: of groups of samples.
        kernel: size along each axis.
        stride: along each axis.
        dilation: along each axis.
        groups: of channels.
    """
    axes, met = len(kernel), patches(x, kernel, stride, dilation).unflatten(1, (groups, -1))
    outputs_BGOT = gradient.unflatten(1, (groups, -1)).flatten(3)
    # Sample, groups, channels, places, kernel: channels and kernel are the columns of a place.
    met = met.permute(0, 1, *range(3, 3 + axes), 2, *range(3 + axes, 3 + 2 * axes))
    columns = met.shape[2 + axes :].numel()
    found = x.new_zeros(count, groups, outputs_BGOT.shape[2], columns)
    at_once = max(1, MOST_UNFOLDED * len(x) // max(met.numel(), 1))
    for start in range(0, len(x), at_once):
        run = slice(start, start + at_once)
        rows_BGTP = met[run].reshape(len(met[run]), groups, -1, columns)
        found.index_add_(0, group_B[run], outputs_BGOT[run] @ rows_BGTP)
    return found.reshape(count, gradient.shape[1], -1, *kernel)


def watched_convolution(
    watch: Watch,
    module: Any,
    x: Tensor,
    kernel: Tensor,
    padding: Any,
    add: Callable[[Tensor], None],
) -> Tensor:
    """The outputs of a convolution, whose gradients by group go to ``add`` for the kernel and to the bias.

    Args:
        watch: the recording.
        module: has bias, stride, dilation and groups.
        x: inputs, padded as far as ``padding`` does not say.
        kernel: itself.
        padding: zeros along each axis.
        add: takes the gradients of the kernel by group.
    """
    axes = x.ndim - 2
    stride, dilation = (_each(value, axes) for value in (module.stride, module.dilation))
    group_B = watch.group_of(x.shape[0], module)
    kept = watch.keep(x)
    outputs = _CONVOLUTIONS[axes](x, kernel, watch.fixed(module.bias), stride, padding, dilation, module.groups)

    def seen(gradient: Tensor) -> None:
        zeros = [number for length in reversed(padding) for number in (length, length)]
        inputs = F.pad(kept(), zeros) if any(zeros) else kept()
        size = kernel.shape[2:]
        add(kernel_gradients(inputs, gradient, group_B, watch.groups, size, stride, dilation, module.groups))
        if watch.watches(module.bias):
            by_sample = gradient.sum(dim=list(range(2, gradient.ndim)))
            watch.add(module.bias, Dense(summed(by_sample, group_B, watch.groups)))

    return watch.watch(outputs, seen)


def _each(value: Any, axes: int) -> tuple[int, ...]:
    """One number for each axis; of a plane's layer on a volume those of its first."""
    return tuple(value) if len(value) == axes else (value[0],) * axes


@register_rule(nn.Conv1d, nn.Conv2d, nn.Conv3d)
class ConvolutionRule(Rule):
    """Of one, two or three axes."""

    @property
    def transparent(self) -> bool:
        """The same call, unless the layer pads by a word, which is done beforehand."""
        return not isinstance(self.module.padding, str)

    def methods(self) -> Mapping[str, Callable[..., Any]]:
        """The forward pass."""
        return {"forward": self.forward}

    def forward(self, x: Tensor) -> Tensor:
        """As of the layer."""
        layer = self.module
        padding: Sequence[int] = (0,) * len(layer.kernel_size)
        if layer.padding_mode != "zeros":
            x = F.pad(x, layer._reversed_padding_repeated_twice, mode=layer.padding_mode)
        elif isinstance(layer.padding, str):
            x = F.pad(x, layer._reversed_padding_repeated_twice)
        else:
            padding = layer.padding

        def add(gradient_K: Tensor) -> None:
            self.watch.add(layer.weight, Dense(gradient_K))

        return watched_convolution(self.watch, layer, x, self.watch.fixed(layer.weight), padding, add)


@register_rule(InflatedConv)
class InflatedConvRule(Rule):
    """The kernel that an image meets is made of two weights; what it gets goes back to both."""

    def methods(self) -> Mapping[str, Callable[..., Any]]:
        """The forward pass."""
        return {"forward": self.forward}

    def forward(self, x: Tensor) -> Tensor:
        """As of the layer."""
        layer, axes = self.module, x.ndim - 2
        with torch.enable_grad():
            kernel = layer.kernel(x.shape[1], axes)
        moving = [each for each in (layer.weight, layer.depth) if self.watch.watches(each)]

        def add(gradient_K: Tensor) -> None:
            if moving:
                found = torch.autograd.grad(kernel, moving, gradient_K, is_grads_batched=True, allow_unused=True)
                for parameter, each in zip(moving, found, strict=True):
                    self.watch.add(parameter, Dense(each))

        return watched_convolution(self.watch, layer, layer.continued(x), kernel.detach(), layer.margins(axes), add)


@register_rule(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
class TransposedRule(Whole):
    """Group by group."""
