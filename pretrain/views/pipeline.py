"""Augmented views of a batch, computed on the device that holds it."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from pretrain.backbone import normalise
from pretrain.views.config import ViewConfig
from pretrain.views.maps import composed, diagonal
from pretrain.views.random import stream, stream_words, streams, uniforms
from pretrain.views.resolution import coarsen, slices
from pretrain.views.sampling import frame_of, sample, sampling_grid
from pretrain.views.transforms import Change, Draws, Move, Transform, Warp

_SLICE = "views.slices"
"""The stream that says which slice of a volume is shown; no transform has such a name."""
_BLOCK = 1 << 19
"""Values that a CPU works on at a time, which its cache holds."""


class Pipeline:
    """Augments each image by the random numbers of its key.

    Pixels are a function of the image (with its spacing), its key and ``config`` alone: bit for bit the same in
    whatever batch and on whatever worker the image is. Each transform has a stream of its own, so switching one on or
    off leaves the numbers of the others as they were. Planes and the slices of volumes take the same numbers of a key.

    Moves and warps are composed into one resampling. Then a slice is taken and views are made coarser, and then
    intensities are changed, in the order of the transforms.

    Args:
        config: how strongly.
    """

    def __init__(self, config: ViewConfig) -> None:
        self.config = config
        self._acting: dict[tuple[int, ...], list[Transform]] = {}
        self._words: dict[tuple[tuple[str, ...], torch.device], Tensor] = {}

    def __call__(self, images: Tensor, keys_B: Tensor, spacing_mm_BA: Tensor | None = None, view: int = 0) -> Tensor:
        """One view of each image.

        Args:
            images: planes ``B,C,H,W`` or volumes ``B,C,D,H,W``: uint8, or float32 in [-1, 1] as
                :func:`pretrain.intensity.in_range` makes them.
            keys_B: one key per image, see :func:`~pretrain.views.random.sample_keys`, on the device of the images.
            spacing_mm_BA: there too, distance of pixels along each axis, NaN where it is not known: rotations are rigid
                in mm where it is known, else in pixels.
            view: which of the views it is, for ``config.coarser`` and ``config.slices``.

        Returns:
            Normalised float32 images in [-1, 1], as :func:`~pretrain.backbone.normalise` makes them. Their axes are
            ``ceil(size / config.coarser[view])`` long; where ``config.slices[view]``, volumes have become planes.

        Raises:
            TypeError: the images are neither uint8 nor float32.
            ConfigError: a transform is not for such images.
        """
        rows = max(1, _BLOCK // math.prod(images.shape[1:]))
        if images.device.type == "cpu" and len(images) > rows:
            parts = [slice(start, start + rows) for start in range(0, len(images), rows)]
            spacings = [None if spacing_mm_BA is None else spacing_mm_BA[part] for part in parts]
            pairs = zip(parts, spacings, strict=True)
            return torch.cat([self._view(view, images[part], keys_B[part], spacing) for part, spacing in pairs])
        return self._view(view, images, keys_B, spacing_mm_BA)

    def _view(self, view: int, images: Tensor, keys_B: Tensor, spacing_mm_BA: Tensor | None) -> Tensor:
        # A copy of what is in the range already: below it is changed in place.
        images = images.clone() if images.dtype == torch.float32 else normalise(images)
        shape = tuple(images.shape[1:])
        cut = images.ndim == 5 and self.config.slices[view]
        shown = (shape[0], *shape[2:]) if cut else shape
        # What moves sees the volume, what changes values sees the slice.
        moving = [each for each in self._transforms(shape) if not isinstance(each, Change)]
        changes = [each for each in self._transforms(shown) if isinstance(each, Change)]
        draws = self._draws([*moving, *changes], keys_B)
        if moving:
            images = self._moved(images, moving, draws, spacing_mm_BA)
        if cut:
            images = slices(images, uniforms(stream(keys_B, _SLICE), 1)[:, 0])
        images = coarsen(images, self.config.coarser[view])
        if not changes:
            return images
        images = images.add_(1).mul_(0.5)
        for change in changes:
            images = change(images, draws[change.name])
        return images.clamp_(0, 1).mul_(2).sub_(1)

    def _transforms(self, shape: tuple[int, ...]) -> list[Transform]:
        if shape not in self._acting:
            self.config.check_data(shape)
            self._acting[shape] = self.config.acting_on(shape)
        return self._acting[shape]

    def _draws(self, transforms: list[Transform], keys_B: Tensor) -> dict[str, Draws]:
        """The numbers of all transforms, drawn at once: small steps for each by itself would keep a GPU waiting."""
        if not transforms:
            return {}
        names = tuple(each.name for each in transforms)
        if (names, keys_B.device) not in self._words:
            both = [*names, *(f"{name}.more" for name in names)]
            self._words[names, keys_B.device] = stream_words(both, keys_B.device)
        keys_BS, more_BS = streams(keys_B, self._words[names, keys_B.device]).chunk(2, dim=1)
        u_BSK = uniforms(keys_BS, max(each.draws for each in transforms))
        return {
            each.name: Draws(u_BSK[:, place, : each.draws], more_BS[:, place]) for place, each in enumerate(transforms)
        }

    def _moved(
        self, images: Tensor, moving: list[Transform], draws: dict[str, Draws], spacing_mm_BA: Tensor | None
    ) -> Tensor:
        frame = frame_of(images, spacing_mm_BA)
        maps = [diagonal(torch.ones_like(frame.extent_BA))]
        maps += [each.maps(draws[each.name], frame) for each in moving if isinstance(each, Move)]
        warps = [each.displacement(draws[each.name], frame) for each in moving if isinstance(each, Warp)]
        displaced = functools.reduce(torch.add, warps) if warps else None
        grid = sampling_grid(composed(maps), tuple(images.shape[2:]), displaced)
        return sample(images, grid, self.config.padding)


def augment(
    images: Tensor, keys_B: Tensor, config: ViewConfig, spacing_mm_BA: Tensor | None = None, view: int = 0
) -> Tensor:
    """One view of each image; see :class:`Pipeline`, which is kept where many batches are augmented."""
    return Pipeline(config)(images, keys_B, spacing_mm_BA, view)
