"""From a backbone and a few labels to a predictor, in three ways: probe, head on cached features, whole network."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from data_shards.vocabulary import Modality, Organ, Task
from finetune.features import check_one_size, embed
from finetune.heads import Head, create_head
from finetune.labelled import known
from finetune.learners import CachedLearner, ImageLearner, Network
from finetune.logistic import Selection, select_logistic
from finetune.memory import WORK_BYTES
from finetune.objective import balanced_weights, column_targets, logit_count, prior_offset, probabilities
from finetune.schedules import Folds, Schedule, choose_schedule
from finetune.training import Recipe, Targets, choose_steps, fit_steps
from pretrain.backbone import Medformer
from pretrain.metadata import Metadata

BACKBONE_RATIO = 0.1
"""Learning rate of the backbone as a share of that of the head; of a fresh one too, which ten times more throws off."""

_CHUNK = 2048


@dataclass(frozen=True)
class Given:
    """The labelled images that may be used, and what is known of them.

    Attributes:
        images: uint8, planes ``(N, C, H, W)`` or volumes ``(N, C, D, H, W)``.
        labels: int64 ``(N, L)``.
        task: how the labels are to be read.
        classes: number of classes, or of labels of a multi-label task.
        organ: body part shown.
        modality: how the images were made.
        balanced: weight the classes inversely to their frequency, in fitting; probabilities are those of the frequency
            given, see :mod:`finetune.objective`.
        spacing_mm: distance of voxels ``(N, A)``, NaN where it is not known; None when nothing is known.
    """

    images: np.ndarray
    labels: np.ndarray
    task: Task
    classes: int
    organ: Organ
    modality: Modality
    balanced: bool
    spacing_mm: np.ndarray | None = None

    @property
    def metadata(self) -> Metadata:
        """Vocabulary ids of the images."""
        return known(len(self.images), self.organ, self.modality)

    def targets(self) -> Targets:
        """Labels, sample weights and what undoes these, as the training loop takes them."""
        given = (self.labels, self.task, self.classes)
        weights = balanced_weights(*given) if self.balanced else np.ones(len(self.labels))
        offset = prior_offset(*given) if self.balanced else np.zeros(logit_count(self.task, self.classes))
        return Targets(column_targets(*given), torch.from_numpy(weights).float(), torch.from_numpy(offset), self.task)


@dataclass(frozen=True)
class Gradients:
    """What gradient training of a whole network does besides its schedule.

    Attributes:
        backbone_rate: peak learning rate of the last layer of the backbone; None for a tenth of that of the head.
        layer_decay: factor from each layer of the backbone to the one before it.
        weight_decay: of the weight matrices.
        augmented: whether training sees lightly augmented images.
        batch_size: images per step.
    """

    backbone_rate: float | None
    layer_decay: float
    weight_decay: float
    augmented: bool
    batch_size: int


@dataclass(frozen=True)
class Predictor:
    """An adapted model.

    Attributes:
        backbone: in evaluation mode.
        head: a logistic regression with its standardiser, or a network.
        task: how the labels it was adapted to are read.
        organ: body part that images are taken to show.
        modality: how images are taken to have been made.
        offset_K: added to the logits of a network, see :func:`finetune.objective.prior_offset`; a logistic regression
            has it in its intercepts.
    """

    backbone: Medformer
    head: Selection | Head
    task: Task
    organ: Organ
    modality: Modality
    offset_K: np.ndarray | None = None

    def predict_proba(self, images: np.ndarray, spacing_mm: np.ndarray | None = None) -> np.ndarray:
        """Probabilities ``(N, K)`` float64 for uint8 images; a binary task gets two columns."""
        parts = []
        # The tokens of a chunk are all held at once.
        tokens = isinstance(self.head, Head) and self.head.reads == "tokens"
        size = _chunk_of(self.backbone, images) if tokens else _CHUNK
        for start in range(0, len(images), size):
            rows = slice(start, start + size)
            parts.append(self._chunk(images[rows], None if spacing_mm is None else spacing_mm[rows]))
        return np.concatenate(parts)

    def _chunk(self, images: np.ndarray, spacing_mm: np.ndarray | None) -> np.ndarray:
        metadata = known(len(images), self.organ, self.modality)
        if isinstance(self.head, Selection):
            return self.head.predict_proba(embed(self.backbone, images, metadata, spacing_mm=spacing_mm))
        features = embed(self.backbone, images, metadata, spacing_mm=spacing_mm, reads=self.head.reads)
        device = next(self.head.parameters()).device
        with torch.no_grad():
            logits_NK = self.head(torch.from_numpy(features).to(device)).double().cpu()
        if self.offset_K is not None:
            logits_NK = logits_NK + torch.from_numpy(self.offset_K)
        return probabilities(logits_NK, self.task).numpy()


def _chunk_of(backbone: Medformer, images: np.ndarray) -> int:
    """How many images have tokens of :data:`~finetune.memory.WORK_BYTES` at most, when they are read as they are."""
    tokens = math.prod(math.ceil(size / backbone.stride) for size in images.shape[2:])
    return max(1, min(_CHUNK, WORK_BYTES // (4 * tokens * backbone.embed_dim)))


def adapt_probe(backbone: Medformer, given: Given, folds: Folds) -> tuple[Predictor, dict[str, Any]]:
    """Logistic regression on the frozen embedding; returns the predictor and what was chosen."""
    backbone.eval()
    selection = select_logistic(
        embed(backbone, given.images, given.metadata, spacing_mm=given.spacing_mm),
        given.labels,
        given.task,
        classes=given.classes,
        folds=folds,
        balanced=given.balanced,
    )
    chosen = {"strength": selection.strength, "held_out_loss": selection.held_out_loss}
    return Predictor(backbone, selection, given.task, given.organ, given.modality), chosen


def adapt_head(
    backbone: Medformer, head: str, given: Given, folds: Folds, recipe: Recipe, rate: float, decay: float, seed: int
) -> tuple[Predictor, dict[str, Any]]:
    """A head trained on cached features of the frozen backbone; returns the predictor and what was chosen.

    Args:
        backbone: is not changed.
        head: name of the head.
        given: images and labels.
        folds: where the number of steps is chosen; without any, the whole schedule is run.
        recipe: the schedule.
        rate: peak learning rate.
        decay: of the weight matrices.
        seed: of initial weights and batches.
    """
    backbone.eval()
    initial = _new_head(head, backbone, given, seed)
    features = embed(backbone, given.images, given.metadata, spacing_mm=given.spacing_mm, reads=initial.reads)

    def build() -> CachedLearner:
        return CachedLearner(copy.deepcopy(initial), features, rate, decay)

    targets = given.targets()
    # Dropout draws from the global generator: seeded here, and put back for the caller.
    with torch.random.fork_rng():
        steps = recipe.max_steps
        curve: dict[int, float] = {}
        if folds:
            torch.manual_seed(seed)
            steps, curve = choose_steps(build, targets, folds, recipe, seed)
        torch.manual_seed(seed)
        learner = build()
        fit_steps(learner, targets, np.arange(len(given.images)), recipe, seed, steps)
    assert isinstance(learner.module, Head)
    trained = learner.module.to(next(backbone.parameters()).device)
    chosen = {**_length(steps, recipe.batch_size, given), "rate": rate, "held_out_loss": curve}
    offset_K = targets.offset.numpy()
    return Predictor(backbone, trained, given.task, given.organ, given.modality, offset_K), chosen


def adapt_network(
    backbone: Medformer,
    head: str,
    given: Given,
    folds: Folds,
    schedules: Sequence[Schedule],
    gradients: Gradients,
    seed: int,
    *,
    stop: bool,
) -> tuple[Predictor, dict[str, Any]]:
    """Backbone and head trained together on images; returns the predictor and what was chosen.

    Args:
        backbone: is trained.
        head: name of the head.
        given: images and labels.
        folds: where the schedule is chosen; without any, the first is run.
        schedules: candidates.
        gradients: what else training does.
        seed: of initial weights, batches and augmentation.
        stop: whether the number of steps is chosen, too.
    """
    device = next(backbone.parameters()).device
    initial = Network(backbone, _new_head(head, backbone, given, seed).to(device))
    if initial.head.reads == "tokens":
        check_one_size(backbone, given.images, given.spacing_mm)

    def build(schedule: Schedule) -> ImageLearner:
        # Stochastic depth draws from the global generator.
        torch.manual_seed(seed)
        tenth = schedule.rate * BACKBONE_RATIO
        return ImageLearner(
            copy.deepcopy(initial),
            given.images,
            given.metadata,
            given.spacing_mm,
            rate=schedule.rate,
            backbone_rate=tenth if gradients.backbone_rate is None else gradients.backbone_rate,
            layer_decay=gradients.layer_decay,
            weight_decay=gradients.weight_decay,
            augmented=gradients.augmented,
            seed=seed,
        )

    targets = given.targets()
    with torch.random.fork_rng():
        choice = choose_schedule(build, targets, folds, schedules, gradients.batch_size, seed, stop)
        learner = build(choice.schedule)
        recipe = Recipe(max_steps=choice.schedule.steps, batch_size=gradients.batch_size)
        fit_steps(learner, targets, np.arange(len(given.images)), recipe, seed, choice.steps)
    assert isinstance(learner.module, Network)
    network = learner.module.eval()
    chosen = {
        **_length(choice.steps, gradients.batch_size, given),
        "schedule": str(choice.schedule),
        "held_out_loss": choice.held_out_loss,
        "gradients": asdict(gradients),
    }
    offset_K = targets.offset.numpy()
    return Predictor(network.backbone, network.head, given.task, given.organ, given.modality, offset_K), chosen


def _length(steps: int, batch_size: int, given: Given) -> dict[str, int]:
    images = len(given.images)
    return {"steps": steps, "epochs": math.ceil(steps * min(batch_size, images) / images)}


def _new_head(name: str, backbone: Medformer, given: Given, seed: int) -> Head:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return create_head(name, backbone.embed_dim, logit_count(given.task, given.classes))
