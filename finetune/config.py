"""The documents of a fine-tuning, a prediction and an evaluation: everything the result depends on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)

from data_shards.intensity import IntensityRules
from data_shards.prepare.document import Preparation
from data_shards.sources.images.channels import Channels
from data_shards.sources.tables.cells import Spellings
from data_shards.support.documents import Document, Sides, parse
from data_shards.vocabulary import Modality, Organ, Task, word
from finetune.subsets import Budget

GivenRules = Annotated[IntensityRules | None, BeforeValidator(lambda given: None if given == "model" else given)]
"""Rules by image name; none leaves it to the data, and ``model``, which is None, takes the rule of the model."""


class ImagesConfig(Document):
    """What a folder of images needs beside its path; archives and shards know it themselves.

    Attributes:
        csv: table of a folder of images.
        labels: columns of the table that hold labels; several make a multi-label task, or several numbers. Left out,
            the column ``label``.
        size: side in pixels to resize the images of a folder to.
        organ: entry of :class:`~data_shards.vocabulary.Organ`, by name: what the images of a folder show.
        modality: entry of :class:`~data_shards.vocabulary.Modality`, by name: how they were made.
        channels: what the images of a folder are brought to: 1, 3, keep or, where grey and colour are mixed, auto.
        missing: spellings of no label in the table, beside the empty cell.
        show_paths: results and messages have names of files; only where these identify nobody.
        task: how the labels of a folder are to be read; ``unknown``: by what they look like.
        prepare: what is done to the images of a folder, see :class:`~data_shards.prepare.document.Preparation`.
        intensity: rules by which values that are kept as they are become the range of the network, see
            :mod:`data_shards.intensity`; ``model`` takes that of the model. Without one shards are read by the rule of
            their manifest, and values of a folder of images go to 8 bits.
        options: further options of the source ``images``.
        label: ``folder`` takes sub-folders for classes; ``auto`` takes those of the table, else sub-folders.
        on_error: ``skip`` leaves out images that cannot be read.
    """

    csv: Path | None = None
    labels: tuple[str, ...] = ()
    size: int | None = Field(default=None, ge=4, le=1024)
    organ: str = Organ.unknown.name
    modality: str = Modality.unknown.name
    channels: Channels = "auto"
    missing: Spellings | None = None
    show_paths: bool = False
    task: str = Task.unknown.name
    prepare: Preparation | None = None
    intensity: GivenRules = {}
    options: dict[str, Any] = Field(default_factory=dict)
    label: Literal["auto", "folder", "none"] = "auto"
    on_error: Literal["stop", "skip"] = "stop"

    @field_validator("organ")
    @classmethod
    def _organ_is_known(cls, name: str) -> str:
        return word(Organ, name).name

    @field_validator("modality")
    @classmethod
    def _modality_is_known(cls, name: str) -> str:
        return word(Modality, name).name

    @field_validator("task")
    @classmethod
    def _task_is_known(cls, name: str) -> str:
        return word(Task, name).name


def _none_is_whole(given: Any, sides: ValidatorFunctionWrapHandler) -> Any:
    return () if given in ("none", ["none"], [], ()) else sides(given)


Windows = Annotated[Sides | None, WrapValidator(_none_is_whole)]
"""Sides of windows; ``none``, which is kept as no side at all, for images that are read whole."""


class WindowsConfig(Document):
    """In what parts a frozen network reads images that are larger.

    Attributes:
        window: voxels, or pixels, of the windows, one number or one for each axis; ``none`` reads all images whole.
            None is the size of the crops that a network was trained on, for volumes, and reads all else whole.
        overlap: of neighbouring windows, as a fraction of their sides.
    """

    window: Windows = None
    overlap: float = Field(default=0.5, ge=0, lt=1)

    @property
    def lone_overlap(self) -> bool:
        """Whether an overlap is given and no window; both written out with their defaults, as in a record, are not."""
        given = self.model_fields_set
        changed = self.overlap != WindowsConfig.model_fields["overlap"].default
        return not self.window and "overlap" in given and ("window" not in given or changed)

    @model_validator(mode="after")
    def _overlap_is_of_windows(self) -> WindowsConfig:
        if self.window == () and self.lone_overlap:
            raise ValueError(LONE_OVERLAP)
        return self


LONE_OVERLAP = "overlap is of windows, and there are none: give 'window', too, or leave it out"
"""What is said of one."""


class FitConfig(WindowsConfig):
    """How a classifier is made: parameters of :class:`~finetune.classifier.estimator.FewLabelClassifier`.

    Attributes: of the same names there.
    """

    head: str = "linear"
    head_options: dict[str, Any] = Field(default_factory=dict)
    strategy: str = "frozen"
    strategy_options: dict[str, Any] = Field(default_factory=dict)
    stepper: str = "plain"
    stepper_options: dict[str, Any] = Field(default_factory=dict)
    class_weight: Literal["balanced"] | None = "balanced"
    sampler: Literal["shuffled", "balanced"] = "shuffled"
    loss: Literal["nll", "focal"] = "nll"
    mixup: float = Field(default=0.0, ge=0)
    learning_rate: float | None = Field(default=None, gt=0)
    backbone_rate: float | None = Field(default=None, gt=0)
    layer_decay: float | None = Field(default=None, gt=0, le=1)
    weight_decay: float = Field(default=0.05, ge=0)
    max_steps: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=16, ge=1)
    augmentation: bool = True
    ensemble: Literal["none", "folds", "seeds", "snapshots"] = "none"
    members: int = Field(default=5, ge=1)
    calibrate: bool = True
    coverage: float = Field(default=0.9, gt=0, lt=1)
    sets_by_class: bool | None = None
    mc_dropout: int = Field(default=0, ge=0)
    alignment: dict[str, Any] | None = None
    slices: dict[str, Any] | None = None

    @field_validator("head")
    @classmethod
    def _head_is_known(cls, name: str) -> str:
        from finetune.heads import HEADS  # brings torch, which a document needs for nothing else

        HEADS.named(name)
        return name

    @model_validator(mode="after")
    def _options_are_known(self) -> FitConfig:
        from finetune.alignment import alignment_config
        from finetune.heads import HEADS
        from finetune.steppers import STEPPERS
        from finetune.strategies import create_strategy

        HEADS.config(self.head, self.head_options)
        create_strategy(self.strategy, self.strategy_options)
        options = STEPPERS.config(self.stepper, self.stepper_options)
        STEPPERS.named(self.stepper).check(options, self.batch_size, self.mixup)
        if self.alignment is not None:
            alignment_config(self.alignment)
        if self.slices is not None:
            from finetune.slices import Slices

            parse(Slices, self.slices, "slices")
        return self

    @property
    def params(self) -> dict[str, Any]:
        """For the estimator."""
        return {name: getattr(self, name) for name in FitConfig.model_fields} | {"window": self.window or None}


class FinetuneConfig(ImagesConfig, FitConfig):
    """One fine-tuning.

    Attributes:
        model: folder of a bundle, ``name@alias`` of the registry, or the name of a fresh network.
        data: MedMNIST npz, folder of shards, or folder of images.
        unlabelled: further images without labels: folder, npz or shards, read as ``data`` was; for steppers that learn
            from them.
        target_data: images of the site where the classifier shall be used: folder, npz or shards, read as ``data`` was.
        target_csv: table of a folder of such images; rows of it that have a label are learned from, too.
        per_class: labels per class to use; None for all of the train split, unless ``fraction`` is given.
        fraction: share of each class to use.
        folds: of the cross-validation that estimates how good the classifier is, where no test split is given; 0 for no
            estimate.
        repeats: how often it is repeated; None for 3, and 1 for strategies that train the backbone.
        seed: of the draw, of weights, splits, batches and augmentation.
        device: where the network runs.
    """

    model: str
    data: Path
    unlabelled: Path | None = None
    target_data: Path | None = None
    target_csv: Path | None = None
    per_class: int | None = Field(default=None, ge=1)
    fraction: float | None = Field(default=None, gt=0, le=1)
    folds: int = Field(default=5, ge=0)
    repeats: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)
    device: str = "cpu"

    @model_validator(mode="after")
    def _one_budget(self) -> FinetuneConfig:
        if self.per_class is not None and self.fraction is not None:
            raise ValueError("give per_class or fraction, not both")
        if self.target_csv is not None and self.target_data is None:
            raise ValueError("target_csv is the table of target_data, which is not given")
        if self.folds == 1:
            raise ValueError("folds: 1; a cross-validation has two or more, 0 leaves the estimate out")
        return self


class NewImagesConfig(Document):
    """A fitted classifier, and the images that it is applied to.

    Attributes:
        classifier: folder of a classifier, or of what ``finetune`` wrote, or ``name@alias`` of the registry.
        data: new images: what :class:`FinetuneConfig` takes. Labels are not needed, unless they are asked for.
        csv: table of a folder of images.
        split: of an archive or of shards; None for all.
        missing: spellings of no label in the table, beside the empty cell.
        on_error: ``skip`` leaves out images that cannot be read.
        show_paths: results and messages have names of files; only where these identify nobody.
        device: where the network runs.
    """

    classifier: str
    data: Path
    csv: Path | None = None
    split: str | None = None
    missing: Spellings | None = None
    on_error: Literal["stop", "skip"] = "stop"
    show_paths: bool = False
    device: str = "cpu"


class PredictConfig(NewImagesConfig):
    """One prediction; labels, where there are any, are written beside what is predicted."""


class EmbedConfig(ImagesConfig, WindowsConfig):
    """Features of images.

    Attributes:
        model: as for :class:`FinetuneConfig`.
        data: as for :class:`FinetuneConfig`; labels are not needed.
        reads: one of :data:`finetune.heads.features.SUMMARIES`.
        split: of an archive or of shards; None for all.
        window, overlap: as for :class:`WindowsConfig`.
        seed: of a fresh network.
        device: where the network runs.
    """

    model: str
    data: Path
    reads: Literal["embedding", "mean", "mean_spread", "embedding_mean_spread"] = "embedding"
    split: str | None = None
    seed: int = Field(default=0, ge=0)
    device: str = "cpu"


class EvaluateConfig(ImagesConfig, WindowsConfig):
    """One evaluation.

    Attributes:
        models: folders of bundles or ``name@alias`` of the registry.
        data: one or more of what :class:`FinetuneConfig` takes.
        k: neighbours of the kNN probe.
        window, overlap: as for :class:`WindowsConfig`.
        per_class: budgets of a few-label comparison; without any budget it is left out.
        fraction: further budgets, as shares of each class, or of all cases with numbers.
        heads: of the comparison.
        strategies: of the comparison.
        full: whether networks are trained whole on all labels, too, by the reference recipe.
        epochs: of that recipe.
        baselines: further arms: ``resnet18``, the baseline of MedMNIST by its recipe; ``tangent``, logistic regression
            on covariances of the tokens of each model.
        groups: columns of the table by which scores are told apart, too, such as site and sex.
        seeds: of the comparison; the first is that of the probes.
        max_steps: length of the schedules that whole networks are trained by; None lets every fit choose among those
            of :mod:`finetune.fit.schedules`, which takes twice as long.
        device: where the network runs.
    """

    models: tuple[str, ...] = Field(min_length=1)
    data: tuple[Path, ...] = Field(min_length=1)
    k: int = Field(default=20, ge=1)
    per_class: tuple[Annotated[int, Field(ge=1)], ...] = ()
    fraction: tuple[Annotated[float, Field(gt=0, le=1)], ...] = ()
    heads: tuple[str, ...] = ("linear",)
    strategies: tuple[str, ...] = ("frozen", "full")
    full: bool = False
    epochs: int = Field(default=100, ge=1)
    baselines: tuple[Literal["resnet18", "tangent"], ...] = ()
    groups: tuple[str, ...] = ()
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(0, 1, 2), min_length=1)
    max_steps: int | None = Field(default=None, ge=1)
    device: str = "cpu"

    @model_validator(mode="after")
    def _names_are_known(self) -> EvaluateConfig:
        from finetune.heads import HEADS
        from finetune.strategies import create_strategy

        for head in self.heads:
            HEADS.named(head)
        for strategy in self.strategies:
            create_strategy(strategy)
        if len(set(self.models)) < len(self.models):
            raise ValueError("a model is named twice")
        if self.groups and self.csv is None:
            raise ValueError("groups are columns of a table of images, and no csv is given")
        if self.baselines and not (self.per_class or self.fraction or self.full):
            raise ValueError("baselines are arms of a comparison; give per_class, fraction or full")
        return self

    @property
    def budgets(self) -> list[Budget]:
        """Of the few-label comparison."""
        counts = [Budget(per_class=count) for count in self.per_class]
        return counts + [Budget(fraction=share) for share in self.fraction]
