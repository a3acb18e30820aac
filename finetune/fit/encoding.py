"""From studies to features: what goes through the network together, and the cases put together again."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from data_shards.sample import Image
from data_shards.vocabulary import Task
from finetune.fit.room import size_read, studies_at_once
from finetune.heads import CaseFeatures
from finetune.images import Study
from pretrain.backbone import Medformer, StudyImage, normalise
from pretrain.metadata import Metadata
from pretrain.spacing import as_spacing, on_device

Inputs = Callable[[Tensor, np.ndarray, Tensor | None], Tensor]
"""From uint8 images of one shape, their numbers and spacing to what the network reads."""


@dataclass(frozen=True)
class Part:
    """Studies that go through the network together: of the same image names and shapes.

    Attributes:
        places: where they stand among the studies that were given.
        studies: themselves.
    """

    places: np.ndarray
    studies: list[Study]


def parts_of(backbone: Medformer, studies: Sequence[Study]) -> list[Part]:
    """The studies sorted into parts, in the order in which shapes appear.

    A network that brings images to one spacing makes several sizes of one shape; these are parts of their own.
    """
    found: dict[tuple[object, ...], list[int]] = {}
    for place, study in enumerate(studies):
        sizes = [size_read(backbone, image) for _, image in study.sorted_images]
        found.setdefault((study.signature, *sizes), []).append(place)
    return [Part(np.array(places), [studies[place] for place in places]) for places in found.values()]


def encode(
    backbone: Medformer,
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
        inputs: makes the network's input of uint8 images; None normalises them.
    """
    studies = [study for case in cases for study in case]
    owner = np.repeat(np.arange(len(cases)), [len(case) for case in cases])
    numbers = np.arange(len(studies)) if numbers is None else numbers
    parts = parts_of(backbone, studies)
    found = [_encode_part(backbone, part.studies, dense, numbers[part.places], inputs) for part in parts]
    embedding_MD = torch.cat([embedding for embedding, _, _ in found])
    if len(parts) > 1:
        order = torch.from_numpy(np.argsort(np.concatenate([part.places for part in parts]), kind="stable"))
        embedding_MD = embedding_MD[order.to(embedding_MD.device)]
    if len(studies) == len(cases) and len(parts) == 1:
        _, tokens, grid = found[0]
        return CaseFeatures(embedding_MD, tokens, grid=grid)
    features = _bagged(embedding_MD, owner, len(cases))
    if not dense:
        return features
    features = _with_tokens(features, parts, [tokens for _, tokens, _ in found], owner)
    return replace(features, grid=found[0][2]) if len(parts) == 1 else features


def _encode_part(
    backbone: Medformer, studies: Sequence[Study], dense: bool, numbers: np.ndarray, inputs: Inputs | None
) -> tuple[Tensor, Tensor | None, tuple[int, ...] | None]:
    """Embedding ``(M, D)``, tokens ``(M, T, D)``, and the grid where there is one image."""
    size = len(studies)
    if not torch.is_grad_enabled():
        size = min(size, studies_at_once(backbone, studies[0], dense=dense))
    found = [
        _encode_batch(backbone, studies[start : start + size], dense, numbers[start : start + size], inputs)
        for start in range(0, len(studies), size)
    ]
    if len(found) == 1:
        return found[0]
    tokens = [tokens for _, tokens, _ in found if tokens is not None]
    return torch.cat([embedding for embedding, _, _ in found]), torch.cat(tokens) if tokens else None, found[0][2]


def _encode_batch(
    backbone: Medformer, studies: Sequence[Study], dense: bool, numbers: np.ndarray, inputs: Inputs | None
) -> tuple[Tensor, Tensor | None, tuple[int, ...] | None]:
    device = next(backbone.parameters()).device
    names = [name for name, _ in studies[0].sorted_images]
    images = []
    for name in names:
        each = [study.images[name] for study in studies]
        pixels = torch.from_numpy(np.stack([image.pixels for image in each])).to(device)
        spacing_MA = spacing_of(each)
        # Images of one study lie on each other; with one number they are moved alike.
        made = normalise(pixels) if inputs is None else inputs(pixels, numbers, spacing_MA)
        modality_M = torch.tensor([int(image.modality) for image in each], device=device)
        images.append(StudyImage(made, modality_M, on_device(as_spacing(spacing_MA), device)))
    organ_M = torch.tensor([int(study.organ) for study in studies], device=device)
    # The task is the one it met in pretraining: the latents of the others are still as they were drawn.
    task_M = torch.full_like(organ_M, int(Task.self_supervised))
    features = backbone.study(images, Metadata(organ_M, torch.zeros_like(organ_M), task_M), dense=dense)
    if not dense:
        return features.embedding_BD, None, None
    tokens = features.tokens[0] if len(names) == 1 else torch.cat(features.tokens, dim=1)
    return features.embedding_BD, tokens, features.grids[0] if len(names) == 1 else None


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
    features: CaseFeatures, parts: Sequence[Part], tokens: Sequence[Tensor | None], owner: np.ndarray
) -> CaseFeatures:
    """The tokens of each case one after the other, padded to the longest case."""
    each: list[Tensor] = [features.embedding_BD] * len(owner)
    for part, tokens_MTD in zip(parts, tokens, strict=True):
        assert tokens_MTD is not None
        for place, tokens_TD in zip(part.places.tolist(), tokens_MTD, strict=True):
            each[place] = tokens_TD
    size_B = np.bincount(owner, minlength=len(features))
    rows, weights, numbers = [], [], []
    for case in range(len(features)):
        mine = [each[place] for place in np.flatnonzero(owner == case)]
        rows.append(torch.cat(mine))
        weights.append(torch.cat([tokens_TD.new_full((len(tokens_TD),), 1 / (len(tokens_TD) * size_B[case]))
                                  for tokens_TD in mine]))  # fmt: skip
        numbers.append(torch.cat([torch.full((len(tokens_TD),), number, device=tokens_TD.device)
                                  for number, tokens_TD in enumerate(mine)]))  # fmt: skip
    pad = functools.partial(torch.nn.utils.rnn.pad_sequence, batch_first=True)
    return CaseFeatures(
        features.embedding_BD,
        pad(rows),
        pad(weights),
        pad(numbers) if features.studies_BSD is not None else None,
        features.studies_BSD,
        features.present_BS,
    )
