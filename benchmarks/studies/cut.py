"""Volumes as bags of blocks, and which blocks or slices show a structure."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np
from sklearn.metrics import roc_auc_score

from data_shards.sample import Image
from data_shards.support.errors import ConfigError
from data_shards.vocabulary import Task
from finetune.cases import Cases
from finetune.classifier.estimator import FewLabelClassifier
from finetune.images import Pictures, Study

Cut = tuple[slice, ...]
"""One entry for each spatial axis."""


@dataclass(frozen=True)
class Truth:
    """Which instances show the structure.

    Attributes:
        shown: of the instances of each case, bool ``(H,)``.
    """

    shown: Sequence[np.ndarray]


class CutPictures(Pictures):
    """Parts of studies of one volume.

    Args:
        base: the volumes.
        parts: position there and the cut of each.
    """

    def __init__(self, base: Pictures, parts: Sequence[tuple[int, Cut]]) -> None:
        super().__init__()
        self._base, self._parts = base, parts

    def __len__(self) -> int:
        return len(self._parts)

    def study(self, position: int) -> Study:
        """The part at ``position``."""
        row, cut = self._parts[position]
        study = self._base.study(row)
        (name, image), = study.images.items()  # fmt: skip
        pixels = np.ascontiguousarray(image.pixels[(slice(None), *cut)])
        return Study({name: Image(pixels, image.modality, image.spacing_mm)}, study.organ)


def cut_up(cases: Cases, cuts: Sequence[Sequence[Cut]], name: str) -> Cases:
    """Cases of one volume each as bags of parts of it.

    Args:
        cases: of one study each.
        cuts: of each case.
        name: of the new set.
    """
    assert cases.rows is not None
    parts = [(int(row), cut) for row, mine in zip(cases.rows, cuts, strict=True) for cut in mine]
    bags = np.repeat(np.arange(len(cases)), [len(mine) for mine in cuts])
    return replace(
        cases, name=name, images=CutPictures(cases.pictures, parts), spacing_mm=None,
        rows=np.arange(len(parts)), bags=bags, recipe=None,
    )  # fmt: skip


def shown_in_slices(masks_NDHW: np.ndarray, axis: int, every: int, least: int = 10) -> Truth:
    """Slices with at least so many voxels of the structure, cut as :mod:`finetune.slices` does it."""
    counts_NS = masks_NDHW.sum(axis=tuple(each for each in (1, 2, 3) if each != axis + 1))
    return Truth([row[every // 2 :: every] >= least for row in counts_NS])


def blocks(
    cases: Cases, masks_NDHW: np.ndarray, size: int, stride: int, count: int, names: Sequence[str], name: str
) -> tuple[Cases, Truth]:
    """Bags of blocks; every second subject's bag holds one or two blocks that show the structure, the others none.

    Which subjects and which blocks follows from a hash of the subject's name. A block shows the structure if at least a
    twentieth of its voxels do; one of which fewer do, but some, is in no bag.

    Args:
        cases: of one volume each.
        masks_NDHW: bool, of the structure.
        size: voxels along each axis of a block.
        stride: between blocks.
        count: blocks of a bag.
        names: of the subjects.
        name: of the new set.

    Returns:
        Cases with the label whether the structure is shown, and which blocks show it; cases without enough blocks of
        both kinds are left out.
    """
    kept, cuts, labels, shown = [], [], [], []
    for case in range(len(cases)):
        mask = masks_NDHW[case]
        corners = itertools.product(*(range(0, length - size + 1, stride) for length in mask.shape))
        every = [tuple(slice(start, start + size) for start in corner) for corner in corners]
        share = np.array([mask[cut].mean() for cut in every])
        generator = np.random.default_rng(int.from_bytes(sha256(names[case].encode()).digest()[:8]))
        label = int(generator.integers(2))
        wanted = int(generator.integers(1, 3)) * label
        with_it, without = np.flatnonzero(share >= 0.05), np.flatnonzero(share == 0)
        if len(with_it) < 2 or len(without) < count:
            continue
        chosen = [*generator.choice(with_it, wanted, False), *generator.choice(without, count - wanted, False)]
        chosen = generator.permutation(chosen)
        kept.append(case)
        cuts.append([every[index] for index in chosen])
        labels.append(label)
        shown.append(share[chosen] >= 0.05)
    some = replace(
        cases[np.array(kept)], labels=np.array(labels)[:, None], task=Task.binary, classes={0: "absent", 1: "present"}
    )
    return cut_up(some, cuts, name), Truth(shown)


def located(estimator: FewLabelClassifier, test: Cases, truth: Truth) -> float:
    """Mean over the positive cases with both kinds of instances of the AUC of their instances; NaN for other heads.

    Of attention the weights are taken, of other poolings the scores of the last class.
    """
    try:
        found = estimator.instances(test)
    except ConfigError:
        return float("nan")
    if found[0].kind != "study":
        return float("nan")
    attends = estimator.get_params()["head"] == "mil" and _pooling(estimator.get_params()) == "attention"
    each = []
    for said, shown, (label,) in zip(found, truth.shown, test.known_labels, strict=True):
        if label and 0 < shown.sum() < len(shown):
            values = said.weights_H if attends and said.weights_H is not None else said.scores_HO[:, -1]
            each.append(roc_auc_score(shown, values))
    return float(np.mean(each))


def _pooling(params: Mapping[str, object]) -> object:
    options = params["head_options"]
    return options.get("pooling", "attention") if isinstance(options, dict) else "attention"
