"""A frozen network that reads large images in windows, in the place of one that reads them whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from data_shards.support.errors import DataError
from pretrain.backbone import Backbone, Features, StudyFeatures, StudyImage
from pretrain.backbone.position import Spacing
from pretrain.backbone.resampling import at_spacing, study_rows
from pretrain.metadata import Metadata
from pretrain.tiling.blending import batches, blended
from pretrain.tiling.windows import Tiling, Window, check_window, within

VOXELS_AT_ONCE = 1 << 20
"""Windows go through the network together as long as they have no more voxels than this."""


class SlidingWindows(Backbone):
    """Features of images of any size, by a network that is shown windows of them.

    An image that one window covers is read as the network reads it. Of a larger one the tokens are those of its windows
    on the grid of the whole image, blended (:mod:`pretrain.tiling.windows`), and the embedding is the mean of those of
    the windows over the image, each weighted as its tokens are. A network with ``voxel_mm`` brings the image to that
    spacing first; windows are counted in voxels that it reads.

    Args:
        network: in the mode in which it is to run; without gradient.
        window: voxels of a window, one number or one for each axis; a multiple of the stride of the network.
        overlap: of neighbouring windows, as a fraction of their sides.

    Raises:
        ConfigError: a window or overlap that cannot be used.
    """

    def __init__(self, network: Backbone, window: int | Sequence[int], overlap: float = 0.5) -> None:
        super().__init__()
        self.inner = network
        self.window = window if isinstance(window, int) else tuple(window)
        self.overlap = overlap
        self.embed_dim, self.in_chans, self.img_size = network.embed_dim, network.in_chans, network.img_size
        self.stride, self.voxel_mm = int(network.stride), network.voxel_mm
        check_window([window] if isinstance(window, int) else window, overlap, self.stride)

    @property
    def network(self) -> nn.Module:
        """That of what reads the windows."""
        return self.inner.network

    def reads(self, size: Sequence[int]) -> tuple[int, ...]:
        """See :meth:`pretrain.backbone.contract.Backbone.reads`."""
        return self.inner.reads(size)

    def cells(self, size: Sequence[int]) -> tuple[int, ...]:
        """See :meth:`pretrain.backbone.contract.Backbone.cells`."""
        return self.inner.cells(size)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """See :meth:`pretrain.backbone.contract.Backbone.set_grad_checkpointing`."""
        self.inner.set_grad_checkpointing(enable)

    def no_weight_decay(self) -> set[str]:
        """See :meth:`pretrain.backbone.contract.Backbone.no_weight_decay`."""
        return {f"inner.{name}" for name in self.inner.no_weight_decay()}

    def features(
        self, images: Tensor, metadata: Metadata | None = None, spacing_mm: Spacing = None, *, dense: bool = False
    ) -> Features:
        """See :meth:`pretrain.backbone.contract.Backbone.features`."""
        modality_B = None if metadata is None else metadata.modality_B
        found = self.study([StudyImage(images, modality_B, spacing_mm)], metadata, dense=dense)
        return Features(found.embedding_BD, found.tokens[0] if dense else None, found.grids[0], found.voxels[0])

    def study(
        self, images: Sequence[StudyImage], metadata: Metadata | None = None, *, dense: bool = False
    ) -> StudyFeatures:
        """See :meth:`pretrain.backbone.contract.Backbone.study`; subjects are read one after the other.

        Raises:
            DataError: images of a study that is cut into windows differ in size.
            ValueError: as there.
        """
        metadata = metadata or Metadata.uniform(len(images[0].images), device=images[0].images.device)
        sizes = [tuple(image.images.shape[2:]) for image in images]
        if self.voxel_mm is None and all(within(self.window, size) == size for size in sizes):
            return self.inner.study(images, metadata, dense=dense)
        found = [
            self._subject(*study_rows(images, metadata, torch.tensor([row])), dense)
            for row in range(len(images[0].images))
        ]
        tokens = zip(*(each.tokens for each in found), strict=True)
        embedding_BD = torch.cat([each.embedding_BD for each in found])
        return replace(found[0], embedding_BD=embedding_BD, tokens=tuple(torch.cat(each) for each in tokens))

    def _subject(self, images: Sequence[StudyImage], metadata: Metadata, dense: bool) -> StudyFeatures:
        read = [_at(image, self.voxel_mm) for image in images]
        sizes = [tuple(image.images.shape[2:]) for image in read]
        if all(within(self.window, size) == size for size in sizes):
            return self.inner.study(images, metadata, dense=dense)
        if len(set(sizes)) > 1:
            raise DataError(
                f"images of one study with sizes {sizes[0]} and {sizes[1]} cannot be cut into windows alike"
            )
        tiling = Tiling(sizes[0], self.window, self.overlap, self.stride)
        shares: list[Tensor] = []

        def run(windows: Sequence[Window]) -> Tensor:
            """Tokens of all images, one after the other; embeddings are counted meanwhile."""
            found = self.inner.study(
                [_cut(image, windows) for image in read], _repeated(metadata, len(windows)), dense=dense
            )
            share_B = found.embedding_BD.new_tensor([tiling.share(window) for window in windows])
            shares.append(share_B @ found.embedding_BD)
            if not dense:
                return found.embedding_BD[:, :0]
            fields = [
                each.transpose(1, 2).unflatten(-1, grid) for each, grid in zip(found.tokens, found.grids, strict=True)
            ]
            return torch.cat(fields, dim=1)

        at_once = max(1, VOXELS_AT_ONCE // math.prod(tiling.window))
        tokens: tuple[Tensor, ...] = ()
        if dense:
            field = torch.cat([values for _, values in blended(run, tiling, at_once)], dim=1)
            tokens = tuple(each.flatten(1).T[None] for each in field.chunk(len(read)))
        else:
            for layer in tiling.layers():
                for windows in batches(layer, at_once):
                    run(windows)
        embedding_BD = torch.stack(shares).sum(0)[None]
        return StudyFeatures(embedding_BD, tokens, (tiling.cells,) * len(read), tuple(sizes))


def _at(image: StudyImage, voxel_mm: float | None) -> StudyImage:
    """The image at the spacing of the network, which windows are said to have to the last digit."""
    if voxel_mm is None or image.spacing_mm is None:
        return image
    read = at_spacing(image, voxel_mm)
    spacing_mm = read.spacing_mm
    if isinstance(spacing_mm, Tensor):
        return replace(read, spacing_mm=torch.where(spacing_mm > 0, voxel_mm, spacing_mm))
    assert spacing_mm is not None
    return replace(read, spacing_mm=(voxel_mm,) * len(spacing_mm))


def _cut(image: StudyImage, windows: Sequence[Window]) -> StudyImage:
    """Windows of the image of one subject, in the place of as many subjects."""
    count = len(windows)

    def repeated(each: Tensor | None) -> Tensor | None:
        return None if each is None else each.expand(count, *each.shape[1:])

    spacing_mm = image.spacing_mm
    return StudyImage(
        torch.cat([window.of(image.images) for window in windows]),
        repeated(image.modality_B),
        repeated(spacing_mm) if isinstance(spacing_mm, Tensor) else spacing_mm,
        repeated(image.present_B),
    )


def _repeated(metadata: Metadata, count: int) -> Metadata:
    return Metadata(*(each.expand(count) for each in (metadata.organ_B, metadata.modality_B, metadata.task_B)))
