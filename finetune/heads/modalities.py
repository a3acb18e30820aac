"""The tokens of each modality by themselves, for heads that treat modalities apart."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from data_shards.support.errors import DataError
from finetune.heads.features import CaseFeatures


def by_image(features: CaseFeatures, names: Sequence[str]) -> list[CaseFeatures]:
    """For each name the tokens of images called so; a weight of 0 on all of them where a case has none.

    Args:
        features: of cases, with tokens.
        names: of the images.

    Returns:
        As many as names, with ``tokens_BTD``, ``weight_BT`` and ``study_BT``.

    Raises:
        DataError: a case has an image of another name.
    """
    tokens_BTD = features.tokens
    here_BT = torch.ones_like(tokens_BTD[..., 0], dtype=torch.bool) if features.weight_BT is None else features.mask_BT
    assert here_BT is not None
    strange = sorted(set(features.images) - set(names))
    if strange or not features.images:
        raise DataError(f"an image {', '.join(strange) or 'without a name'}; the head knows {', '.join(names)}")
    image_BT = torch.zeros_like(here_BT, dtype=torch.int64) if features.image_BT is None else features.image_BT
    study_BT = torch.zeros_like(image_BT) if features.study_BT is None else features.study_BT
    found = []
    for name in names:
        place = features.images.index(name) if name in features.images else -1
        mine_BT = here_BT & (image_BT == place)
        count_B = mine_BT.sum(dim=1)
        length = max(1, int(count_B.max()))
        # Those of the image first, in the order they had.
        order_BT = torch.argsort((~mine_BT).to(torch.int8), dim=1, stable=True)[:, :length]
        present_BT = torch.arange(length, device=order_BT.device) < count_B[:, None]
        weights_BT = features.tokens.new_ones(mine_BT.shape) if features.weight_BT is None else features.weight_BT
        weight_BT = weights_BT.gather(1, order_BT) * present_BT
        found.append(
            CaseFeatures(
                features.embedding_BD,
                tokens_BTD.gather(1, order_BT[..., None].expand(-1, -1, tokens_BTD.shape[2])),
                weight_BT / weight_BT.sum(dim=1, keepdim=True).clamp(min=torch.finfo(weight_BT.dtype).tiny),
                study_BT.gather(1, order_BT),
                images=(name,),
            )
        )
    return found


def side_by_side(each: Sequence[CaseFeatures]) -> tuple[Tensor, Tensor]:
    """Tokens of several images at the same cells, along channels; zeros for an image that a case has not.

    Args:
        each: as :func:`by_image` gives them.

    Returns:
        Tokens ``(B, T, I D)`` and their weights ``(B, T)``.

    Raises:
        DataError: images of a case have other numbers of cells, so that they do not lie on each other.
    """
    length = max(features.tokens.shape[1] for features in each)

    def padded(values: Tensor) -> Tensor:
        size = (values.shape[0], length - values.shape[1], *values.shape[2:])
        return torch.cat([values, values.new_zeros(size)], dim=1)

    weights = [padded(features.weight_BT) for features in each if features.weight_BT is not None]
    studies = [padded(features.study_BT) for features in each if features.study_BT is not None]
    weight_BT = torch.stack(weights).amax(dim=0)
    for mine_BT, study_BT in zip(weights, studies, strict=True):
        has_B = (mine_BT > 0).any(dim=1)
        alike = ((mine_BT > 0) == (weight_BT > 0)) & ((study_BT == _study(studies, weights)) | (mine_BT == 0))
        if not bool(alike.all(dim=1)[has_B].all()):
            raise DataError(
                "head spd: fusion early joins the tokens of images that lie on each other, and a case has images of "
                "different numbers of cells; bring them to one size, or use fusion intermediate or late"
            )
    tokens = [padded(features.tokens) * (weight > 0)[..., None] for features, weight in zip(each, weights, strict=True)]
    return torch.cat(tokens, dim=2), weight_BT


def _study(studies: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """The study of each cell, of whichever image has it."""
    found = torch.zeros_like(studies[0])
    for study_BT, weight_BT in zip(studies, weights, strict=True):
        found = torch.where(weight_BT > 0, study_BT, found)
    return found
