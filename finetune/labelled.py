"""Labelled images in memory: what every reader gives and everything else in this package takes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from data_shards.support.errors import DataError
from data_shards.vocabulary import Modality, Organ, Task
from finetune.metrics import CLASSIFICATION
from finetune.splits import strata
from pretrain.metadata import Metadata


@dataclass(frozen=True)
class LabelledImages:
    """One split of a labelled dataset.

    Attributes:
        name: of the dataset.
        images: uint8, planes ``(N, C, H, W)`` or volumes ``(N, C, D, H, W)``.
        labels: int64 ``(N, L)``: the class index, or 0/1 per label of a multi-label task.
        task: how the labels are to be read.
        classes: name of each class index, or of each label of a multi-label task: indices 0 to K - 1.
        keys: a name per image: its file or its key in the shards.
        organ: body part shown.
        modality: how the images were made.
        subjects: the subject of each image, or None when it is not known and each image counts as its own.
        official: whether these are the published images in the published split.
        note: why not, or that the images are synthetic.
        source: where the images come from: digests of the files.
        spacing_mm: float32 ``(N, A)``: distance of voxels along each spatial axis, NaN where it is not known; None when
            nothing is known.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    task: Task
    classes: Mapping[int, str]
    keys: np.ndarray
    organ: Organ = Organ.unknown
    modality: Modality = Modality.unknown
    subjects: np.ndarray | None = None
    official: bool = True
    note: str = ""
    source: Mapping[str, str] = field(default_factory=dict)
    spacing_mm: np.ndarray | None = None

    def __post_init__(self) -> None:
        check_images(self.images, self.name)
        object.__setattr__(self, "spacing_mm", spacing_rows(self.spacing_mm, self.images, self.name))
        if self.task not in CLASSIFICATION:
            raise DataError(f"{self.name}: a {self.task.name} task has no labels to classify")
        if self.labels.ndim != 2 or len(self.labels) != len(self.images) or len(self.keys) != len(self.images):
            raise DataError(
                f"{self.name}: {len(self.images)} images, {len(self.keys)} keys, labels of shape {self.labels.shape}"
            )
        if self.subjects is not None and len(self.subjects) != len(self.images):
            raise DataError(f"{self.name}: {len(self.images)} images but {len(self.subjects)} subjects")
        if sorted(self.classes) != list(range(len(self.classes))) or len(self.classes) < 2 - (
            self.task is Task.multilabel
        ):
            raise DataError(f"{self.name}: classes are numbered 0, 1, ...; found {dict(self.classes)}")
        expected = len(self.classes) if self.task is Task.multilabel else 1
        limit = 2 if self.task is Task.multilabel else len(self.classes)
        if self.labels.shape[1] != expected or self.labels.min() < 0 or self.labels.max() >= limit:
            raise DataError(
                f"{self.name}: labels do not fit the {len(self.classes)} classes of a {self.task.name} task"
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def targets(self) -> np.ndarray:
        """Labels as scikit-learn takes them: ``(N,)``, or ``(N, L)`` for a multi-label task."""
        return self.labels if self.task is Task.multilabel else self.labels[:, 0]

    @property
    def strata(self) -> np.ndarray:
        """One stratum per image, see :func:`finetune.splits.strata`."""
        return strata(self.labels, self.task)

    @property
    def absent(self) -> tuple[str, ...]:
        """The classes without an image, by name; the labels that no image has, of a multi-label task."""
        has_NK = self.labels == (1 if self.task is Task.multilabel else np.arange(len(self.classes)))
        return tuple(self.classes[int(k)] for k in np.flatnonzero(~has_NK.any(axis=0)))

    @property
    def lacking(self) -> tuple[str, ...]:
        """Why the AUC is not defined, in words: classes without an image, labels that no image or every image has."""
        if self.task is not Task.multilabel:
            return tuple(f"class {name!r} has no image" for name in self.absent)
        everywhere = (self.classes[int(k)] for k in np.flatnonzero(self.labels.all(axis=0)))
        none = (f"label {name!r} is on no image" for name in self.absent)
        return (*none, *(f"label {name!r} is on every image" for name in everywhere))

    def select(self, indices: np.ndarray) -> LabelledImages:
        """The images at ``indices``, in that order."""
        return replace(
            self,
            images=self.images[indices],
            labels=self.labels[indices],
            keys=self.keys[indices],
            subjects=None if self.subjects is None else self.subjects[indices],
            spacing_mm=None if self.spacing_mm is None else self.spacing_mm[indices],
        )

    @property
    def metadata(self) -> Metadata:
        """Vocabulary ids of the images."""
        return known(len(self), self.organ, self.modality)

    def distinct_images(self) -> int:
        """How many different images there are, by their pixels."""
        return distinct_images(self.images)

    def content_sha256(self) -> str:
        """SHA-256 over pixels and labels in their order: equal wherever the same images were read from."""
        return content_sha256(self.images, self.labels)


def distinct_images(images: np.ndarray) -> int:
    """How many different images there are, by the digests of their pixels."""
    return len({hashlib.sha256(image.tobytes()).digest() for image in images})


def content_sha256(images: np.ndarray, labels: np.ndarray) -> str:
    """SHA-256 over shapes, pixels and labels."""
    digest = hashlib.sha256(f"{images.shape}{labels.shape}".encode())
    for image in images:  # one by one, so that no second copy of all is held
        digest.update(image.tobytes())
    digest.update(labels.astype("<i8").tobytes())
    return digest.hexdigest()


def known(count: int, organ: Organ, modality: Modality) -> Metadata:
    """What the backbone is told of ``count`` images.

    The task is the one it met in pretraining: the latents of the classification tasks are still as they were drawn.
    """
    return Metadata.uniform(count, organ, modality, Task.self_supervised)


def check_images(images: np.ndarray, name: str) -> None:
    """Refuse what the backbone cannot take.

    Raises:
        DataError: the images are not uint8 planes ``(N, C, H, W)`` with 1 or 3 channels, or volumes
            ``(N, C, D, H, W)``, at least one.
    """
    shape = images.shape if isinstance(images, np.ndarray) else None
    if shape is None or 0 in shape or not (len(shape) == 5 or (len(shape) == 4 and shape[1] in (1, 3))):
        found = getattr(images, "shape", type(images).__name__)
        raise DataError(f"{name}: expected images N,C,H,W with 1 or 3 channels, or volumes N,C,D,H,W, found {found}")
    if images.dtype != np.uint8:
        raise DataError(f"{name}: expected uint8 images, found {images.dtype}")


def spacing_rows(spacing_mm: Sequence[float] | np.ndarray | None, images: np.ndarray, name: str) -> np.ndarray | None:
    """One row per image of what is known of the distances of its voxels.

    Args:
        spacing_mm: one for all, ``(A,)``, or one per image, ``(N, A)``, in the order of the spatial axes; NaN where it
            is not known, None when nothing is known.
        images: whose spacing it is.
        name: of the images, for the message.

    Returns:
        float32 ``(N, A)``, or None when nothing is known.

    Raises:
        DataError: it does not fit the images, or is not a length above 0.
    """
    if spacing_mm is None:
        return None
    rows = np.asarray(spacing_mm, dtype=np.float32)
    shape = (len(images), images.ndim - 2)
    if rows.shape not in (shape, shape[1:]):
        raise DataError(f"{name}: spacing_mm of shape {rows.shape}, images of shape {images.shape} need {shape}")
    known = ~np.isnan(rows)
    if not (np.isfinite(rows[known]).all() and (rows[known] > 0).all()):
        raise DataError(f"{name}: spacing_mm is a length above 0, or NaN where it is not known")
    return np.array(np.broadcast_to(rows, shape)) if known.any() else None


def as_tensor(images: np.ndarray) -> torch.Tensor:
    """The images as a tensor that shares nothing with a read-only array."""
    return torch.from_numpy(np.ascontiguousarray(images) if images.flags.writeable else images.copy())


def check_disjoint(splits: Mapping[str, LabelledImages]) -> None:
    """Refuse a subject that occurs in two splits.

    Raises:
        DataError: names the subject and the two splits.
    """
    seen: dict[str, str] = {}
    for split, part in splits.items():
        for subject in () if part.subjects is None else np.unique(part.subjects).tolist():
            if seen.setdefault(str(subject), split) != split:
                raise DataError(
                    f"{part.name}: subject {subject!r} is in split {seen[str(subject)]} and in split {split}"
                )
