"""What a frozen backbone gives of cases, computed once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data_shards.support.errors import DataError
from data_shards.support.memory import available_bytes, in_words
from finetune.cases import Cases
from finetune.fit.encoding import StudyFeatures, encode, encode_studies, together
from finetune.fit.room import BATCH_SIZE, batches, blocks
from finetune.heads import CaseFeatures
from finetune.images import Pictures
from finetune.memory import words_of
from finetune.progress import progress
from pretrain.backbone import Backbone
from pretrain.backbone.modes import evaluating

MOST_KEPT = 1 << 27
"""Of vectors of the studies of one folder at most so many numbers are kept: half a GiB."""
_MOST_WITH_TOKENS = 2
"""Of so many backbones all features of studies are kept."""
_LEFT_FREE = 1 << 30
_TIMES_FREE = 64
"""The features of a case are kept if so many like it, and a GiB beside them, would fit into the memory that is free."""
_MOST_BACKBONES = 4
"""Of so many backbones summaries are kept with the images, those that were asked last."""


def fingerprint(backbone: Backbone) -> str:
    """Of the weights, of how they are used and of where they are: equal for backbones that give the same features."""
    digest = hashlib.blake2b(digest_size=16)
    for name, module in backbone.named_modules():
        settings = {
            key: value for key, value in vars(module).items() if isinstance(value, _PLAIN) and key != "training"
        }
        digest.update(f"{name} {type(module).__qualname__} {sorted(settings.items())}".encode())
    for name, tensor in (*backbone.named_parameters(), *backbone.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return f"{digest.hexdigest()} {next(backbone.parameters()).device}"


_PLAIN = (bool, int, float, str, tuple, list, type(None))


@dataclass(frozen=True)
class Summaries:
    """One vector of each kind per case, float32.

    Attributes:
        embedding_ND: mean over the studies of a case.
        mean_ND: mean of the tokens; None when they were not asked for.
        spread_ND: standard deviation of the tokens; None likewise.
    """

    embedding_ND: np.ndarray
    mean_ND: np.ndarray | None = None
    spread_ND: np.ndarray | None = None

    def read(self, reads: str) -> np.ndarray:
        """One of :data:`~finetune.heads.features.SUMMARIES`."""
        if reads == "embedding":
            return self.embedding_ND
        assert self.mean_ND is not None and self.spread_ND is not None
        if reads == "mean":
            return self.mean_ND
        both = [self.mean_ND, self.spread_ND]
        return np.concatenate(both if reads == "mean_spread" else [self.embedding_ND, *both], axis=1)


def summaries(backbone: Backbone, cases: Cases, *, dense: bool = True) -> Summaries:
    """What a frozen backbone says of each case, in evaluation mode and without gradient.

    Features of a study are kept with the images as long as these are there, by the weights of the backbone, so that
    every fold of a cross-validation finds them.

    Raises:
        DataError: an image cannot be read, or is too large for the memory that is there.
    """

    def read(features: CaseFeatures) -> Tensor:
        found = [features.embedding_BD]
        if dense:
            found += [features.mean(), features.spread()]
        return torch.cat(found, dim=1)

    kinds = 3 if dense else 1
    rows_MV = by_study(backbone, cases, "summaries", kinds * int(backbone.embed_dim), read, dense=dense)
    rows_MKD = rows_MV.reshape(len(rows_MV), kinds, -1)
    if cases.bags is None:
        return Summaries(*np.moveaxis(rows_MKD, 1, 0))
    return pooled(rows_MKD.astype(np.float64), cases.bags, len(cases))


def by_study(
    backbone: Backbone, cases: Cases, kind: str, width: int, read: Callable[[CaseFeatures], Tensor], *, dense: bool
) -> np.ndarray:
    """A vector for each study of the cases, computed once as long as the images are there.

    Vectors of so many images that they are more than :data:`MOST_KEPT` numbers are not kept.

    Args:
        backbone: in evaluation mode and without gradient, whatever mode it is in.
        cases: whose studies.
        kind: under which vectors are kept, beside the weights of the backbone.
        width: of a vector.
        read: vectors ``(B, width)`` of the features of studies.
        dense: whether it needs tokens.

    Returns:
        float32 ``(M, width)``, in the order of ``cases.rows``.

    Raises:
        DataError: an image cannot be read, or memory has no room.
    """
    assert cases.rows is not None
    pictures, rows = cases.pictures.home(cases.rows)
    wanted_U, place_M = np.unique(rows, return_inverse=True)
    done_U, place_U = np.zeros(len(wanted_U), bool), np.arange(len(wanted_U))
    if len(pictures) * width <= MOST_KEPT:
        done_P, values_PV = _kept(pictures, (kind, fingerprint(backbone), dense), width)
        done_U, place_U = done_P[wanted_U], wanted_U
    else:
        done_P, values_PV = done_U, np.zeros((len(wanted_U), width), np.float32)
    todo, place_T = wanted_U[~done_U], place_U[~done_U]
    need, free = len(todo) * width * values_PV.itemsize, available_bytes()
    if need > free:
        raise DataError(f"{kind} of {len(todo)} images take {in_words(need)}, {in_words(free)} are free")
    with (
        evaluating(backbone),
        torch.no_grad(),
        progress(len(todo), "images", "features") as shown,
    ):
        for places, studies in batches(backbone, pictures, todo.tolist(), dense=dense):
            features = encode(backbone, [[study] for study in studies], dense=dense)
            values_PV[place_T[places]] = read(features).float().cpu().numpy()
            done_P[place_T[places]] = True
            shown.advance(len(places))
            del studies  # before the next ones are read
    found_MV: np.ndarray = values_PV[place_U[place_M]]
    return found_MV


def _kept(pictures: Pictures, key: Any, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Which studies are there, ``(P,)``, and their vectors ``(P, width)``; of the last few backbones."""
    memo: dict[Any, Any] = pictures.memo.setdefault(key[0], {})
    if key in memo:
        memo[key] = memo.pop(key)  # the last one in the order
    else:
        while len(memo) >= _MOST_BACKBONES:
            del memo[next(iter(memo))]
        count = len(pictures)
        memo[key] = (np.zeros(count, bool), np.zeros((count, width), np.float32))
    found: tuple[np.ndarray, np.ndarray] = memo[key]
    return found


