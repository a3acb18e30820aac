"""Cases: what every reader gives and everything else in this package takes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from data_shards.support.errors import DataError
from data_shards.vocabulary import Modality, Organ, Task
from finetune.images import ArrayPictures, ChosenPictures, Pictures, Study
from finetune.targets import TARGETS, Target, create_target
from pretrain.metadata import Metadata


@dataclass(frozen=True)
class Cases:
    """What is classified: cases, each of one subject, with one study or several (a bag), labelled or not.

    It is indexed by positions, as scikit-learn indexes what it splits: ``cases[[3, 1]]`` are two cases. What is read of
    the images is read when it is needed.

    Attributes:
        name: of the dataset.
        images: uint8, planes ``(N, C, H, W)`` or volumes ``(N, C, D, H, W)``, one image per case; or any
            :class:`~finetune.images.Pictures`, of which ``rows`` and ``bags`` say which study is whose.
        labels: ``(N, L)``: the class index, 0/1 per label of a multi-label task, int64; or numbers, float64. None where
            nothing is known, as of new cases.
        task: how the labels are to be read.
        classes: name of each class index, or of each label or number: indices 0 to K - 1.
        keys: a name per case that names nobody: its row in a table, its key or its number in the shards.
        organ: body part shown.
        modality: how the images were made.
        subjects: the subject of each case, or None when it is not known and each case counts as its own. Messages and
            results do not tell them.
        official: whether these are the published images in the published split.
        note: why not, or that the images are synthetic.
        source: where the images come from: digests of the files.
        spacing_mm: float32 ``(N, A)``: distance of voxels along each spatial axis, NaN where it is not known; None when
            nothing is known. Of images in an array; others have it with each image.
        warnings: what whoever uses the images has to know of how they were read.
        rows: the position among ``images`` of each study, ``(M,)``; None for as many as there are cases.
        bags: the case of each study, ``(M,)`` ascending; None where each case has one.
        recipe: how images were read and prepared, so that new ones can be brought to the same.
        licence: of the images, as their owner writes it.
        groups: what the cases are scored by group of, such as site or sex: the value of each case, text ``(N,)``, by
            name.
    """

    name: str
    images: np.ndarray | Pictures
    labels: np.ndarray | None
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
    warnings: tuple[str, ...] = ()
    rows: np.ndarray | None = None
    bags: np.ndarray | None = None
    recipe: Mapping[str, Any] | None = None
    licence: str = ""
    groups: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.images, Pictures):
            count = len(self.images)
        else:
            check_images(self.images, self.name)
            object.__setattr__(self, "spacing_mm", spacing_rows(self.spacing_mm, self.images, self.name))
            count = len(self.images)
        if self.rows is None:
            object.__setattr__(self, "rows", np.arange(count))
        assert self.rows is not None
        cases = len(self.rows)
        if self.bags is not None:
            cases = int(self.bags.max(initial=-1)) + 1
            # Ascending, without a gap, from the first case to the last.
            steps = np.diff(self.bags, prepend=-1)
            if len(self.bags) != len(self.rows) or not cases or not np.isin(steps, (0, 1)).all() or steps[0] != 1:
                raise DataError(f"{self.name}: a case without an image, or its images are not side by side")
        if len(self.keys) != cases or (
            self.labels is not None and (self.labels.ndim != 2 or len(self.labels) != cases)
        ):
            shape = None if self.labels is None else self.labels.shape
            raise DataError(f"{self.name}: {cases} cases, {len(self.keys)} keys, labels of shape {shape}")
        if self.subjects is not None and len(self.subjects) != cases:
            raise DataError(f"{self.name}: {cases} cases but {len(self.subjects)} subjects")
        for name, values in self.groups.items():
            if len(values) != cases:
                raise DataError(f"{self.name}: {cases} cases but {len(values)} groups of {name}")
        if self.labels is None:
            return
        if sorted(self.classes) != list(range(len(self.classes))):
            raise DataError(f"{self.name}: classes are numbered 0, 1, ...; found {dict(self.classes)}")
        if self.task.name not in TARGETS:
            raise DataError(f"{self.name}: a {self.task.name} task has no labels to learn")
        try:
            self.target.check(self.labels)
        except DataError as error:
            raise DataError(f"{self.name}: {error}") from None

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def shape(self) -> tuple[int]:
        """``(N,)``: by this scikit-learn knows how many there are."""
        return (len(self),)

    def __getitem__(self, index: Any) -> Cases:
        """The cases at ``index``: positions, a mask or a slice."""
        if isinstance(index, tuple):  # scikit-learn writes cases[index, ...]
            index = index[0]
        if np.ndim(index) == 0 and not isinstance(index, slice):
            index = [index]
        return self.select(np.arange(len(self))[index])

    @cached_property
    def target(self) -> Target:
        """What is to be told of a case."""
        return create_target(self.task.name, [self.classes[index] for index in sorted(self.classes)])

    @cached_property
    def pictures(self) -> Pictures:
        """The studies, of which ``rows`` are those of these cases."""
        if isinstance(self.images, Pictures):
            return self.images
        return ArrayPictures(self.images, self.spacing_mm, self.organ, self.modality)

    @property
    def targets(self) -> np.ndarray:
        """Labels as scikit-learn takes them: ``(N,)``, or ``(N, L)`` where there are several.

        Raises:
            DataError: there are none.
        """
        labels_NL = self.known_labels
        return labels_NL if self.task is Task.multilabel or labels_NL.shape[1] > 1 else labels_NL[:, 0]

    @property
    def known_labels(self) -> np.ndarray:
        """The labels, ``(N, L)``.

        Raises:
            DataError: there are none.
        """
        if self.labels is None:
            raise DataError(f"{self.name}: the cases have no labels")
        return self.labels

    @property
    def strata(self) -> np.ndarray:
        """One stratum per case, see :meth:`finetune.targets.base.Target.strata`."""
        return self.target.strata(self.known_labels)

    @property
    def absent(self) -> tuple[str, ...]:
        """The classes without a case, by name; the labels that no case has."""
        return tuple(name for name, count in self.target.counts(self.known_labels).items() if not count)

    @property
    def lacking(self) -> tuple[str, ...]:
        """Why the AUC is not defined, in words: classes without a case, labels that no case or every case has."""
        if self.task is not Task.multilabel:
            return tuple(f"class {name!r} has no image" for name in self.absent)
        everywhere = (self.classes[int(k)] for k in np.flatnonzero(self.known_labels.all(axis=0)))
        none = (f"label {name!r} is on no image" for name in self.absent)
        return (*none, *(f"label {name!r} is on every image" for name in everywhere))

    @property
    def bagged(self) -> bool:
        """Whether a case has several studies."""
        return self.bags is not None

    def rows_of(self, case: int) -> np.ndarray:
        """The positions of the studies of a case."""
        assert self.rows is not None
        if self.bags is None:
            return self.rows[case : case + 1]
        return self.rows[np.searchsorted(self.bags, case) : np.searchsorted(self.bags, case, side="right")]

    def studies_of(self, case: int) -> list[Study]:
        """The studies of a case.

        Raises:
            DataError: one cannot be read.
        """
        return [self.pictures.study(int(row)) for row in self.rows_of(case)]

    def select(self, indices: np.ndarray) -> Cases:
        """The cases at ``indices``, in that order; the same one may be there twice."""
        indices = np.asarray(indices)
        if not len(indices):
            raise DataError(f"{self.name}: no case is left")
        per_case: dict[str, Any] = {
            "labels": None if self.labels is None else self.labels[indices],
            "keys": self.keys[indices],
            "subjects": None if self.subjects is None else self.subjects[indices],
            "groups": {name: values[indices] for name, values in self.groups.items()},
        }
        if not isinstance(self.images, Pictures) and self.bags is None and len(self.images) == len(self):
            spacing = None if self.spacing_mm is None else self.spacing_mm[indices]
            chosen = replace(self, **per_case, images=self.images[indices], spacing_mm=spacing, rows=None)
            # What was computed of the images is found again, such as by every fold of a cross-validation.
            vars(chosen)["pictures"] = ChosenPictures(self.pictures, indices)
            return chosen
        parts = [self.rows_of(int(index)) for index in indices]
        bags = None if self.bags is None else np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        rows = np.concatenate(parts)
        return replace(self, **per_case, images=self.pictures, spacing_mm=None, rows=rows, bags=bags)

    def shared(self) -> Cases:
        """The same cases, whose selections share one set of images and what was computed of it."""
        return replace(self, images=self.pictures, spacing_mm=None)

    @property
    def metadata(self) -> Metadata:
        """Vocabulary ids of the cases."""
        return known(len(self), self.organ, self.modality)

    def digests(self) -> list[bytes]:
        """SHA-256 of the pixels of each case."""
        found = []
        for case in range(len(self)):
            rows = self.rows_of(case)
            if len(rows) == 1:
                found.append(self.pictures.digest(int(rows[0])))
            else:
                found.append(hashlib.sha256(b"".join(self.pictures.digest(int(row)) for row in rows)).digest())
        return found

    def distinct_images(self) -> int:
        """How many different cases there are, by their pixels."""
        return len(set(self.digests()))

    def content_sha256(self) -> str:
        """SHA-256 over pixels and labels in their order: equal wherever the same images were read from."""
        if isinstance(self.pictures, ArrayPictures) and self.bags is None:
            assert self.rows is not None
            return content_sha256(self.pictures.pixels[self.rows], self.known_labels)
        digest = hashlib.sha256(b"".join(self.digests()))
        labels = self.known_labels
        digest.update(labels.astype("<f8" if labels.dtype.kind == "f" else "<i8").tobytes())
        return digest.hexdigest()


def distinct_images(images: np.ndarray) -> int:
    """How many different images there are, by the digests of their pixels."""
    return len({hashlib.sha256(image.tobytes()).digest() for image in images})


def content_sha256(images: np.ndarray, labels: np.ndarray) -> str:
    """SHA-256 over shapes, pixels and labels."""
    digest = hashlib.sha256(f"{images.shape}{labels.shape}".encode())
    for image in images:  # one by one, so that no second copy of all is held
        digest.update(image.tobytes())
    digest.update(labels.astype("<f8" if labels.dtype.kind == "f" else "<i8").tobytes())
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


def contiguous(labels: np.ndarray, classes: Mapping[int, str]) -> tuple[np.ndarray, dict[int, str]]:
    """Label values such as 1, 2 and 5 as the class indices 0, 1 and 2, and the names of these.

    Raises:
        DataError: a label is none of the classes.
    """
    values = np.array(sorted(classes), dtype=np.int64)
    strange = labels[~np.isin(labels, values)]
    if strange.size:
        raise DataError(f"label {strange[0]:g} is none of the classes {', '.join(map(str, values.tolist()))}")
    return np.searchsorted(values, labels), {index: classes[value] for index, value in enumerate(values.tolist())}


def check_disjoint(splits: Mapping[str, Cases]) -> None:
    """Refuse a subject that occurs in two splits.

    Raises:
        DataError: names an image of the subject in each, and not the subject.
    """
    seen: dict[str, tuple[str, str]] = {}
    for split, part in splits.items():
        if part.subjects is None:
            continue
        for subject, key in zip(part.subjects.tolist(), part.keys, strict=True):
            home, first = seen.setdefault(str(subject), (split, str(key)))
            if home != split:
                raise DataError(
                    f"{part.name}: {first} in split {home} and {key} in split {split} are of one subject; "
                    "a subject is in one split"
                )
