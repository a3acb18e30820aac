"""What both estimators are: parameters, fitting, saving; what is told of new cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.utils import Tags

from data_shards.support.allocator import freed_memory_kept
from data_shards.support.documents import parse
from data_shards.support.errors import CheckpointError, ConfigError, DataError, nearest
from data_shards.vocabulary import Modality, Organ, Task, word
from finetune.backbones import BundleReference, open_backbone
from finetune.cases import Cases, check_images, spacing_rows
from finetune.classifier.given import Given
from finetune.classifier.instances import CaseInstances
from finetune.classifier.labels import distinct
from finetune.classifier.persistence import Fitted, load_fitted, save_fitted
from finetune.classifier.predictor import Prediction, Predictor
from finetune.classifier.record import FitRecord
from finetune.classifier.seen import Seen
from finetune.classifier.settings import Settings, check_parameters
from finetune.classifier.site import Site, check_site, joined
from finetune.classifier.unlabelled import apart, check_mixable, check_unlabelled
from finetune.heads import check_head
from finetune.intensity import differences
from finetune.readers.recipe import Recipe
from finetune.slices import Slices, sliced
from finetune.steppers import STEPPERS
from finetune.targets import Target
from finetune.windows import windowed
from pretrain.backbone import Backbone
from pretrain.devices import check_device


class NotFitted(ConfigError, NotFittedError):
    """A model that was asked before it was fitted; scikit-learn looks for its own error."""

    def __init__(self) -> None:
        super().__init__("this classifier is not fitted yet; call fit first")


class FewLabelModel(BaseEstimator):
    """What :class:`FewLabelClassifier` and :class:`FewLabelRegressor` share.

    With the ``frozen`` strategy features are computed once; the linear head is then the L2-penalised optimum
    (:mod:`finetune.fit.linear`) and any other head is trained by gradient on the cached features. The other strategies
    train on lightly augmented images.

    Hyper-parameters are chosen within the given labels only, then everything is fitted once more on all of them. A
    linear head on frozen features: penalty and what it reads, by the held-out loss of a stratified cross-validation by
    subjects in five folds, or as many as the smallest class has subjects. Another head on frozen features: number of
    steps, by the held-out loss of a carved fifth when every class has at least 15 subjects, else of such a
    cross-validation. A strategy that trains the backbone: one of a few schedules (:mod:`finetune.fit.schedules`), by
    the held-out loss of a carved part. From 50 subjects per class on it also chooses how many of its steps to run;
    below, it runs them all. Fewer than ten held-out images of a class say too little about the number of steps: on the
    validation splits of three MedMNIST sets at 25 per class, stopping by them lost AUC in the mean.

    What was held out also calibrates: a temperature brings probabilities to how often they come true
    (:mod:`finetune.classifier.calibration`), and sets say what cannot be excluded
    (:mod:`finetune.classifier.conformal`).

    Args:
        backbone: folder of a model bundle, a registered name (a fresh network), or a module. A classifier that was
            loaded has the reference to the bundle it was once adapted from, so that its clones start there, and not
            from weights that have seen labels.
        head: ``linear``, ``attention`` or another name of :data:`finetune.heads.HEADS`.
        head_options: options of the head, such as ``{"reads": "mean"}``.
        strategy: ``frozen``, ``selective``, ``two_stage``, ``full``, ``low_rank``.
        strategy_options: options of the strategy, such as ``{"rank": 8}``.
        stepper: ``plain`` or another name of :data:`finetune.steppers.STEPPERS`.
        stepper_options: options of the stepper.
        task: name of the target, see :mod:`finetune.targets`; None tells it from the labels.
        organ: an entry of :class:`~data_shards.vocabulary.Organ`, of images in arrays.
        modality: an entry of :class:`~data_shards.vocabulary.Modality`, of images in arrays.
        class_weight: ``balanced`` weights classes inversely to their frequency in fitting, so that a rare class shapes
            the fit as much as a common one; None does not. Probabilities are those of the given labels' frequency
            either way: the weights are taken out of the fitted logits again (:mod:`finetune.targets.base`).
        sampler: ``shuffled`` shows every case equally often, ``balanced`` every class; for training by gradient, in
            place of the weights.
        loss: ``nll``, or ``focal`` for training by gradient.
        mixup: parameter of the Beta distribution of mixtures, for training by gradient; 0 for none.
        learning_rate: peak rate of a head trained by gradient; None has a strategy that trains the backbone choose it,
            and is 1e-3 else.
        backbone_rate: peak rate of the last layer of the backbone; None takes a tenth of ``learning_rate``.
        layer_decay: factor of the rate from one layer to the one before it; None takes 0.75 for a pretrained backbone
            and 1 for a fresh one, whose first layers have nothing to keep.
        weight_decay: of weight matrices.
        max_steps: length of the schedule; None has a strategy that trains the backbone choose it, and is 100 else.
        batch_size: cases per step.
        augmentation: whether training on images sees lightly augmented ones.
        ensemble: ``none``; ``folds``: the models of a cross-validation; ``seeds``: of several initial weights and
            orders; ``snapshots``: of several ends of a schedule that falls more than once.
        members: of an ensemble of seeds or snapshots.
        calibrate: whether probabilities are brought to how often they come true on held-out labels.
        coverage: share of new subjects whose set shall hold the right answer.
        sets_by_class: whether each class shall have that coverage by itself, or only all together, where a rare class
            may hardly ever be covered; None for each by itself where every class has ten held-out subjects or more.
        mc_dropout: draws of the head's dropout that are averaged in prediction; 0 for none.
        alignment: makes features of the source site, which has the labels, and of the target site alike:
            ``{"name": "coral"}`` or another name of :data:`finetune.alignment.ALIGNMENTS`, with its options. None
            for none.
        slices: shows volumes as bags of their slices: options of :class:`~finetune.slices.Slices`, such as
            ``{"axis": 0, "every": 2}``; None shows them whole.
        window: voxels of windows in which a frozen network reads images that are larger, one number for every axis or
            one for each; None has it read them whole.
        overlap: of neighbouring windows, as a fraction of their sides.
        seed: of initial weights, splits, batches and augmentation.
        device: where the networks run.

    Attributes:
        classes_: the labels as they were given, sorted; of a classifier.
        predictor_: the adapted model.
        source_: reference to the bundle or name of the fresh network that it was adapted from; None for a module.
        architecture_: name by which timm makes the backbone, or None when a module was given.
        model_args_: arguments the backbone is made with.
        held_out_: probabilities ``(N, C)`` that given cases got from a fit without them, NaN for others; None where
            nothing was held out. Penalty and reads were chosen on the same cases.
        estimate_: how good it is, of a loaded model, as it was saved; empty where nothing was.
        labels_: the labels ``(N, L)`` as the target has them; None after loading.
        record_: the :class:`~finetune.classifier.record.FitRecord`.
    """

    def __init__(
        self,
        backbone: str | Path | BundleReference | Backbone = "medformer_nano",
        *,
        head: str = "linear",
        head_options: Mapping[str, Any] | None = None,
        strategy: str = "frozen",
        strategy_options: Mapping[str, Any] | None = None,
        stepper: str = "plain",
        stepper_options: Mapping[str, Any] | None = None,
        task: str | None = None,
        organ: str = "unknown",
        modality: str = "unknown",
        class_weight: str | None = "balanced",
        sampler: str = "shuffled",
        loss: str = "nll",
        mixup: float = 0.0,
        learning_rate: float | None = None,
        backbone_rate: float | None = None,
        layer_decay: float | None = None,
        weight_decay: float = 0.05,
        max_steps: int | None = None,
        batch_size: int = 16,
        augmentation: bool = True,
        ensemble: str = "none",
        members: int = 5,
        calibrate: bool = True,
        coverage: float = 0.9,
        sets_by_class: bool | None = None,
        mc_dropout: int = 0,
        alignment: Mapping[str, Any] | None = None,
        slices: Mapping[str, int] | None = None,
        window: int | Sequence[int] | None = None,
        overlap: float = 0.5,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.backbone = backbone
        self.head = head
        self.head_options = head_options
        self.strategy = strategy
        self.strategy_options = strategy_options
        self.stepper = stepper
        self.stepper_options = stepper_options
        self.task = task
        self.organ = organ
        self.modality = modality
        self.class_weight = class_weight
        self.sampler = sampler
        self.loss = loss
        self.mixup = mixup
        self.learning_rate = learning_rate
        self.backbone_rate = backbone_rate
        self.layer_decay = layer_decay
        self.weight_decay = weight_decay
        self.max_steps = max_steps
        self.batch_size = batch_size
        self.augmentation = augmentation
        self.ensemble = ensemble
        self.members = members
        self.calibrate = calibrate
        self.coverage = coverage
        self.sets_by_class = sets_by_class
        self.mc_dropout = mc_dropout
        self.alignment = alignment
        self.slices = slices
        self.window = window
        self.overlap = overlap
        self.seed = seed
        self.device = device

    @freed_memory_kept()
    def fit(
        self,
        X: np.ndarray | Cases,
        y: np.ndarray | None = None,
        groups: np.ndarray | None = None,
        *,
        unlabelled: np.ndarray | Cases | None = None,
        target_data: np.ndarray | Cases | Site | None = None,
        spacing_mm: Sequence[float] | np.ndarray | None = None,
        index_sha256: str = "",
    ) -> Self:
        """Adapt to the given cases.

        Args:
            X: :class:`~finetune.cases.Cases`, which bring labels, subjects and spacing; or uint8 images, planes ``(N,
                C, H, W)`` with 1 or 3 channels or volumes ``(N, C, D, H, W)``.
            y: ``(N,)`` labels of any type, or ``(N, L)`` 0/1 for a multi-label task; numbers for a regression. Left
                out, those of the cases.
            groups: the subject of each case; a subject is never on both sides of a split. Left out, those of the cases.
            unlabelled: further images like ``X`` without labels, for a stepper that learns from them. Those among
                ``X``, by their pixels or their subject, are left out and counted. Labels they have are not looked at.
            target_data: images of the site where the model shall be used, for the alignment, without labels; or a
                :class:`~finetune.classifier.site.Site` of some with labels, which are learned from too, and others
                without. Those among ``X`` are left out and counted, as unlabelled ones are.
            spacing_mm: distance of voxels along each spatial axis of images in an array, one for all or ``(N, A)`` with
                NaN where it is not known; None when nothing is known. Give it when predicting, too. Of unlabelled
                images, and those of a target site, in an array the one for all is taken.
            index_sha256: of the index file that chose the cases, for the record.

        Raises:
            DataError: images, labels or groups cannot be used.
            ConfigError: a parameter cannot be used.
        """
        check_parameters(self.get_params(deep=False))
        whole = self._cases(X, spacing_mm)
        site, moved = self._site(target_data, whole, spacing_mm)
        check_site(self.get_params(deep=False), given=len(site), labelled=len(site.labelled or ()))
        if site.labelled is not None:
            if y is not None or groups is not None or not isinstance(X, Cases):
                raise ConfigError("labelled cases of a target site join Cases that bring their own labels and subjects")
            whole = joined(whole, site.labelled)
        cases = self._shown(whole)
        classes, labels, target = self._labels(cases, y)
        if groups is None and isinstance(X, Cases):
            groups = whole.subjects
        if len(labels) != len(cases) or (groups is not None and len(groups) != len(cases)):
            counted = "no" if groups is None else len(groups)
            raise DataError(f"{len(cases)} images, {len(labels)} labels, {counted} groups")
        check_head(self.head, self.head_options, target.task)
        target = target.fitted_to(labels)
        check_unlabelled(self.stepper, given=unlabelled is not None, target=target)
        subjects_N = None if groups is None else distinct(groups, "groups")[1]
        seen = Seen.of(whole)
        further, left_out = None, 0
        if unlabelled is not None:
            further, left_out = self._unlabelled(unlabelled, replace(cases, subjects=groups), seen, spacing_mm)
        elsewhere = None if site.unlabelled is None else self._shown(site.unlabelled)
        given = Given(cases, labels, target, subjects_N, further, len(site.labelled or ()), elsewhere)
        if further is not None and STEPPERS.named(self.stepper).mixes:
            check_mixable(self.stepper, given.shown)
        opened = open_backbone(self.backbone, self.seed)
        # Else sizes are those at its spacing, or of slices.
        if opened.module.voxel_mm is None and self._slices is None:
            check_head(self.head, self.head_options, target.task, one_grid=_one_grid(cases))
        check_device(self.device)
        other_rules = differences(whole, opened.intensity)
        opened.module.to(self.device)
        settings = Settings(opened.pretrained, self.get_params(deep=False))
        adapted, selection = settings.adapt(opened.module, given)
        temperature, conformal = settings.calibrated(adapted, given)
        if classes is not None:
            self.classes_ = classes
        self.predictor_ = Predictor(
            adapted.members,
            target,
            temperature,
            conformal,
            seen,
            self.mc_dropout,
            self.seed,
            self._slices,
            self.window,
            self.overlap,
        )
        self.labels_: np.ndarray | None = labels
        self.estimate_: dict[str, Any] = {}
        self.held_out_ = None
        if adapted.held_out is not None:
            self.held_out_ = target.probabilities(adapted.held_out, temperature)
        self.source_ = opened.source
        self.architecture_, self.model_args_ = opened.architecture, opened.model_args
        counted_on = 0 if adapted.held_out is None else int(np.isfinite(adapted.held_out).all(axis=1).sum())
        labelled = replace(cases, labels=labels, task=target.task, classes=dict(enumerate(target.classes)))
        self.record_ = FitRecord(
            backbone=opened.origin,
            pretrained=opened.pretrained,
            seed=self.seed,
            index_sha256=index_sha256,
            given_sha256=labelled.content_sha256(),
            labelled_images=len(cases),
            distinct_labelled_images=cases.distinct_images(),
            per_class=target.counts(labels),
            selection=selection,
            chosen=adapted.chosen,
            members=len(adapted.members),
            temperature=temperature,
            calibrated_on=counted_on,
            data={"name": cases.name, "licence": cases.licence, **cases.source},
            recipe=None if cases.recipe is None else dict(cases.recipe),
            unlabelled_images=0 if further is None else len(further),
            unlabelled_left_out=left_out,
            target_images=len(site.unlabelled or ()),
            target_labelled=len(site.labelled or ()),
            target_left_out=moved,
            alignment=None if self.alignment is None else dict(self.alignment),
            other_rules=other_rules,
        )
        return self

    def told(self, X: np.ndarray | Cases, spacing_mm: Sequence[float] | np.ndarray | None = None) -> Prediction:
        """Everything that is said of cases: probabilities, uncertainty, sets, and where no answer is given.

        ``X`` and ``spacing_mm`` are as in :meth:`fit`; labels are not looked at.

        Raises:
            NotFitted: the estimator is not fitted.
            DataError: an image cannot be read, or is not like those the estimator was fitted on.
        """
        return self._fitted().predict(self._cases(X, spacing_mm))

    def instances(
        self, X: np.ndarray | Cases, spacing_mm: Sequence[float] | np.ndarray | None = None
    ) -> list[CaseInstances]:
        """What is said of the tokens or the studies of each case, by a head that tells of them, such as ``mil``.

        ``X`` and ``spacing_mm`` are as in :meth:`fit`; labels are not looked at.

        Raises:
            NotFitted: the estimator is not fitted.
            ConfigError: its head says nothing of them.
            DataError: an image cannot be read, or is not like those the estimator was fitted on.
        """
        return list(self._fitted().instances(self._cases(X, spacing_mm)))

    def set_params(self, **params: Any) -> Self:
        """Change parameters.

        Raises:
            ConfigError: there is no such parameter; the nearest name is given.
        """
        for name in params:
            if name not in self.get_params():
                raise ConfigError(f"unknown parameter {name!r}{nearest(name, self.get_params())}")
        return super().set_params(**params)

    def save(self, folder: Path, *, overwrite: bool = False, estimate: Mapping[str, Any] | None = None) -> None:
        """Write the fitted model to a folder, see :mod:`finetune.classifier.persistence`.

        Args:
            folder: where.
            overwrite: replace it.
            estimate: how good it is, as plain JSON types: what was scored and how; ``estimate_`` when left out.

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
            kind=type(self).__name__,
            params=params,
            source=self.source_,
            classes=getattr(self, "classes_", None),
            predictor=predictor,
            record=self.record_,
            architecture=self.architecture_,
            model_args=self.model_args_,
            estimate=dict(self.estimate_ if estimate is None else estimate),
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
        if fitted.kind != cls.__name__:
            raise CheckpointError(f"{folder}: a {fitted.kind}, not a {cls.__name__}")
        try:
            model = cls(**{**fitted.params, "backbone": fitted.source, "device": device})
        except TypeError as error:
            raise CheckpointError(f"{folder}: not a complete classifier: {error}") from None
        model.source_, model.predictor_, model.record_ = fitted.source, fitted.predictor, fitted.record
        model.architecture_, model.model_args_ = fitted.architecture, fitted.model_args
        model.held_out_ = model.labels_ = None
        model.estimate_ = fitted.estimate
        if fitted.classes is not None:
            model.classes_ = fitted.classes
        return model

    def __sklearn_tags__(self) -> Tags:
        """Images are not the two-dimensional arrays that scikit-learn's common tests would give it."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.target_tags.required = True
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        """Whether :meth:`fit` has run."""
        return hasattr(self, "predictor_")

    def _fitted(self) -> Predictor:
        predictor: Predictor | None = getattr(self, "predictor_", None)
        if predictor is None:
            raise NotFitted
        return predictor

    def _cases(self, X: np.ndarray | Cases, spacing_mm: Sequence[float] | np.ndarray | None) -> Cases:
        if isinstance(X, Cases):
            if spacing_mm is not None:
                raise DataError("the cases know the distance of their voxels; spacing_mm is for arrays")
            return X
        check_images(X, "X")
        return Cases(
            name="X",
            images=X,
            labels=None,
            task=Task.unknown,
            classes={},
            keys=np.arange(len(X)),
            organ=word(Organ, self.organ),
            modality=word(Modality, self.modality),
            spacing_mm=spacing_rows(spacing_mm, X, "X"),
        )

    @property
    def _slices(self) -> Slices | None:
        return None if self.slices is None else parse(Slices, dict(self.slices), "slices")

    def _shown(self, cases: Cases) -> Cases:
        """Cases as the network is shown them."""
        return windowed(sliced(cases, self._slices), self.window, self.overlap)

    def _unlabelled(
        self, given: np.ndarray | Cases, labelled: Cases, seen: Seen, spacing_mm: Sequence[float] | np.ndarray | None
    ) -> tuple[Cases, int]:
        """The unlabelled cases, checked as new ones are, and how many are left out."""
        one = spacing_mm is not None and np.ndim(spacing_mm) == 1 and not isinstance(given, Cases)
        cases = replace(self._cases(given, spacing_mm if one else None), name="unlabelled", labels=None)
        return apart(self._shown(seen.fitting(cases)), [labelled])

    def _site(
        self,
        given: np.ndarray | Cases | Site | None,
        source: Cases,
        spacing_mm: Sequence[float] | np.ndarray | None,
    ) -> tuple[Site, int]:
        """Cases of the target site, checked as new ones are, and how many are left out."""
        if given is None:
            return Site(), 0
        if not isinstance(given, Site):
            one = spacing_mm is not None and np.ndim(spacing_mm) == 1 and not isinstance(given, Cases)
            given = Site(replace(self._cases(given, spacing_mm if one else None), name="target site", labels=None))
        seen = Seen.of(source)
        found = Site(*(None if cases is None else seen.fitting(cases) for cases in (given.unlabelled, given.labelled)))
        return found.apart([source])

    def _labels(self, cases: Cases, y: Any) -> tuple[np.ndarray | None, np.ndarray, Target]:
        """The classes, if there are any, the labels ``(N, L)``, and the target."""
        raise NotImplementedError


def _one_grid(cases: Cases) -> bool:
    """Whether each study has one image, all of one size, as far as it is known."""
    if cases.recipe is None:
        return True
    images = Recipe.of(cases.recipe).images
    return len(images) == 1 and all(image.size is not None for image in images.values())