def mean_over(values_MD: np.ndarray, bags: np.ndarray, count: int) -> np.ndarray:
    """The mean over the studies of each case, ``(N, D)`` float64."""
    found = np.zeros((count, values_MD.shape[1]))
    np.add.at(found, bags, values_MD / np.bincount(bags, minlength=count)[bags][:, None])
    return found


def pooled(rows_MKD: np.ndarray, bags: np.ndarray, count: int) -> Summaries:
    """Over the studies of a case, each of equal weight; the spread is that of all their tokens together.

    Args:
        rows_MKD: embedding, and mean and spread of the tokens, of each study.
        bags: to which case each study belongs.
        count: of the cases.
    """
    embedding = mean_over(rows_MKD[:, 0], bags, count).astype(np.float32)
    if rows_MKD.shape[1] == 1:
        return Summaries(embedding)
    center = mean_over(rows_MKD[:, 1], bags, count)
    second = mean_over(rows_MKD[:, 1] ** 2 + rows_MKD[:, 2] ** 2, bags, count)
    spread = np.sqrt(np.maximum(second - center**2, 0))
    return Summaries(embedding, center.astype(np.float32), spread.astype(np.float32))


def features_of(backbone: Backbone, cases: Cases, *, dense: bool) -> CaseFeatures:
    """All features of all cases, on the CPU, for a head that is trained on them; evaluation mode, without gradient.

    Raises:
        DataError: the tokens of all cases are larger than the memory that is there.
    """
    found: list[CaseFeatures] = []
    with progress(len(cases), "cases", "features") as shown:
        for block, features in frozen(backbone, cases, dense=dense):
            if not found and dense:
                _check_room(features, len(cases), len(block))
            found.append(features)
            shown.advance(len(block))
    return joined(found)


