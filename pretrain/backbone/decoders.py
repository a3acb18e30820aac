"""From dense tokens back to voxels: segmentation and restoration."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.backbone.stems import ChannelNorm, InflatedConv
from pretrain.backbone.study import Features


class DenseDecoder(nn.Module):
    """One value for each voxel and output, from the answers of the latents to the dense queries.

    Every token is unfolded by a linear map to the voxels of its cell (sub-pixel convolution, Shi et al., CVPR 2016),
    and convolutions join neighbouring cells. What a network with ``voxel_mm`` read at another spacing is brought to
    that of the images before these convolutions.

    Args:
        dim: channels of the tokens.
        outputs: values of each voxel.
        stride: voxels per token along each axis, as the backbone has it.
        axes: 2 for planes, 3 for volumes.
        in_chans: canonical channels of the images when these are read again at full resolution; 0 when they are not.
        hidden: channels at full resolution.

    Raises:
        ValueError: ``axes`` is neither 2 nor 3.
    """

    def __init__(self, dim: int, outputs: int, stride: int, axes: int, in_chans: int = 0, hidden: int = 32) -> None:
        super().__init__()
        if axes not in (2, 3):
            raise ValueError(f"axes {axes}: 2 for planes or 3 for volumes")
        self.stride, self.axes = stride, axes
        self.unfold = nn.Linear(dim, hidden * stride**axes)
        self.image = InflatedConv(in_chans, hidden, 3) if in_chans else None
        self.refine = nn.Sequential(
            ChannelNorm(hidden), nn.GELU(), InflatedConv(hidden, hidden, 3), ChannelNorm(hidden), nn.GELU()
        )
        self.out = InflatedConv(hidden, outputs, 1)

    def forward(self, features: Features, images: Tensor) -> Tensor:
        """``B, outputs`` and the axes of ``images``.

        Args:
            features: with dense tokens.
            images: those that the features are of; read only where the decoder was made with ``in_chans``.

        Raises:
            ValueError: there are no dense tokens, the images have other axes than the decoder, or the backbone another
                stride.
        """
        if features.tokens_BTD is None:
            raise ValueError("features without dense tokens; ask the backbone for them with dense=True")
        size = images.shape[2:]
        if len(size) != self.axes:
            raise ValueError(f"images of {len(size)} axes, the decoder is for {self.axes}")
        read = tuple(size) if features.voxels is None else features.voxels
        if features.grid != (expected := tuple(-(-length // self.stride) for length in read)):
            raise ValueError(
                f"a grid of {features.grid} tokens for {read} voxels, a decoder of stride {self.stride} needs "
                f"{expected}: give it the stride of the backbone"
            )
        voxels = self._unfolded(features.tokens_BTD, features.grid)
        for axis, length in enumerate(read, start=2):
            voxels = voxels.narrow(axis, 0, length)
        if read != tuple(size):  # the network read the images at another spacing
            voxels = F.interpolate(voxels, size=size, mode="bilinear" if self.axes == 2 else "trilinear")
        if self.image is not None:
            voxels = voxels + self.image(images)
        values: Tensor = self.out(self.refine(voxels))
        return values

    def _unfolded(self, tokens_BTD: Tensor, grid: tuple[int, ...]) -> Tensor:
        """``B, hidden`` and ``stride`` times the grid."""
        cells = self.unfold(tokens_BTD).unflatten(1, grid).unflatten(-1, (-1, *[self.stride] * self.axes))
        # B, cells..., hidden, places within a cell... to B, hidden, and cells and places by turns.
        turns = [place for axis in range(self.axes) for place in (1 + axis, 2 + self.axes + axis)]
        cells = cells.permute(0, 1 + self.axes, *turns)
        return cells.reshape(len(cells), cells.shape[1], *[length * self.stride for length in grid])


class SegmentationDecoder(DenseDecoder):
    """Logits of the classes of each voxel; the image is read again at full resolution, for sharp edges.

    Args:
        dim: channels of the tokens.
        classes: background included, so at least two.
        stride: voxels per token, as the backbone has it.
        axes: 2 for planes, 3 for volumes.
        in_chans: canonical channels of the images.
        hidden: channels at full resolution.

    Raises:
        ValueError: there are fewer than two classes, or ``axes`` is neither 2 nor 3.
    """

    def __init__(self, dim: int, classes: int, stride: int, axes: int, in_chans: int = 3, hidden: int = 32) -> None:
        if classes < 2:
            raise ValueError(f"classes {classes}: at least two are expected, the background is one of them")
        super().__init__(dim, classes, stride, axes, in_chans, hidden)


class RestorationDecoder(DenseDecoder):
    """The image itself, from what the latents know of a damaged one, which is not read again.

    Args:
        dim: channels of the tokens.
        channels: of the images.
        stride: voxels per token, as the backbone has it.
        axes: 2 for planes, 3 for volumes.
        hidden: channels at full resolution.
    """

    def __init__(self, dim: int, channels: int, stride: int, axes: int, hidden: int = 32) -> None:
        super().__init__(dim, channels, stride, axes, 0, hidden)


def dice_loss(logits: Tensor, labels: Tensor, smooth: float = 1.0) -> Tensor:
    """One minus the soft Dice coefficient, averaged over the classes but the background (Milletari et al., 3DV 2016).

    Args:
        logits: ``B, classes`` and the axes of the images.
        labels: class ids ``B`` and the axes of the images, int64.
        smooth: added to numerator and denominator, so that a class that is nowhere costs nothing when nothing is found.

    Raises:
        ValueError: there is no class beside the background.
    """
    if logits.shape[1] < 2:
        raise ValueError(f"logits of {logits.shape[1]} classes; the background and at least one other are expected")
    shares = logits.softmax(dim=1)
    truth = F.one_hot(labels, logits.shape[1]).movedim(-1, 1).to(shares.dtype)
    axes = tuple(range(2, logits.ndim))
    both, sizes = (shares * truth).sum(axes), (shares + truth).sum(axes)
    return 1 - ((2 * both + smooth) / (sizes + smooth))[:, 1:].mean()
