"""From studies to features: what goes through the network together, and the cases put together again."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from data_shards.intensity import BYTES
from data_shards.sample import Image
from data_shards.vocabulary import Task
from finetune.fit.room import size_read, studies_at_once
from finetune.heads import CaseFeatures
from finetune.images import Study
from finetune.per_sample.rows import rows_of
from pretrain.backbone import Backbone, StudyImage, normalise
from pretrain.intensity import in_range
from pretrain.metadata import Metadata
from pretrain.spacing import as_spacing, on_device
from pretrain.tiling import SlidingWindows

Inputs = Callable[[Tensor, np.ndarray, Tensor | None], Tensor]
"""From images of one shape, uint8 or under their rule, their numbers and spacing to what the network reads."""


@dataclass(frozen=True)
class Part:
    """Studies that go through the network together: of the same image names and shapes.

    Attributes:
        places: where they stand among the studies that were given.
        studies: themselves.
    """

    places: np.ndarray
    studies: list[Study]


def parts_of(backbone: Backbone, studies: Sequence[Study]) -> list[Part]:
    """The studies sorted into parts, in the order in which shapes appear.

    A network that brings images to one spacing makes several sizes of one shape; these are parts of their own.
    """
    found: dict[tuple[object, ...], list[int]] = {}
    for place, study in enumerate(studies):
        sizes = [size_read(backbone, image) for _, image in study.sorted_images]
        found.setdefault((study.signature, *sizes), []).append(place)
    return [Part(np.array(places), [studies[place] for place in places]) for places in found.values()]


@dataclass(frozen=True)
class StudyFeatures:
    """What the backbone makes of one study.

    Attributes:
        embedding_D: one vector.
        tokens_TD: one vector per cell of each of its images, one image after the other; None when not asked for.
        grid: cells along each axis, where it is one image; None else, or when not asked for.
        images: name and number of tokens of each image; empty when not asked for.
    """

    embedding_D: Tensor
    tokens_TD: Tensor | None = None
    grid: tuple[int, ...] | None = None
    images: tuple[tuple[str, int], ...] = ()

    def to(self, device: torch.device | str) -> StudyFeatures:
        """The same on ``device``, in memory of its own."""
        tokens = None if self.tokens_TD is None else self.tokens_TD.to(device).clone()
        return replace(self, embedding_D=self.embedding_D.to(device).clone(), tokens_TD=tokens)


def encode(
    backbone: Backbone,
    cases: Sequence[Sequence[Study]],
    *,
    dense: bool,
    numbers: np.ndarray | None = None,
    inputs: Inputs | None = None,
) -> CaseFeatures:
    """What the backbone makes of cases, in the mode it is in and with gradient where that is on.

    Studies of different names or shapes go through it in several batches, and without gradient no more at a time than
    memory has room for; the result does not depend on which others are there.

    Args:
        backbone: as it is.
        cases: the studies of each case.
        dense: whether tokens are asked for.
        numbers: of each study, in order, for ``inputs``; 0, 1, ... when left out.
        inputs: makes the network's input of images as :func:`stacked` gives them; None brings them to its range.
    """
    studies = [study for case in cases for study in case]
    owners = np.repeat(np.arange(len(cases)), [len(case) for case in cases])
    found = iter(encode_studies(backbone, studies, dense, numbers, inputs, owners))
    return together([[next(found) for _ in case] for case in cases])


def encode_studies(
    backbone: Backbone,
    studies: Sequence[Study],
    dense: bool,
    numbers: np.ndarray | None = None,
    inputs: Inputs | None = None,
    owners: np.ndarray | None = None,
) -> list[StudyFeatures]:
    """What the backbone makes of each study, see :func:`encode`; ``owners`` says of which case each is."""
    numbers = np.arange(len(studies)) if numbers is None else numbers
    found: dict[int, StudyFeatures] = {}
    for part in parts_of(backbone, studies):
        with rows_of(None if owners is None else owners[part.places]):
            made = _encode_part(backbone, part.studies, dense, numbers[part.places], inputs)
        found.update(zip(part.places.tolist(), made, strict=True))
    return [found[place] for place in range(len(studies))]


def together(cases: Sequence[Sequence[StudyFeatures]]) -> CaseFeatures:
    """The features of cases, of those of their studies; at least one each."""
    studies = [study for case in cases for study in case]
    owner = np.repeat(np.arange(len(cases)), [len(case) for case in cases])
    features = _bagged(torch.stack([study.embedding_D for study in studies]), owner, len(cases))
    tokens = [study.tokens_TD for study in studies if study.tokens_TD is not None]
    if not tokens:
        return features
    grids = {study.grid for study in studies}
    grid = grids.pop() if len(grids) == 1 else None
    names = sorted({name for study in studies for name, _ in study.images})
    images = [_image_of(study, names).to(tokens[0].device) for study in studies] if len(names) > 1 else None
    if len(studies) == len(cases) and len({len(tokens_TD) for tokens_TD in tokens}) == 1:
        image_BT = None if images is None else torch.stack(images)
        return replace(
            features, tokens_BTD=torch.stack(tokens), grid=grid, image_BT=image_BT, images=tuple(names)
        )  # fmt: skip
    return replace(_with_tokens(features, tokens, images, owner), grid=grid, images=tuple(names))


def _image_of(study: StudyFeatures, names: Sequence[str]) -> Tensor:
    """The place among ``names`` of the image of each token."""
    places, counts = zip(*((names.index(name), count) for name, count in study.images), strict=True)
    return torch.repeat_interleave(torch.tensor(places), torch.tensor(counts))


def _encode_part(
    backbone: Backbone, studies: Sequence[Study], dense: bool, numbers: np.ndarray, inputs: Inputs | None
) -> list[StudyFeatures]:
    """Of studies of one signature."""
    size = len(studies)
    if not torch.is_grad_enabled():
        size = min(size, studies_at_once(backbone, studies[0], dense=dense))
    found: list[StudyFeatures] = []
    for start in range(0, len(studies), size):
        part = slice(start, start + size)
        found += _encode_batch(backbone, studies[part], dense, numbers[part], inputs)
    return found


def _encode_batch(
    backbone: Backbone, studies: Sequence[Study], dense: bool, numbers: np.ndarray, inputs: Inputs | None
) -> list[StudyFeatures]:
    device = next(backbone.parameters()).device
    names = [name for name, _ in studies[0].sorted_images]
    images = []
    for name in names:
        each = [study.images[name] for study in studies]
        pixels = stacked(studies, name, device)
        spacing_MA = spacing_of(each)
        # Images of one study lie on each other; with one number they are moved alike.
        made = ranged(pixels) if inputs is None else inputs(pixels, numbers, spacing_MA)
        modality_M = torch.tensor([int(image.modality) for image in each], device=device)
        images.append(StudyImage(made, modality_M, on_device(as_spacing(spacing_MA), device)))
    organ_M = torch.tensor([int(study.organ) for study in studies], device=device)
    # The task is the one it met in pretraining: the latents of the others are still as they were drawn.
    task_M = torch.full_like(organ_M, int(Task.self_supervised))
    reader: Backbone = backbone
    if (first := studies[0]).window is not None:
        reader = SlidingWindows(backbone, first.window, first.overlap)
    features = reader.study(images, Metadata(organ_M, torch.zeros_like(organ_M), task_M), dense=dense)
    if not dense:
        return [StudyFeatures(embedding_D) for embedding_D in features.embedding_BD]
    tokens_BTD = features.tokens[0] if len(names) == 1 else torch.cat(features.tokens, dim=1)
    grid = features.grids[0] if len(names) == 1 else None
    counts = tuple((name, each.shape[1]) for name, each in zip(names, features.tokens, strict=True))
    pairs = zip(features.embedding_BD, tokens_BTD, strict=True)
    return [StudyFeatures(embedding_D, tokens_TD, grid, counts) for embedding_D, tokens_TD in pairs]


def stacked(studies: Sequence[Study], name: str, device: torch.device) -> Tensor:
    """The images of one name and shape: uint8, or float32 in the range of the network where their rule is another."""
    pixels = torch.from_numpy(np.stack([study.images[name].pixels for study in studies])).to(device)
    rule = studies[0].rule(name)
    return pixels if rule == BYTES else in_range(pixels, rule)


def ranged(images: Tensor) -> Tensor:
    """What :func:`stacked` gives, in the range of the network."""
    return images if images.dtype == torch.float32 else normalise(images)


def spacing_of(images: Sequence[Image]) -> Tensor | None:
    """Distance of voxels of images of one shape, float32 ``(B, A)``, NaN where it is not known; None for nothing."""
    if not any(image.spacing_mm for image in images):
        return None
    axes = images[0].pixels.ndim - 1
    rows = [image.spacing_mm or (math.nan,) * axes for image in images]
    return torch.tensor(rows, dtype=torch.float32)


def _bagged(embedding_MD: Tensor, owner: np.ndarray, count: int) -> CaseFeatures:
    """Cases of several studies: the mean of their embeddings, and these beside each other."""
    if len(owner) == count:
        return CaseFeatures(embedding_MD)
    size_B = np.bincount(owner, minlength=count)
    slot = np.arange(len(owner)) - np.repeat(np.cumsum(size_B) - size_B, size_B)
    at = torch.from_numpy(owner), torch.from_numpy(slot)
    studies_BSD = embedding_MD.new_zeros(count, int(size_B.max()), embedding_MD.shape[1])
    studies_BSD = studies_BSD.index_put(tuple(index.to(embedding_MD.device) for index in at), embedding_MD)
    size = torch.from_numpy(size_B).to(embedding_MD.device)
    present_BS = torch.arange(studies_BSD.shape[1], device=size.device) < size[:, None]
    mean_BD = studies_BSD.sum(dim=1) / size[:, None].to(studies_BSD.dtype)
    return CaseFeatures(mean_BD, studies_BSD=studies_BSD, present_BS=present_BS)


def _with_tokens(
    features: CaseFeatures, each: Sequence[Tensor], images: Sequence[Tensor] | None, owner: np.ndarray
) -> CaseFeatures:
    """The tokens of each case one after the other, padded to the longest case."""
    size_B = np.bincount(owner, minlength=len(features))
    rows, weights, numbers, names = [], [], [], []
    for case in range(len(features)):
        places = np.flatnonzero(owner == case).tolist()
        mine = [each[place] for place in places]
        rows.append(torch.cat(mine))
        weights.append(torch.cat([tokens_TD.new_full((len(tokens_TD),), 1 / (len(tokens_TD) * size_B[case]))
                                  for tokens_TD in mine]))  # fmt: skip
        numbers.append(torch.cat([torch.full((len(tokens_TD),), number, device=tokens_TD.device)
                                  for number, tokens_TD in enumerate(mine)]))  # fmt: skip
        if images is not None:
            names.append(torch.cat([images[place] for place in places]))
    pad = functools.partial(torch.nn.utils.rnn.pad_sequence, batch_first=True)
    return replace(
        features,
        tokens_BTD=pad(rows),
        weight_BT=pad(weights),
        study_BT=pad(numbers) if features.studies_BSD is not None else None,
        image_BT=pad(names) if names else None,
    )
