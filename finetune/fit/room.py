"""How many studies go through a network together, and cases in runs that memory has room for."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator, Sequence

from torch import Tensor

from data_shards.sample import Image
from finetune.cases import Cases
from finetune.images import Pictures, Study
from finetune.memory import Need, images_at_once, need_of
from pretrain.backbone import Backbone
from pretrain.backbone.modes import without_batch_statistics
from pretrain.backbone.resampling import sizes_at
from pretrain.tiling.windows import within

BATCH_SIZE = 256
"""Planes at a time."""
BATCH_VOXELS = 1 << 20
"""Voxels at a time: the first convolution makes tens of numbers of each."""
_SMALL_VOXELS = 1 << 18
"""Batches up to this size fit everywhere; their need is not measured."""


def studies_at_once(backbone: Backbone, study: Study, *, dense: bool, train: bool = False, together: int = 1) -> int:
    """How many studies like this one the backbone takes at a time: memory bounds it, and speed no longer rises.

    Args:
        backbone: in the mode in which it will run.
        study: one of them.
        dense: whether tokens are asked for.
        train: whether there is a backward pass.
        together: so many must go together, as the studies of a case do where there is a backward pass; the number that
            is returned is never less.

    Raises:
        DataError: there is no room for these.
    """
    images = list(study.images.values())
    shown = [study.rule(name).channels(len(image.pixels)) for name, image in study.images.items()]
    read = [size_read(backbone, image) for image in images]
    sizes = read if study.window is None else [within(study.window, size) for size in read]
    cut = sizes != read
    whole = [backbone.reads(image.pixels.shape[1:]) for image in images]
    voxels = sum(map(math.prod, sizes if cut else whole))
    volumes = any(image.pixels.ndim == 4 for image in images)
    most = max(1, min(BATCH_SIZE, BATCH_VOXELS // voxels)) if volumes else BATCH_SIZE
    most = 1 if cut else most  # the windows of a study are a batch
    if max(most, together) * voxels <= _SMALL_VOXELS:
        return max(most, together)
    device = next(backbone.parameters()).device

    def run(batch: Tensor) -> Tensor:
        with without_batch_statistics(backbone):
            features = backbone.features(batch, dense=dense)
        return features.embedding_BD if features.tokens_BTD is None else features.tokens_BTD

    need = 0
    for channels, size in zip(shown, sizes, strict=True):
        known = _needs.setdefault(backbone, {})
        key = (channels, len(size), dense, train, backbone.training, device)
        if key not in known:
            known[key] = need_of(run, channels, len(size), device, train=train)
        need += known[key](size)
    shape = (images[0].pixels.shape[0], *sizes[0]) if cut else images[0].pixels.shape
    name = "images" if together == 1 else f"a case of {together} images"
    return together * images_at_once(need * together, shape, device, most=max(1, most // together), name=name)


_needs: weakref.WeakKeyDictionary[Backbone, dict[tuple[object, ...], Need]] = weakref.WeakKeyDictionary()


def size_read(backbone: Backbone, image: Image) -> tuple[int, ...]:
    """Voxels along each axis as the network reads the image: it may bring all to one spacing, or one size, first."""
    size = tuple(image.pixels.shape[1:])
    if backbone.voxel_mm is not None and image.spacing_mm:
        (size,) = sizes_at(size, image.spacing_mm, backbone.voxel_mm)
    return backbone.reads(size)


def batches(
    backbone: Backbone, pictures: Pictures, rows: Sequence[int], *, dense: bool
) -> Iterator[tuple[list[int], list[Study]]]:
    """Studies of one signature at a time, as many as memory has room for, with their places among ``rows``.

    Nothing is read ahead: a batch ends where the shape changes or it is full, so no more than one is held.
    """
    places: list[int] = []
    held: list[Study] = []
    room = 0
    for place, row in enumerate(rows):
        study = pictures.study(int(row))
        if held and (study.signature != held[0].signature or len(held) >= room):
            yield places, held
            places, held = [], []
        if not held:
            room = studies_at_once(backbone, study, dense=dense)
        places.append(place)
        held.append(study)
    if held:
        yield places, held


def blocks(backbone: Backbone, cases: Cases, *, dense: bool) -> Iterator[tuple[list[int], list[list[Study]]]]:
    """Runs of cases with their studies, together no more than go through the network at a time; one case at least."""
    block: list[int] = []
    held: list[list[Study]] = []
    filled = 0.0
    for case in range(len(cases)):
        studies = cases.studies_of(case)
        share = sum(1 / studies_at_once(backbone, study, dense=dense) for study in studies)
        if block and filled + share > 1 + _ROUNDING:
            yield block, held
            block, held, filled = [], [], 0.0
        block.append(case)
        held.append(studies)
        filled += share
    if block:
        yield block, held


_ROUNDING = 1e-9
