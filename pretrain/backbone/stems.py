"""From pixels to a grid of features, for planes and volumes alike.

A plane counts as a volume that does not change along its depth. So every kernel has a plane and a volume form, made of
the same weights, and a network trained on one opens on the other.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class InflatedConv(nn.Conv2d):
    """A convolution over the plane, and its inflation over volumes (Carreira and Zisserman, CVPR 2017, section 2.4).

    A volume meets ``weight / k + (depth - its mean over the depth)`` at each of the ``k`` depths of the kernel. The sum
    over the depth is ``weight``, so a volume that does not change along its depth gives at every depth what the plane
    gives. ``depth`` starts at zero; planes give it a gradient of zero. Beyond its first and last slice a volume is
    continued by them.

    Args:
        in_chans: canonical channels; see :func:`channels_as` for others.
        out_chans: channels of the result.
        kernel: odd, or equal to ``stride``, in which case patches do not overlap.
        stride: along every axis.
    """

    def __init__(self, in_chans: int, out_chans: int, kernel: int, stride: int = 1) -> None:
        super().__init__(in_chans, out_chans, kernel, stride, padding=0 if kernel == stride else kernel // 2)
        # Four axes, depth and place in the plane: a module with five cannot be brought to torch.channels_last.
        self.depth = nn.Parameter(torch.zeros(out_chans, in_chans, kernel, kernel * kernel))

    def forward(self, x: Tensor) -> Tensor:
        """``B,C,H,W`` or ``B,C,D,H,W`` to the same with every axis ``ceil(size / stride)`` long."""
        kernel, x = self.kernel(x.shape[1], x.ndim - 2), self.continued(x)
        if self.kernel_size == self.stride and self.stride[0] > 1 and not torch.compiler.is_compiling():
            return patchwise(x, kernel, self.bias)
        convolution = F.conv2d if x.ndim == 4 else F.conv3d
        return convolution(x, kernel, self.bias, self.stride[0], self.margins(x.ndim - 2))

    def kernel(self, channels: int, axes: int) -> Tensor:
        """What images of so many channels and axes meet."""
        weight, size = channels_as(self.weight, channels), self.kernel_size[0]
        if axes == 2:
            return with_gradient(weight, self.depth)
        depth = channels_as(self.depth, channels).unflatten(-1, (size, size))
        return weight[:, :, None] / size + depth - depth.mean(dim=2, keepdim=True)

    def continued(self, x: Tensor) -> Tensor:
        """The image with what is beyond its last patches, and beyond the first and last slice of a volume."""
        padding = int(self.padding[0])
        if not padding:
            x = continued(x, self.stride[0])
        if x.ndim == 5 and padding:
            # F.pad does the same, and its backward pass takes longer than the convolution on a CPU.
            x = torch.cat([x[:, :, :1]] * padding + [x] + [x[:, :, -1:]] * padding, dim=2)
        return x

    def margins(self, axes: int) -> tuple[int, ...]:
        """Zeros on each side along each axis."""
        padding = int(self.padding[0])
        return (padding, padding) if axes == 2 else (0, padding, padding)


def continued(x: Tensor, side: int) -> Tensor:
    """``B,C`` and axes that ``side`` divides: what is missing of the last patches repeats the last voxels."""
    missing = [(-size) % side for size in reversed(x.shape[2:])]
    # A graph is for sizes that fit and those that do not.
    if side > 1 and (torch.compiler.is_compiling() or any(missing)):
        x = F.pad(x, [end for size in missing for end in (0, size)], mode="replicate")
    return x


def patchwise(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution whose stride is the size of its kernel, as one product of matrices.

    The result has its channels last in memory, as the norms and the tokens read them. On a CPU it takes a fraction of
    the time of a convolution of few channels, and its backward pass even less.

    Args:
        x: ``B,C`` and axes that the sides of the kernel divide.
        kernel: ``O,C`` and a side along each axis.
        bias: ``O``.
    """
    axes, side = x.ndim - 2, kernel.shape[2]
    for axis in reversed(range(2, 2 + axes)):
        x = x.unflatten(axis, (-1, side))
    # B, C, and cell and place along each axis by turns, to B, cells..., C, places...
    order = [0, *range(2, 2 + 2 * axes, 2), 1, *range(3, 3 + 2 * axes, 2)]
    return F.linear(x.permute(order).flatten(1 + axes), kernel.flatten(1), bias).movedim(-1, 1)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of ``B,C,H,W`` or ``B,C,D,H,W``."""

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


def channels_as(weight_OC: Tensor, channels: int) -> Tensor:
    """The kernel of a convolution over canonical channels, for images of another number of channels.

    With fewer channels than canonical ones the image counts as repeated cyclically, so the kernels that would meet the
    same channel are summed. With more, each kernel is shared out evenly among the channels that repeat its own, so that
    equal channels give the same response.

    Args:
        weight_OC: channels out, channels in, and the axes of the kernel.
        channels: of the images.
    """
    canonical = weight_OC.shape[1]
    if channels == canonical:
        return weight_OC
    if channels < canonical:
        groups = torch.arange(canonical, device=weight_OC.device) % channels
        folded = weight_OC.new_zeros(weight_OC.shape[0], channels, *weight_OC.shape[2:])
        return folded.index_add(1, groups, weight_OC)
    tiles = torch.arange(channels, device=weight_OC.device) % canonical
    copies = (channels - 1 - torch.arange(canonical, device=weight_OC.device)) // canonical + 1
    return (weight_OC / copies.view(-1, *[1] * (weight_OC.ndim - 2)))[:, tiles]


def with_gradient(tensor: Tensor, unused: Tensor) -> Tensor:
    """The same tensor, through which a parameter that has no part in it gets a gradient of zero instead of none.

    Gradients that are not there stop training in parallel, where every process waits for all of them.
    """
    if not (torch.is_grad_enabled() and unused.requires_grad):
        return tensor
    return tensor + 0.0 * unused.flatten()[0]


class ConvStem(nn.Module):
    """Overlapping convolutions, each stage halving the grid (Xiao et al., NeurIPS 2021: early convolutions).

    Args:
        in_chans: canonical number of channels; images of another number see folded or shared kernels
            (:func:`channels_as`), so a grey image gives what the same image in equal colours gives.
        dim: channels of the result.
        stride: pixels per token along each axis, a power of two.
        width: channels of the first convolution, doubled by every stage but the last; None makes the stage before the
            last half as wide as the result, and so on.

    Raises:
        ValueError: ``stride`` is not a power of two above one, or ``width`` is below one.
    """

    offset = 0.0
    mapped = False

    def __init__(self, in_chans: int, dim: int, stride: int = 4, width: int | None = None) -> None:
        super().__init__()
        stages = stride.bit_length() - 1
        if width is not None and width < 1:
            raise ValueError(f"stem_width {width}: at least one channel is expected")
        if stride != 2**stages or stages < 1:
            raise ValueError(f"stride {stride} of the stem is not a power of two above one")
        widths = [max(dim >> (stages - n), 16) if width is None else width << n for n in range(stages)] + [dim]
        self.stride = stride
        self.first = InflatedConv(in_chans, widths[0], 3)
        layers: list[nn.Module] = []
        for narrow, wide in pairwise(widths):
            layers += [ChannelNorm(narrow), nn.GELU(), InflatedConv(narrow, wide, 3, stride=2)]
        self.stages = nn.Sequential(*layers, ChannelNorm(dim))

    def forward(self, images: Tensor) -> Tensor:
        """Features ``B, dim, ceil(size / stride) for each axis`` of images ``B,C,H,W`` or ``B,C,D,H,W``."""
        # The norms between the convolutions read channels, and so do the tokens: with channels last neither copies.
        layout = torch.channels_last if images.ndim == 4 else torch.channels_last_3d
        features: Tensor = self.stages(self.first(images.contiguous(memory_format=layout)))
        return features


class HierarchicalStem(nn.Module):
    """Patches of half the stride, then the 2 x 2 (x 2) of each token joined (hMLP; Touvron et al., ECCV 2022, sec. 5).

    Linear maps with a norm and an activation between them: no pixel is read twice, nothing is computed at full
    resolution, and a token sees the pixels of its own cell alone, so that it is the same whether its neighbours are
    hidden or not.

    Args:
        in_chans: canonical number of channels; see :func:`channels_as` for others.
        dim: channels of the result.
        stride: pixels per token along each axis, even.
        width: channels of the first patches; None for an eighth of ``dim``, 16 at least.

    Raises:
        ValueError: ``stride`` is odd or below two, or ``width`` is below one.
    """

    mapped = True  # its features are those of tokens as they are

    def __init__(self, in_chans: int, dim: int, stride: int, width: int | None = None) -> None:
        super().__init__()
        if stride < 2 or stride % 2:
            raise ValueError(f"stride {stride} of the stem 'hmlp': an even number of pixels is expected")
        if width is not None and width < 1:
            raise ValueError(f"stem_width {width}: at least one channel is expected")
        width = max(dim // 8, 16) if width is None else width
        self.stride = stride
        self.offset = (stride - 1) / 2
        self.first = InflatedConv(in_chans, width, stride // 2, stride // 2)
        self.joined = InflatedConv(width, dim, 2, 2)
        self.norms = nn.ModuleList([ChannelNorm(width), ChannelNorm(dim)])

    def forward(self, images: Tensor) -> Tensor:
        """Features ``B, dim, ceil(size / stride) for each axis`` of images ``B,C,H,W`` or ``B,C,D,H,W``."""
        halves, whole = self.norms
        first = self.first(continued(images, self.stride))
        features: Tensor = whole(self.joined(F.gelu(halves(first))))
        return features


class PatchStem(nn.Module):
    """One linear map of each patch (Dosovitskiy et al., ICLR 2021); with a stride of one, of each pixel.

    Args:
        in_chans: canonical number of channels.
        dim: channels of the result.
        stride: length of a patch along each axis.

    Raises:
        ValueError: ``stride`` is below one.
    """

    mapped = False

    def __init__(self, in_chans: int, dim: int, stride: int) -> None:
        super().__init__()
        if stride < 1:
            raise ValueError(f"stride {stride} of the patches is below one")
        self.stride = stride
        self.offset = (stride - 1) / 2
        self.first = InflatedConv(in_chans, dim, stride, stride)

    def forward(self, images: Tensor) -> Tensor:
        """Features ``B, dim, ceil(size / stride) for each axis`` of images ``B,C,H,W`` or ``B,C,D,H,W``."""
        features: Tensor = self.first(images)
        return features


Stem = HierarchicalStem | ConvStem | PatchStem


def create_stem(kind: str, in_chans: int, dim: int, stride: int, width: int | None = None) -> Stem:
    """The stem called ``hmlp``, ``conv``, ``patch`` or ``pixel``.

    Raises:
        ValueError: there is no such stem, or it has no such stride.
    """
    if kind == "hmlp":
        return HierarchicalStem(in_chans, dim, stride, width)
    if kind == "conv":
        return ConvStem(in_chans, dim, stride, width)
    if kind == "patch":
        return PatchStem(in_chans, dim, stride)
    if kind == "pixel":
        if stride != 1:
            raise ValueError(f"stride {stride} with stem 'pixel'; every pixel is a token: 1")
        return PatchStem(in_chans, dim, 1)
    raise ValueError(f"stem {kind!r} is none of 'hmlp', 'conv', 'patch', 'pixel'")