def frozen(backbone: Backbone, cases: Cases, *, dense: bool) -> Iterator[tuple[list[int], CaseFeatures]]:
    """Features of runs of cases, one after the other, on the CPU; evaluation mode, without gradient.

    Those of a study are kept with the images as long as they take but a part of the memory that is free, so that the
    folds of a cross-validation, and heads that are compared, find them.

    Raises:
        DataError: an image cannot be read, or is too large for the memory that is there.
    """
    assert cases.rows is not None
    pictures, rows = cases.pictures.home(cases.rows)
    bags = np.arange(len(cases)) if cases.bags is None else cases.bags
    places = np.split(rows, np.flatnonzero(np.diff(bags)) + 1)
    kept = _kept_studies(pictures, (fingerprint(backbone), dense))
    known = np.array([all(row in kept for row in mine.tolist()) for mine in places])
    for run in np.split(np.arange(len(cases)), np.flatnonzero(np.diff(known)) + 1):
        if known[run[0]]:
            for start in range(0, len(run), BATCH_SIZE):
                block = run[start : start + BATCH_SIZE].tolist()
                yield block, together([[kept[row] for row in places[case].tolist()] for case in block])
            continue
        for within, studies in blocks(backbone, cases[run], dense=dense):
            block = run[within].tolist()
            with evaluating(backbone), torch.no_grad():
                flat = encode_studies(backbone, [study for case in studies for study in case], dense)
            del studies  # before the next ones are read
            made = iter([each.to("cpu") for each in flat])
            found = [[next(made) for _ in places[case]] for case in block]
            _keep(
                kept,
                [row for case in block for row in places[case].tolist()],
                [each for case in found for each in case],
            )
            yield block, together(found)


def _kept_studies(pictures: Pictures, key: Any) -> dict[int, StudyFeatures]:
    """What is kept of the studies by their position, of the last few backbones."""
    memo: dict[Any, dict[int, StudyFeatures]] = pictures.memo.setdefault("studies", {})
    memo[key] = memo.pop(key, {})  # the last one in the order
    while len(memo) > _MOST_WITH_TOKENS:
        del memo[next(iter(memo))]
    return memo[key]


def _keep(kept: dict[int, StudyFeatures], rows: Sequence[int], found: Sequence[StudyFeatures]) -> None:
    need = sum(each.embedding_D.nbytes + (0 if each.tokens_TD is None else each.tokens_TD.nbytes) for each in found)
    # What is kept leaves free a multiple of what a case takes, and of what the work beside it does.
    if need * _TIMES_FREE < available_bytes() - _LEFT_FREE:
        kept.update(zip(rows, found, strict=True))


def _check_room(features: CaseFeatures, cases: int, counted: int) -> None:
    need = features.tokens.numel() * 4 * cases // counted
    free = available_bytes()
    if need > free:
        raise DataError(
            f"the tokens of {cases} cases ({words_of(features.tokens.shape[1:])} each) take {in_words(need)}, "
            f"{in_words(free)} are free; a head that reads the embedding needs far less, and so do smaller images"
        )


def joined(parts: Sequence[CaseFeatures]) -> CaseFeatures:
    """Batches of features as one, padded to the longest."""
    if len(parts) == 1:
        return parts[0]

    def along(name: str, fill: Callable[[CaseFeatures], Tensor], *, always: bool = False) -> Tensor | None:
        values = [getattr(part, name) for part in parts]
        if all(value is None for value in values) and not always:
            return None
        values = [fill(part) if value is None else value for part, value in zip(parts, values, strict=True)]
        length = max(value.shape[1] for value in values)
        padded = [F.pad(value, (*(0, 0) * (value.ndim - 2), 0, length - value.shape[1])) for value in values]
        return torch.cat(padded)

    tokens = [part.tokens_BTD for part in parts if part.tokens_BTD is not None]
    ragged = len({value.shape[1] for value in tokens}) > 1 or any(part.weight_BT is not None for part in parts)
    grids = {part.grid for part in parts}
    names = tuple(sorted({name for part in parts for name in part.images}))

    def images(part: CaseFeatures) -> Tensor:
        """As all parts together count them."""
        places = torch.tensor([names.index(name) for name in part.images])
        own_BT = torch.zeros(part.tokens.shape[:2], dtype=torch.int64) if part.image_BT is None else part.image_BT
        return places[own_BT]

    if len(names) > 1 and all(part.images for part in parts):
        parts = [replace(part, image_BT=images(part)) for part in parts]
    return CaseFeatures(
        torch.cat([part.embedding_BD for part in parts]),
        along("tokens_BTD", lambda part: part.tokens) if tokens else None,
        along("weight_BT", _equal_weights, always=True) if ragged else None,
        along("study_BT", lambda part: torch.zeros(part.tokens.shape[:2], dtype=torch.int64)),
        along("studies_BSD", lambda part: part.embedding_BD[:, None]),
        along("present_BS", lambda part: torch.ones(len(part), 1, dtype=torch.bool)),
        grids.pop() if len(grids) == 1 else None,
        along("image_BT", images),
        names,
    )


def _equal_weights(part: CaseFeatures) -> Tensor:
    return part.tokens.new_full(part.tokens.shape[:2], 1 / part.tokens.shape[1])
