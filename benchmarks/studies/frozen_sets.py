"""The images of the real sets as vectors: pixels, or what a frozen network says of them; computed once and kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.studies.draws import Splits
from benchmarks.studies.runs import PLANES, VOLUMES, document, pretrained, shards, source
from data_shards.vocabulary import Task
from finetune.backbones import fresh_twin
from finetune.cases import Cases
from finetune.fit.features import summaries
from finetune.fit.raw import raw_pixels, raw_sides
from finetune.readers import read_cases
from finetune.study.compare import Pretrained, read_or_draw
from finetune.subsets import Budget, Subset
from pretrain.bundle import load_bundle

READ = "embedding_mean_spread"
SIDE = 14
"""To so many voxels along each axis volumes are averaged for pixels."""
BUDGETS: Mapping[str, Budget] = {"10": Budget(per_class=10), "50": Budget(per_class=50)}
"""Of one seed the larger draw holds the smaller one."""
SEEDS = range(5)
STEPS, IMAGES = 200, 64
NETWORK = (
    f"medformer_nano with a stem of 8 channels, SimCLR, {STEPS} steps of {IMAGES} training images of "
    f"{', '.join(PLANES)}; it has seen no volume, and no image of a test split"
)

Seen = Literal["pixels", "pretrained", "random"]


@dataclass(frozen=True)
class FrozenSet:
    """One set as vectors.

    Attributes:
        train_ND: of the training images; NaN where they were not asked for.
        test_MD: of the test images.
        train: the training cases.
        test: the test cases.
    """

    train_ND: np.ndarray
    test_MD: np.ndarray
    train: Cases
    test: Cases


def network(folder: Path) -> Pretrained:
    """A shortly pretrained network, trained unless it is there."""
    planes = [shards(folder / "shards", source(name)) for name in PLANES]
    bundle = load_bundle(pretrained(document(folder / "short-model", planes, 0, STEPS, IMAGES, {})))
    return Pretrained(bundle.backbone, fresh_twin(bundle))


def real_sets(folder: Path) -> dict[str, Splits]:
    """Training and test split of each set; grades as classes without an order."""
    found = {}
    for name in (*PLANES, *VOLUMES):
        splits = read_cases(shards(folder / "shards", source(name)))
        found[name] = {split: _as_classes(splits[split]) for split in ("train", "test")}
    return found


def _as_classes(cases: Cases) -> Cases:
    return replace(cases, task=Task.multiclass) if cases.task is Task.ordinal else cases


def subset_of(folder: Path, splits: Splits, budget: str, seed: int) -> Subset:
    """The draw of a seed, read from its index file or drawn."""
    return read_or_draw(splits["train"], BUDGETS[budget], seed, folder / "subsets")


def frozen_set(
    folder: Path, name: str, splits: Splits, seen: Seen, seed: int, model: Callable[[], Pretrained]
) -> FrozenSet:
    """The vectors of a set.

    Pixels, and a pretrained network, are the same for all seeds and are asked for the training images of all draws; a
    network from random weights is another for each seed, and is asked for those of its draw.

    Args:
        folder: of the study; vectors go into ``vectors`` in it.
        name: of the set.
        splits: ``train`` and ``test``.
        seen: what they are.
        seed: of random weights, and of the draw.
        model: gives the network.
    """
    train, test = splits["train"], splits["test"]
    kept = folder / "vectors" / (f"{name}-random-{seed}.npz" if seen == "random" else f"{name}-{seen}.npz")
    if not kept.is_file():
        seeds: Sequence[int] = [seed] if seen == "random" else SEEDS
        draws = [subset_of(folder, splits, max(BUDGETS, key=int), each).positions for each in seeds]
        rows = np.unique(np.concatenate(draws))
        found, test_MD = (_vectors(cases, seen, seed, model) for cases in (train.shared()[rows], test.shared()))
        train_ND = np.full((len(train), found.shape[1]), np.nan, dtype=np.float32)
        train_ND[rows] = found
        kept.parent.mkdir(parents=True, exist_ok=True)
        with kept.with_suffix(".partial").open("wb") as file:
            np.savez(file, train=train_ND, test=test_MD)
        kept.with_suffix(".partial").rename(kept)
    with np.load(kept) as arrays:
        return FrozenSet(arrays["train"], arrays["test"], train, test)


def _vectors(cases: Cases, seen: Seen, seed: int, model: Callable[[], Pretrained]) -> np.ndarray:
    if seen == "pixels":
        sides = {image: side if len(side) == 2 else (SIDE,) * 3 for image, side in (raw_sides(cases) or {}).items()}
        return raw_pixels(cases, sides)
    return summaries(model().backbone if seen == "pretrained" else model().fresh(seed), cases).read(READ)
