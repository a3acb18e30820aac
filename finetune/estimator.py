"""The estimator: a backbone adapted to a few labels, in the shape scikit-learn users know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils import Tags

from data_shards.support.errors import CheckpointError, ConfigError, DataError, nearest
from data_shards.vocabulary import Modality, Organ, Task, word
from finetune.adaptation import Given, Gradients, Predictor, adapt_head, adapt_network, adapt_probe
from finetune.backbones import BundleReference, OpenedBackbone, open_backbone
from finetune.heads import known_head
from finetune.labelled import check_images, content_sha256, distinct_images, spacing_rows
from finetune.metrics import CLASSIFICATION, accuracy, decide
from finetune.persistence import Fitted, load_fitted, save_fitted
from finetune.record import FitRecord
from finetune.schedules import SCHEDULES, Folds, candidates
from finetune.splits import carved, selection_folds, smallest_class, strata
from finetune.strategies import strategy_named
from finetune.training import Recipe
from pretrain.backbone import Medformer

PRETRAINED_LAYER_DECAY = 0.75

FULL_SELECTION_MINIMUM = 50
"""Subjects in the smallest class from which on the steps of a full fit are chosen on held-out labels."""

_NOTHING_HELD_OUT = "none: a class has a single subject, so none can be held out"


class NotFitted(ConfigError, NotFittedError):
    """A classifier that was asked before it was fitted; scikit-learn looks for its own error."""

    def __init__(self) -> None:
        super().__init__("this classifier is not fitted yet; call fit first")


class FewLabelClassifier(ClassifierMixin, BaseEstimator):
    """Adapts a backbone to a few labelled images.

    With the ``frozen`` strategy features are computed once; the linear head is then an L2-regularised logistic
    regression (:mod:`finetune.logistic`) and any other head is trained by gradient on the cached features. With
    ``full`` the whole network is trained on lightly augmented images.

    Hyper-parameters are chosen within the given labels only, then everything is fitted once more on all of them. A head
    on frozen features: regularisation strength or number of steps by the held-out loss, of a carved fifth when every
    class has at least 15 subjects, else of a stratified cross-validation. A ``full`` fit: one of a few schedules
    (:mod:`finetune.schedules`), by the held-out loss of a carved part. From 50 subjects per class on it also chooses
    how many of its steps to run; below, it runs them all. Fewer than ten held-out images of a class say too little
    about the number of steps: on the validation splits of three MedMNIST sets at 25 per class, stopping by them lost
    AUC in the mean.

    Args:
        backbone: folder of a model bundle, a registered name (a fresh network), or a module. A classifier that was
            loaded has the reference to the bundle it was once adapted from, so that its clones start there, and not
            from weights that have seen labels.
        head: ``linear``, ``attention`` or another name of :func:`finetune.heads.head_names`.
        strategy: ``frozen`` or ``full``.
        task: an entry of :class:`~data_shards.vocabulary.Task`; None tells it from the labels.
        organ: an entry of :class:`~data_shards.vocabulary.Organ`.
        modality: an entry of :class:`~data_shards.vocabulary.Modality`.
        class_weight: ``balanced`` weights classes inversely to their frequency in fitting, so that a rare class shapes
            the fit as much as a common one; None does not. Probabilities are those of the given labels' frequency
            either way: the weights are taken out of the fitted logits again (:mod:`finetune.objective`).
        learning_rate: peak rate of a head trained by gradient; None has a ``full`` fit choose it, and is 1e-3 else.
        backbone_rate: peak rate of the last layer of the backbone; None takes a tenth of ``learning_rate``.
        layer_decay: factor of the rate from one layer to the one before it; None takes 0.75 for a pretrained backbone
            and 1 for a fresh one, whose first layers have nothing to keep.
        weight_decay: of weight matrices.
        max_steps: length of the schedule; None has a ``full`` fit choose it, and is 100 else.
        batch_size: images per step.
        augmentation: whether ``full`` training sees lightly augmented images.
        seed: of initial weights, splits, batches and augmentation.
        device: where the networks run.

    Attributes:
        classes_: the labels as they were given, sorted.
        predictor_: the adapted model.
        source_: reference to the bundle or name of the fresh network that it was adapted from; None for a module.
        architecture_: name by which timm makes the backbone, or None when a module was given.
        model_args_: arguments the backbone is made with.
        record_: the :class:`FitRecord`.
    """

    def __init__(
        self,
        backbone: str | Path | BundleReference | Medformer = "medformer_nano",
        *,
        head: str = "linear",
        strategy: str = "frozen",
        task: str | None = None,
        organ: str = "unknown",
        modality: str = "unknown",
        class_weight: str | None = "balanced",
        learning_rate: float | None = None,
        backbone_rate: float | None = None,
        layer_decay: float | None = None,
        weight_decay: float = 0.05,
        max_steps: int | None = None,
        batch_size: int = 16,
        augmentation: bool = True,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.backbone = backbone
        self.head = head
        self.strategy = strategy
        self.task = task
        self.organ = organ
        self.modality = modality
        self.class_weight = class_weight
        self.learning_rate = learning_rate
        self.backbone_rate = backbone_rate
        self.layer_decay = layer_decay
        self.weight_decay = weight_decay
        self.max_steps = max_steps
        self.batch_size = batch_size
        self.augmentation = augmentation
        self.seed = seed
        self.device = device

    def fit(
        self,
        X: np.ndarray,
        y: np.ndarray,
        groups: np.ndarray | None = None,
        *,
        spacing_mm: Sequence[float] | np.ndarray | None = None,
        index_sha256: str = "",
    ) -> Self:
        """Adapt to the given images.

        Args:
            X: uint8 images, planes ``(N, C, H, W)`` with 1 or 3 channels or volumes ``(N, C, D, H, W)``.
            y: ``(N,)`` labels of any type, or ``(N, L)`` 0/1 for a multi-label task.
            groups: the subject of each image; a subject is never on both sides of a split.
            spacing_mm: distance of voxels along each spatial axis, one for all images or ``(N, A)`` with NaN where
                it is not known; None when nothing is known. Give it when predicting, too.
            index_sha256: of the index file that chose the images, for the record.

        Raises:
            DataError: images, labels or groups cannot be used.
            ConfigError: a parameter cannot be used.
        """
        self._check_parameters()
        check_images(X, "X")
        classes, labels, task = _encode(y, self.task)
        if len(labels) != len(X) or (groups is not None and len(groups) != len(X)):
            raise DataError(f"{len(X)} images, {len(labels)} labels, {'no' if groups is None else len(groups)} groups")
        subjects_N = None if groups is None else _distinct(groups, "groups")[1]
        spacing_NA = spacing_rows(spacing_mm, X, "X")
        given = Given(
            images=X,
            labels=labels,
            task=task,
            classes=len(classes),
            organ=word(Organ, self.organ),
            modality=word(Modality, self.modality),
            balanced=self.class_weight == "balanced",
            spacing_mm=spacing_NA,
        )
        opened = open_backbone(self.backbone, self.seed)
        self.classes_ = classes
        self.predictor_, chosen, selection = self._adapt(opened, given, subjects_N)
        self.source_ = opened.source
        self.architecture_, self.model_args_ = opened.architecture, opened.model_args
        self.record_ = FitRecord(
            backbone=opened.origin,
            pretrained=opened.pretrained,
            seed=self.seed,
            index_sha256=index_sha256,
            given_sha256=content_sha256(X, labels),
            labelled_images=len(X),
            distinct_labelled_images=distinct_images(X),
            per_class=_per_class(classes, labels, task),
            selection=selection,
            chosen=chosen,
        )
        return self

    def predict_proba(self, X: np.ndarray, spacing_mm: Sequence[float] | np.ndarray | None = None) -> np.ndarray:
        """Probabilities ``(N, K)`` in the order of ``classes_``; of each label alone for a multi-label task.

        ``X`` and ``spacing_mm`` are as in :meth:`fit`.

        Raises:
            NotFitted: the estimator is not fitted.
            DataError: the images cannot be used.
        """
        predictor = self._fitted()
        check_images(X, "X")
        return predictor.predict_proba(X, spacing_rows(spacing_mm, X, "X"))

    def predict(self, X: np.ndarray, spacing_mm: Sequence[float] | np.ndarray | None = None) -> np.ndarray:
        """The decided label of each image, ``(N,)``; 0/1 per label ``(N, L)`` for a multi-label task."""
        decided_NL = decide(self.predict_proba(X, spacing_mm), self._fitted().task)
        if self._fitted().task is Task.multilabel:
            return decided_NL
        labels: np.ndarray = self.classes_[decided_NL[:, 0]]
        return labels

    def score(self, X: np.ndarray, y: np.ndarray, spacing_mm: Sequence[float] | np.ndarray | None = None) -> float:
        """Accuracy, as scikit-learn's classifiers give; see :mod:`finetune.metrics` for the others."""
        task = self._fitted().task
        if task is Task.multilabel:
            return float(accuracy(np.asarray(y), self.predict_proba(X, spacing_mm), task))
        return float(np.mean(self.predict(X, spacing_mm) == np.asarray(y).reshape(-1)))

    def set_params(self, **params: Any) -> Self:
        """Change parameters.

        Raises:
            ConfigError: there is no such parameter; the nearest name is given.
        """
        for name in params:
            if name not in self.get_params():
                raise ConfigError(f"unknown parameter {name!r}{nearest(name, self.get_params())}")
        return super().set_params(**params)

    def save(self, folder: Path, *, overwrite: bool = False) -> None:
        """Write the fitted classifier to a folder, see :mod:`finetune.persistence`.

        Raises:
            NotFitted: it is not fitted.
            ConfigError: its backbone was given as a module, whose architecture is not known.
            MedformerError: the folder exists, or the disk refuses; nothing is left behind.
        """
        predictor = self._fitted()
        if self.architecture_ is None or self.source_ is None:
            raise ConfigError(
                "a classifier whose backbone was given as a module cannot be saved; give a bundle or a name"
            )
        params = {name: value for name, value in self.get_params().items() if name not in ("backbone", "device")}
        fitted = Fitted(
            params, self.source_, self.classes_, predictor, self.record_, self.architecture_, self.model_args_
        )
        save_fitted(fitted, folder, overwrite=overwrite)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Self:
        """Read back what :meth:`save` wrote, onto ``device``, whichever one it was fitted on.

        Its ``backbone`` parameter is what it was adapted from, not the network as it is after fitting: a clone of it,
        as cross-validation makes them, must not start from weights that have seen the labels it is tried on.

        Raises:
            CheckpointError: a file is missing, damaged, or not of this kind.
        """
        fitted = load_fitted(folder, device)
        try:
            classifier = cls(**{**fitted.params, "backbone": fitted.source, "device": device})
        except TypeError as error:
            raise CheckpointError(f"{folder}: not a complete classifier: {error}") from None
        classifier.source_, classifier.classes_, classifier.predictor_ = fitted.source, fitted.classes, fitted.predictor
        classifier.record_ = fitted.record
        classifier.architecture_, classifier.model_args_ = fitted.architecture, fitted.model_args
        return classifier

    def __sklearn_tags__(self) -> Tags:
        """Images are not the two-dimensional arrays that scikit-learn's common tests would give it."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.classifier_tags.multi_label = True
        return tags

    def _fitted(self) -> Predictor:
        predictor: Predictor | None = getattr(self, "predictor_", None)
        if predictor is None:
            raise NotFitted
        return predictor

    def _check_parameters(self) -> None:
        strategy_named(self.strategy)
        known_head(self.head)
        if self.class_weight not in (None, "balanced"):
            raise ConfigError(f"class_weight is 'balanced' or None, found {self.class_weight!r}")
        for name in ("learning_rate", "max_steps", "batch_size", "backbone_rate"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"{name} must be positive, found {getattr(self, name)}")

    def _adapt(
        self, opened: OpenedBackbone, given: Given, groups: np.ndarray | None
    ) -> tuple[Predictor, dict[str, Any], str]:
        """The predictor, what was chosen for it, and how, in words."""
        backbone = opened.module.to(self.device)
        strata_N = strata(given.labels, given.task)
        if strategy_named(self.strategy).trains_backbone:
            return self._adapt_network(backbone, opened.pretrained, given, strata_N, groups)
        folds = selection_folds(strata_N, self.seed, groups)
        if not folds:
            said = _NOTHING_HELD_OUT
        elif len(folds) == 1:
            said = "carved fifth of the given labels"
        else:
            said = f"{len(folds)}-fold cross-validation within the given labels"
        if self.head == "linear":
            return *adapt_probe(backbone, given, folds), said
        recipe = Recipe(max_steps=self.max_steps or SCHEDULES[0].steps, batch_size=self.batch_size)
        rate = self.learning_rate or SCHEDULES[0].rate
        fitted = adapt_head(backbone, self.head, given, folds, recipe, rate, self.weight_decay, self.seed)
        return *fitted, said

    def _adapt_network(
        self, backbone: Medformer, pretrained: bool, given: Given, strata_N: np.ndarray, groups: np.ndarray | None
    ) -> tuple[Predictor, dict[str, Any], str]:
        schedules = candidates(self.max_steps, self.learning_rate)
        stop = smallest_class(strata_N, groups) >= FULL_SELECTION_MINIMUM
        folds: Folds = carved(strata_N, self.seed, groups)
        if stop:
            said = "schedule and number of steps by a carved part of the given labels"
        elif len(schedules) == 1:
            said = f"none: fewer than {FULL_SELECTION_MINIMUM} subjects in a class, the whole schedule is run"
        elif folds:
            said = "schedule by a carved part of the given labels, run whole"
        else:
            said = f"{_NOTHING_HELD_OUT}; {schedules[0]}"
        layer_decay = PRETRAINED_LAYER_DECAY if pretrained else 1.0
        gradients = Gradients(
            backbone_rate=self.backbone_rate,
            layer_decay=layer_decay if self.layer_decay is None else self.layer_decay,
            weight_decay=self.weight_decay,
            augmented=self.augmentation,
            batch_size=self.batch_size,
        )
        fitted = adapt_network(backbone, self.head, given, folds, schedules, gradients, self.seed, stop=stop)
        return *fitted, said


def _encode(y: np.ndarray, task: str | None) -> tuple[np.ndarray, np.ndarray, Task]:
    """The classes, the labels as ``(N, L)`` class indices, and the task."""
    targets = np.asarray(y)
    if targets.ndim == 2 and targets.shape[1] == 1:
        targets = targets[:, 0]
    if targets.ndim not in (1, 2) or not targets.size:
        raise DataError(f"y: expected labels (N,) or (N, L), found shape {targets.shape}")
    if targets.dtype.kind == "f" and not np.isfinite(targets).all():
        raise DataError("y: a label is NaN or infinite")
    if targets.ndim == 2:
        if not np.isin(targets, (0, 1)).all() or task not in (None, Task.multilabel.name):
            raise DataError(f"y: labels of shape {targets.shape} must be 0 or 1, of a multilabel task")
        return np.arange(targets.shape[1]), targets.astype(np.int64), Task.multilabel
    classes, indices = _distinct(y, "y")
    if len(classes) < 2:
        raise DataError(f"y: every label is {classes[0]!r}; expected at least two classes")
    kind = word(Task, task) if task is not None else Task.binary if len(classes) == 2 else Task.multiclass
    if kind not in CLASSIFICATION or kind is Task.multilabel or (kind is Task.binary and len(classes) != 2):
        raise DataError(f"y: {len(classes)} classes do not fit a {kind.name} task")
    return classes, indices[:, None].astype(np.int64), kind


def _distinct(values: Sequence[Any] | np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The different values, sorted, and which of them each is, ``(N,)``.

    Raises:
        DataError: one is missing (None, NaN and the like), they are not one for each image, or cannot be sorted.
    """
    for position, value in enumerate(np.asarray(values, dtype=object).reshape(-1).tolist()):
        if _is_missing(value):
            raise DataError(f"{name}: the one of image {position} is missing; expected one for each image")
    flat = np.asarray(values)
    if flat.ndim not in (1, 2) or flat.size != len(flat):
        raise DataError(f"{name}: expected one for each image, found shape {flat.shape}")
    try:
        different, index_N = np.unique(flat.reshape(-1), return_inverse=True)
    except TypeError:
        raise DataError(f"{name}: values of several types, which cannot be sorted; expected one type") from None
    return different, index_N


def _is_missing(value: object) -> bool:
    """Whether a value stands for none: None, or, as NaN, NaT and ``pandas.NA``, not surely equal to itself."""
    try:
        return value is None or not bool(value == value)
    except TypeError:
        return True


def _per_class(classes: np.ndarray, labels_NL: np.ndarray, task: Task) -> dict[str, int]:
    if task is Task.multilabel:
        return {str(name): int(count) for name, count in zip(classes, labels_NL.sum(axis=0), strict=True)}
    counts = Counter(labels_NL[:, 0].tolist())
    return {str(name): counts[index] for index, name in enumerate(classes)}
