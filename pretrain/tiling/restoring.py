"""Restoration of a whole image, window by window."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from pretrain.backbone import Medformer
from pretrain.backbone.decoders import DenseDecoder
from pretrain.backbone.position import Spacing
from pretrain.metadata import Metadata
from pretrain.tiling.blending import blended
from pretrain.tiling.windows import Tiling, Window


@torch.no_grad()
def restored(
    backbone: Medformer,
    decoder: DenseDecoder,
    image: Tensor,
    metadata: Metadata | None = None,
    spacing_mm: Spacing = None,
    *,
    window: int | Sequence[int],
    overlap: float = 0.5,
    at_once: int = 1,
) -> Iterator[tuple[int, Tensor]]:
    """What a decoder gives of each voxel of an image, in slabs along its first axis, without gradient.

    Windows are decoded by themselves and blended voxel by voxel. An image that one window covers comes out as the
    decoder gives it. Memory holds the image and one layer of windows: a slab can go to a file before the next.

    Args:
        backbone: in evaluation mode.
        decoder: such as a :class:`~pretrain.backbone.decoders.RestorationDecoder`; logits of a segmentation blend too.
        image: normalised, ``1,C,H,W`` or ``1,C,D,H,W``.
        metadata: of it; None for nothing.
        spacing_mm: of it, see :data:`~pretrain.backbone.position.Spacing`.
        window: voxels of a window, one number or one for each axis.
        overlap: of neighbouring windows, as a fraction of their sides.
        at_once: windows that go through the network together.

    Yields:
        The first line or slice of a slab, and its values ``outputs, ...`` in float32.

    Raises:
        ValueError: several images.
        ConfigError: a window or overlap that cannot be used.
    """
    if len(image) != 1:
        raise ValueError(f"{len(image)} images; one at a time is restored")
    tiling = Tiling(image.shape[2:], window, overlap)

    def run(windows: Sequence[Window]) -> Tensor:
        count = len(windows)
        ids = None if metadata is None else [each.expand(count) for each in vars(metadata).values()]
        spacing = spacing_mm.expand(count, -1) if isinstance(spacing_mm, Tensor) else spacing_mm
        images = torch.cat([each.of(image) for each in windows])
        features = backbone.features(images, None if ids is None else Metadata(*ids), spacing, dense=True)
        values: Tensor = decoder(features, images)
        return values

    yield from blended(run, tiling, at_once)
