"""What a frozen network says of a set under fixed views of its images, and a linear model of each read by itself.

The reads are those that vote in the product (:data:`finetune.fit.linear.VOTE`). Under several views a vector is the
mean of those of all views. A fit is one read of one draw of labels, with what it says of the given cases that were
held out and of the test split, in a file of its own; whatever votes is put together of such files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.studies.runs import shards, source
from finetune.cases import Cases
from finetune.fit.linear import RAW, TANGENT, select_linear
from finetune.fit.raw import raw_pixels
from finetune.fit.second_order import moments
from finetune.readers import read_cases
from finetune.splits import cross_folds
from finetune.study.compare import read_or_draw
from finetune.subsets import Budget, Subset
from pretrain.backbone import Backbone
from pretrain.bundle import load_bundle

TENTH = Budget(fraction=0.1)
NETWORK_READS = ("embedding", "mean_spread", TANGENT)
CLOSER = 0.8
"""Side of the parts that are looked at closer, of the side of the image."""
_AT_ONCE = 512

Splits = Mapping[str, Cases]


def real_set(folder: Path, name: str) -> dict[str, Cases]:
    """Training and test split of a set, from shards that are written into ``folder`` unless they are there."""
    splits = read_cases(shards(folder / "shards", source(name)))
    return {split: splits[split] for split in ("train", "test")}


def tenth(folder: Path, splits: Splits, seed: int) -> Subset:
    """The draw of a tenth of the labels; the same as that of ``medformer evaluate``."""
    return read_or_draw(splits["train"], TENTH, seed, folder / "subsets")


def as_they_are(images: np.ndarray) -> list[np.ndarray]:
    """The images alone."""
    return [images]


def mirrored(images: np.ndarray) -> list[np.ndarray]:
    """The images and their mirror images, along the last axis."""
    return [images, np.ascontiguousarray(images[..., ::-1])]


def closer(images: np.ndarray) -> list[np.ndarray]:
    """The images, and four corners of each that are enlarged to its size; of a volume no two share a face.

    Args:
        images: uint8 ``(N, C, *sizes)``.
    """
    sizes = images.shape[2:]
    sides = [round(CLOSER * size) for size in sizes]
    found = [images]
    for ends in product((False, True), repeat=len(sizes)):
        if len(sizes) == 3 and sum(ends) % 2:
            continue
        cut = tuple(
            slice(size - side, size) if end else slice(0, side)
            for size, side, end in zip(sizes, sides, ends, strict=True)
        )
        part = torch.from_numpy(np.ascontiguousarray(images[(..., *cut)])).float()
        mode = "bilinear" if len(sizes) == 2 else "trilinear"
        larger = F.interpolate(part, sizes, mode=mode, align_corners=False)
        found.append(larger.round().clamp(0, 255).byte().numpy())
    return found


VIEWS: Mapping[str, Callable[[np.ndarray], list[np.ndarray]]] = {
    "as it is": as_they_are, "mirrored": mirrored, "closer": closer,
}  # fmt: skip


@dataclass(frozen=True)
class Voter:
    """One linear model: what it reads, and under which views."""

    read: str
    views: str = "as it is"

    @property
    def file(self) -> str:
        """Its name in those of files."""
        return f"{self.read}-{self.views}".replace(" ", "-")


@dataclass(frozen=True)
class Said:
    """What a voter says with the labels of one draw.

    Attributes:
        held_out: probabilities ``(n, C)`` of the given cases, each by a fit without it; NaN where it was in none.
        test: probabilities ``(N, C)`` of the test split.
        index_sha256: of the draw.
    """

    held_out: np.ndarray
    test: np.ndarray
    index_sha256: str


def place(folder: Path, network: str, name: str, voter: Voter, seed: int) -> Path:
    """Where a fit is kept."""
    return folder / "fits" / network / name / f"{voter.file}-{seed}.npz"


def found(folder: Path, network: str, name: str, voter: Voter, seed: int) -> Said | None:
    """What a voter said, if it is there."""
    kept = place(folder, network, name, voter, seed)
    if not kept.is_file():
        return None
    with np.load(kept) as each:
        return Said(each["held_out"], each["test"], json.loads(str(each["record"]))["index_sha256"])


class Frozen:
    """A frozen network on one set: its vectors, computed once and kept, and fits to them.

    Args:
        folder: of the study; vectors go into ``vectors`` and fits into ``fits`` in it.
        network: its name in those of files.
        bundle: its folder.
        name: of the set.
        splits: ``train`` and ``test``.
        seeds: of all draws that are asked for.
    """

    def __init__(
        self, folder: Path, network: str, bundle: Path, name: str, splits: Splits, seeds: Sequence[int]
    ) -> None:
        self._folder, self._network, self._bundle = folder, network, bundle
        self._name, self._splits = name, splits
        self._draws = {seed: tenth(folder, splits, seed) for seed in seeds}
        self._read: dict[str, dict[str, dict[str, np.ndarray]]] = {}

    def fit(self, voter: Voter, seed: int) -> None:
        """Fit a voter to a draw, unless that is there."""
        kept = place(self._folder, self._network, self._name, voter, seed)
        if not kept.is_file():
            _written(kept, self._fitted(voter, seed))

    def _fitted(self, voter: Voter, seed: int) -> dict[str, Any]:
        train, draw = self._splits["train"], self._draws[seed]
        given = train[draw.positions]
        vectors = self._vectors(voter)
        target = given.target.fitted_to(given.known_labels)
        features = vectors["train"][draw.positions]
        fit = select_linear(
            {voter.read: features},
            given.known_labels,
            target,
            cross_folds(given.strata, seed, given.subjects),
            balanced=True,
            candidates=[voter.read],
        )
        assert fit.held_out is not None
        held_out = np.full(fit.held_out.shape, np.nan)
        there = ~np.isnan(fit.held_out).any(axis=1)
        held_out[there] = target.probabilities(fit.held_out[there])
        test = target.probabilities(fit.fit.log_scores({voter.read: vectors["test"]}))
        record = {"index_sha256": draw.indices_sha256, "chosen": fit.chosen, "labelled": len(given)}
        return {"held_out": held_out, "test": test, "record": json.dumps(record)}

    def _vectors(self, voter: Voter) -> dict[str, np.ndarray]:
        """Of the training split, NaN where no draw asks, and of the test split."""
        if voter.read == RAW:
            return {split: raw_pixels(cases) for split, cases in self._splits.items()}
        if voter.views not in self._read:
            self._read = {voter.views: self._computed(voter.views)}
        return self._read[voter.views][voter.read]

    def _computed(self, views: str) -> dict[str, dict[str, np.ndarray]]:
        kept = self._folder / "vectors" / self._network / f"{self._name}-{views.replace(' ', '-')}.npz"
        rows = np.unique(np.concatenate([draw.positions for draw in self._draws.values()]))
        if kept.is_file():
            with np.load(kept) as each:
                arrays = dict(each)
        if not kept.is_file() or not np.isin(rows, arrays["rows"]).all():
            backbone = load_bundle(self._bundle).backbone.eval()
            arrays = {"rows": rows}
            for split, cases in (("train", self._splits["train"][rows]), ("test", self._splits["test"])):
                arrays |= {f"{split} {read}": values for read, values in seen(backbone, cases, views).items()}
            _written(kept, arrays)
        vectors: dict[str, dict[str, np.ndarray]] = {}
        for read in NETWORK_READS:
            given = arrays[f"train {read}"]
            train = np.full((len(self._splits["train"]), given.shape[1]), np.nan, np.float32)
            train[arrays["rows"]] = given
            vectors[read] = {"train": train, "test": arrays[f"test {read}"]}
        return vectors


def seen(backbone: Backbone, cases: Cases, views: str) -> dict[str, np.ndarray]:
    """Vectors of images by read, the mean over the views, float32 ``(N, D)`` each.

    Args:
        backbone: in evaluation mode.
        cases: one image each, in an array.
        views: one of :data:`VIEWS`.
    """
    pixels = np.stack([next(iter(cases.studies_of(case)[0].images.values())).pixels for case in range(len(cases))])
    parts: dict[str, list[np.ndarray]] = {read: [] for read in NETWORK_READS}
    for start in range(0, len(cases), _AT_ONCE):
        rows = np.arange(start, min(start + _AT_ONCE, len(cases)))
        shown = VIEWS[views](pixels[rows])
        sums: dict[str, Any] = dict.fromkeys(NETWORK_READS, 0.0)
        for images in shown:
            summaries, covariances = moments(backbone, replace(cases[rows], images=images, rows=None))
            for read in NETWORK_READS:
                sums[read] = sums[read] + (covariances if read == TANGENT else summaries.read(read))
        for read in NETWORK_READS:
            parts[read].append((sums[read] / len(shown)).astype(np.float32))
    return {read: np.concatenate(each) for read, each in parts.items()}


def _written(kept: Path, arrays: Mapping[str, Any]) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    with kept.with_suffix(".partial").open("wb") as file:
        np.savez(file, **arrays)
    kept.with_suffix(".partial").rename(kept)
