"""Few-label subsets: drawn once, written to an index file, and from then on only read.

Within a class the images are ordered by a hash keyed with the seed, and the first ones are taken; so for one seed a
larger budget contains the smaller ones. The file carries the digest of its indices and of the images they point into,
and both are checked when it is read.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import numpy as np
from pydantic import Field, model_validator

from data_shards.support.documents import Document, parse, resolved
from data_shards.support.errors import ConfigError, DataError
from data_shards.support.files import write_json
from finetune.cases import Cases
from finetune.splits import shuffled


class Budget(Document):
    """How many labels may be used: so many per class, or a fraction of each class, at least one image of it.

    For a multi-label task the classes are the labels, and "no label": an image may count for several. Numbers have no
    classes, so of them only a fraction of all can be had.
    """

    per_class: int | None = Field(default=None, ge=1)
    fraction: float | None = Field(default=None, gt=0, le=1)

    @model_validator(mode="after")
    def _one(self) -> Budget:
        if (self.per_class is None) == (self.fraction is None):
            raise ValueError("give either per_class or fraction")
        return self

    def take(self, available: int) -> int:
        """How many of the ``available`` images of a class."""
        wanted = self.per_class if self.per_class is not None else math.ceil((self.fraction or 0.0) * available - 1e-9)
        return min(max(1, wanted), available)

    def __str__(self) -> str:
        return f"{self.per_class} per class" if self.per_class is not None else f"{100 * (self.fraction or 0.0):g} %"


class Subset(Document):
    """An index file.

    Attributes:
        dataset: name of the dataset.
        source: digests of the files that the images came from.
        content_sha256: of the pixels and labels that the indices point into.
        images: how many they are.
        seed: of the draw.
        budget: what was asked for.
        per_class: how many images of each class were found and taken; nothing of numbers.
        indices: positions, ascending.
        indices_sha256: over the indices as little-endian 64-bit integers.
    """

    dataset: str
    source: dict[str, str]
    content_sha256: str
    images: int
    seed: int
    budget: Budget
    per_class: dict[str, int]
    indices: tuple[int, ...]
    indices_sha256: str

    @property
    def shortage(self) -> str:
        """What the images do not have of the budget, in words with the real numbers; empty when it is there."""
        wanted = self.budget.per_class or 0
        few = [f"class {name!r} has {count}" for name, count in self.per_class.items() if count < wanted]
        if not few:
            return ""
        return f"{self.budget} were asked for, but {', '.join(few)}: {len(self.indices)} labels were given"

    def of(self, pool: Cases) -> Cases:
        """The chosen images of ``pool``.

        Raises:
            DataError: the subset was drawn from other images.
        """
        if self.content_sha256 != pool.content_sha256():
            raise DataError(
                f"the subset of {self.dataset}, seed {self.seed}, was drawn from other images than {pool.name}"
            )
        return pool.select(self.positions)

    @property
    def positions(self) -> np.ndarray:
        """The indices as an array."""
        return np.array(self.indices, dtype=np.int64)


def draw(pool: Cases, budget: Budget, seed: int) -> Subset:
    """Draw a subset of ``pool``.

    Raises:
        DataError: a class has no image to draw, or so many per class are wanted where there are no classes.
    """
    if budget.per_class is not None and not pool.target.classifies:
        raise DataError(f"{pool.name}: numbers have no classes, so {budget} cannot be drawn; give a fraction of all")
    order = shuffled(len(pool), seed, "subset")
    one_hot_NK = pool.target.carried(pool.known_labels)
    chosen = np.zeros(len(pool), dtype=bool)
    for index in range(one_hot_NK.shape[1]):
        members = order[one_hot_NK[order, index]]
        if not len(members):
            raise DataError(f"{pool.name}: class {pool.target.classes[index]!r} has no image to draw from")
        chosen[members[: budget.take(len(members))]] = True
    unlabelled = order[~one_hot_NK[order].any(axis=1)]
    if len(unlabelled):
        chosen[unlabelled[: budget.take(len(unlabelled))]] = True
    indices = np.flatnonzero(chosen)
    return Subset(
        dataset=pool.name,
        source=dict(pool.source),
        content_sha256=pool.content_sha256(),
        images=len(pool),
        seed=seed,
        budget=budget,
        per_class=pool.target.counts(pool.known_labels[indices]),
        indices=tuple(indices.tolist()),
        indices_sha256=indices_sha256(indices),
    )


def save(subset: Subset, path: Path) -> None:
    """Write the index file.

    Raises:
        MedformerError: the disk refuses; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, resolved(subset))


def load(path: Path) -> Subset:
    """Read an index file back.

    Raises:
        DataError: it is missing, not an index file, or its indices are not those that were drawn.
    """
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise DataError(f"{path}: no such index file") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not an index file: {error}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: not an index file")
    try:
        subset = parse(Subset, content, str(path))
    except ConfigError as error:
        raise DataError(str(error)) from None
    indices = np.array(subset.indices, dtype=np.int64)
    if indices_sha256(indices) != subset.indices_sha256:
        raise DataError(f"{path}: the indices do not match their sha256; the file was changed after it was drawn")
    if not len(indices) or (np.diff(indices) <= 0).any() or indices[0] < 0 or indices[-1] >= subset.images:
        raise DataError(f"{path}: indices must ascend from 0 to at most {subset.images - 1}")
    return subset


def indices_sha256(indices: np.ndarray) -> str:
    """SHA-256 over the indices as little-endian 64-bit integers."""
    return hashlib.sha256(np.asarray(indices).astype("<i8").tobytes()).hexdigest()
