"""What a report says, as one typed document: everything on the page and in the terminal comes from here."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Annotated, Self

from pydantic import Field, model_validator

from data_shards.support.documents import Document
from finetune.report.pictures import Picture

Score = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Undefined = Score | None
"""A score, or None where it is not defined: the AUC of a test split that lacks a class."""
Number = Annotated[float, Field(allow_inf_nan=False)]


class DataSet(Document):
    """A data set that the report speaks of.

    Attributes:
        name: the name by which the other parts refer to it.
        title: a few words for people, such as ``breast ultrasound``.
        official: False for anything but the published files.
        note: why it is not official, or that it is synthetic; shown wherever it matters.
        licence: the licence of the images.
        task: vocabulary name of the task.
        classes: class names in the order of the label values.
        images: number of images by split.
        checksum: what identifies the file or the shards, such as ``md5 750601b1...``.
    """

    name: str
    title: str
    official: bool = True
    note: str = ""
    licence: str = ""
    task: str = ""
    classes: tuple[str, ...] = ()
    images: dict[str, int] = {}
    checksum: str = ""

    @model_validator(mode="after")
    def _unofficial_says_why(self) -> Self:
        if not self.official and not self.note:
            raise ValueError(f"data set {self.name!r} is not official and does not say why")
        return self


class Curve(Document):
    """A quantity over the steps of pretraining.

    Attributes:
        name: what it is, such as ``loss`` or ``data wait``.
        unit: its unit; empty for a pure number.
        steps: optimizer steps, rising.
        values: the quantity at those steps.
    """

    name: str
    unit: str = ""
    steps: tuple[int, ...] = Field(min_length=1)
    values: tuple[Number, ...]

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        if len(self.steps) != len(self.values):
            raise ValueError(f"curve {self.name!r}: {len(self.steps)} steps and {len(self.values)} values")
        return self


class FitCurves(Document):
    """How a fit chose its batches: curves of a stepper that changes them.

    Attributes:
        dataset: name of the data set.
        caption: which fit this is.
        given: labelled cases that it was given.
        seen: different ones among them that were drawn in training.
        curves: by epoch, such as the batch size and how many cases were chosen of a batch.
    """

    dataset: str
    caption: str
    given: int = Field(gt=0)
    seen: int = Field(ge=0)
    curves: tuple[Curve, ...] = ()

    @model_validator(mode="after")
    def _no_more_than_given(self) -> Self:
        if self.seen > self.given:
            raise ValueError(f"{self.caption}: {self.seen} different cases were seen of {self.given} given")
        return self


class Pretraining(Document):
    """The pretraining run.

    Attributes:
        facts: what to say about it, in order: model, parameters, objective, epochs, workers, time, ...
        curves: what was logged.
    """

    facts: dict[str, str] = {}
    curves: tuple[Curve, ...] = ()


class FewLabelResult(Document):
    """Test scores of one arm with one number of labels, one entry for each seed.

    Attributes:
        dataset: name of the data set.
        budget: labelled images given, those set aside for model selection included.
        arm: what was trained, a key of :attr:`ReportData.arms`.
        seeds: one for each repetition.
        auc: area under the ROC curve, as ``medmnist.Evaluator`` computes it.
        accuracy: share of correct predictions, computed likewise.
        balanced_accuracy: mean recall over the classes.
        index_sha256: hash of the saved index file of each repetition.
        distinct_labelled: distinct labelled images that each repetition saw.
    """

    dataset: str
    budget: int = Field(gt=0)
    arm: str
    seeds: tuple[int, ...] = Field(min_length=1)
    auc: tuple[Undefined, ...]
    accuracy: tuple[Score, ...]
    balanced_accuracy: tuple[Score, ...]
    index_sha256: tuple[str, ...] = ()
    distinct_labelled: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _one_for_each_seed(self) -> Self:
        for name in ("auc", "accuracy", "balanced_accuracy"):
            if len(getattr(self, name)) != len(self.seeds):
                raise ValueError(f"{self.dataset}, {self.budget} labels, {self.arm}: one {name} for each seed expected")
        return self


class Difference(Document):
    """How far one arm lies above another, paired by seed.

    Attributes:
        dataset: name of the data set.
        budget: labelled images given.
        arm: the arm in question.
        baseline: the arm it is compared with.
        metric: name of the score.
        mean: mean of the paired differences, ``arm - baseline``.
        low: lower end of the interval; None where the seeds show no spread.
        high: upper end of the interval.
    """

    dataset: str
    budget: int = Field(gt=0)
    arm: str
    baseline: str
    metric: str = "AUC"
    mean: Number
    low: Number | None
    high: Number | None


class Estimate(Document):
    """A score with its interval over test subjects."""

    value: Undefined
    low: Undefined
    high: Undefined


class ProbeResult(Document):
    """Test scores of a probe on frozen features.

    Attributes:
        dataset: name of the data set.
        probe: ``linear`` or ``kNN``.
        features: what the probe saw: ``raw pixels``, ``random network``, ``pretrained``.
        labels: labelled images the probe was fitted to.
        auc: as :class:`FewLabelResult`.
        accuracy: as :class:`FewLabelResult`.
        balanced_accuracy: as :class:`FewLabelResult`.
    """

    dataset: str
    probe: str
    features: str
    labels: int = Field(gt=0)
    auc: Estimate
    accuracy: Estimate
    balanced_accuracy: Estimate


class GroupResult(Document):
    """Test scores of one set of predictions on one group of the cases.

    Attributes:
        dataset: name of the data set.
        group_by: the column by which cases are grouped.
        group: the value in it.
        model: name of the network, or ``raw pixels``.
        weights: ``pretrained``, ``random`` or ``none``.
        arm: of a comparison, or the probe.
        labels: labels allowed, in words.
        draws: of labels and weights, of which the scores are means; with a single one they have intervals.
        images: test cases of the group.
        subjects: how many they are of.
        auc: as :class:`FewLabelResult`.
        accuracy: as :class:`FewLabelResult`.
        balanced_accuracy: as :class:`FewLabelResult`.
        constant: accuracy of always saying the commonest class of the training split.
        lacking: the classes that the group does not have, which leave its AUC undefined, in words.
    """

    dataset: str
    group_by: str
    group: str
    model: str
    weights: str
    arm: str
    labels: str
    draws: int = Field(gt=0)
    images: int = Field(gt=0)
    subjects: int = Field(gt=0)
    auc: Estimate
    accuracy: Estimate
    balanced_accuracy: Estimate
    constant: Undefined
    lacking: str = ""


class Confusion(Document):
    """Which class the test images of each class were taken for.

    Attributes:
        dataset: name of the data set, whose ``classes`` name the rows and columns.
        caption: which classifier this is.
        counts: row: true class; column: predicted class.
    """

    dataset: str
    caption: str
    counts: tuple[tuple[int, ...], ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _square(self) -> Self:
        if any(len(row) != len(self.counts) for row in self.counts):
            raise ValueError(f"confusion matrix of {self.dataset!r} is not square")
        return self


class Embedding(Document):
    """Embeddings of images on the plane of their two largest principal components.

    Attributes:
        dataset: name of the data set.
        caption: which images and which network.
        points: two coordinates for each image.
        labels: index into the classes of the data set for each image.
        explained: share of the variance that each of the two components holds.
    """

    dataset: str
    caption: str
    points: tuple[tuple[Number, Number], ...] = Field(min_length=1)
    labels: tuple[int, ...]
    explained: tuple[Score, Score]

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        if len(self.points) != len(self.labels):
            raise ValueError(f"embedding of {self.dataset!r}: {len(self.points)} points and {len(self.labels)} labels")
        return self


class Sample(Document):
    """An image that stands on the page.

    Attributes:
        dataset: name of the data set.
        told: what it is, such as its class.
        image: in base64: WebP, of a volume its slices under each other.
        width: of a slice, in pixels.
        height: likewise.
        slices: how many.
    """

    dataset: str
    told: str
    image: str
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    slices: int = Field(default=1, gt=0)

    @property
    def picture(self) -> Picture:
        """As pages show it."""
        content = base64.b64decode(self.image)
        return Picture(content, "webp", self.width, self.height, self.slices, f"{self.dataset}: {self.told}")


class ReportData(Document):
    """A whole report.

    Attributes:
        title: headline.
        created: date and time, as it is to be shown.
        seed: the seed everything was derived from.
        config_sha256: hash of the resolved configuration.
        code_version: version or commit of the code.
        command: how to repeat it.
        notes: plain sentences shown at the top, such as that phantoms stand in for real images.
        datasets: every data set mentioned.
        arms: what is compared: name and a sentence on it, in the order they are shown.
        interval: how the intervals of ``differences`` were made, such as ``95 % t interval over paired seeds``.
        probe_interval: how the intervals of ``probes`` were made.
        pretraining: the pretraining run, if there was one.
        few_label: few-label results.
        differences: paired differences between arms.
        fits: how fits chose their batches, where they did.
        probes: probe results.
        groups: scores by group, where these are asked for.
        confusions: confusion matrices.
        embeddings: embedding plots.
        samples: images that stand on the page; none of patients unless asked for.
        hashes: further names and hashes for provenance: index files, bundle, manifests.
    """

    title: str
    created: str
    seed: int
    config_sha256: str
    code_version: str
    command: str = ""
    notes: tuple[str, ...] = ()
    datasets: tuple[DataSet, ...] = Field(min_length=1)
    arms: dict[str, str] = {}
    interval: str = "95 % interval over paired seeds"
    probe_interval: str = "95 % bootstrap interval over test subjects"
    pretraining: Pretraining | None = None
    few_label: tuple[FewLabelResult, ...] = ()
    differences: tuple[Difference, ...] = ()
    fits: tuple[FitCurves, ...] = ()
    probes: tuple[ProbeResult, ...] = ()
    groups: tuple[GroupResult, ...] = ()
    confusions: tuple[Confusion, ...] = ()
    embeddings: tuple[Embedding, ...] = ()
    samples: tuple[Sample, ...] = ()
    hashes: dict[str, str] = {}

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        names = [dataset.name for dataset in self.datasets]
        if len(set(names)) != len(names):
            raise ValueError(f"two data sets have the same name: {', '.join(names)}")
        for parts in (self.few_label, self.differences, self.fits, self.probes, self.groups):
            _known("data set", names, (part.dataset for part in parts))
        for further in (self.confusions, self.embeddings, self.samples):
            _known("data set", names, (part.dataset for part in further))
        _known("arm", self.arms, (result.arm for result in self.few_label))
        _known("arm", self.arms, (arm for each in self.differences for arm in (each.arm, each.baseline)))
        for confusion in self.confusions:
            _fits(self.dataset(confusion.dataset), len(confusion.counts))
        for embedding in self.embeddings:
            _fits(self.dataset(embedding.dataset), max(embedding.labels) + 1)
        return self

    def dataset(self, name: str) -> DataSet:
        """The data set called ``name``."""
        return next(dataset for dataset in self.datasets if dataset.name == name)


def _known(kind: str, names: Iterable[str], used: Iterable[str]) -> None:
    strangers = set(used) - set(names)
    if strangers:
        raise ValueError(f"unknown {kind}: {', '.join(sorted(strangers))}")


def _fits(dataset: DataSet, classes: int) -> None:
    if classes > len(dataset.classes):
        raise ValueError(f"{dataset.name}: {classes} classes are used, {len(dataset.classes)} are named")
