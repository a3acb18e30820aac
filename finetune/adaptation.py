"""From a backbone and a few labels to a predictor, in three ways: probe, head on cached features, whole network."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from finetune.objective import balanced_weights, column_targets, logit_count, probabilities
from finetune.training import Learner, Recipe, Targets, choose_steps, fit_steps
from pretrain.backbone import Medformer
from pretrain.metadata import Metadata

Folds = Sequence[tuple[np.ndarray, np.ndarray]]

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
        balanced: weight the classes inversely to their frequency.
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
        """Labels and sample weights as the training loop takes them."""
        weights = balanced_weights(self.labels, self.task, self.classes) if self.balanced else np.ones(len(self.labels))
        values = column_targets(self.labels, self.task, self.classes)
        return Targets(values, torch.from_numpy(weights).float(), self.task)


@dataclass(frozen=True)
class Rates:
    """Learning rates and regularisation of gradient training.

    Attributes:
        head: peak learning rate of the head.
        backbone: peak learning rate of the last layer of the backbone.
        layer_decay: factor from each layer of the backbone to the one before it.
        weight_decay: of the weight matrices.
        augmented: whether training sees lightly augmented images.
    """

    head: float
    backbone: float
    layer_decay: float
    weight_decay: float
    augmented: bool


@dataclass(frozen=True)
class Predictor:
    """An adapted model.

    Attributes:
        backbone: in evaluation mode.
        head: a logistic regression with its standardiser, or a network.
        task: how the labels it was adapted to are read.
        organ: body part that images are taken to show.
        modality: how images are taken to have been made.
    """

    backbone: Medformer
    head: Selection | Head
    task: Task
    organ: Organ
    modality: Modality

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
    backbone: Medformer, head: str, given: Given, folds: Folds, recipe: Recipe, rates: Rates, seed: int
) -> tuple[Predictor, dict[str, Any]]:
    """A head trained on cached features of the frozen backbone; returns the predictor and what was chosen."""
    backbone.eval()
    initial = _new_head(head, backbone, given, seed)
    features = embed(backbone, given.images, given.metadata, spacing_mm=given.spacing_mm, reads=initial.reads)

    def build() -> CachedLearner:
        return CachedLearner(copy.deepcopy(initial), features, rates.head, rates.weight_decay)

    learner, chosen = _select_and_refit(build, given, folds, recipe, seed)
    assert isinstance(learner.module, Head)
    trained = learner.module.to(next(backbone.parameters()).device)
    return Predictor(backbone, trained, given.task, given.organ, given.modality), chosen


def adapt_network(
    backbone: Medformer, head: str, given: Given, folds: Folds, recipe: Recipe, rates: Rates, seed: int
) -> tuple[Predictor, dict[str, Any]]:
    """Backbone and head trained together on images; returns the predictor and what was chosen."""
    device = next(backbone.parameters()).device
    initial = Network(backbone, _new_head(head, backbone, given, seed).to(device))
    if initial.head.reads == "tokens":
        check_one_size(backbone, given.images, given.spacing_mm)

    def build() -> ImageLearner:
        return ImageLearner(
            copy.deepcopy(initial),
            given.images,
            given.metadata,
            given.spacing_mm,
            rate=rates.head,
            backbone_rate=rates.backbone,
            layer_decay=rates.layer_decay,
            weight_decay=rates.weight_decay,
            augmented=rates.augmented,
            seed=seed,
        )

    learner, chosen = _select_and_refit(build, given, folds, recipe, seed)
    assert isinstance(learner.module, Network)
    network = learner.module.eval()
    return Predictor(network.backbone, network.head, given.task, given.organ, given.modality), chosen


def _select_and_refit(
    build: Callable[[], Learner], given: Given, folds: Folds, recipe: Recipe, seed: int
) -> tuple[Learner, dict[str, Any]]:
    targets = given.targets()
    # Dropout and stochastic depth draw from the global generator: seeded here, and put back for the caller.
    with torch.random.fork_rng():
        steps = recipe.max_steps
        curve: dict[int, float] = {}
        if folds:
            torch.manual_seed(seed)
            steps, curve = choose_steps(build, targets, folds, recipe, seed)
        torch.manual_seed(seed)
        learner: Learner = build()
        fit_steps(learner, targets, np.arange(len(given.images)), recipe, seed, steps)
    epochs = math.ceil(steps * min(recipe.batch_size, len(given.images)) / len(given.images))
    return learner, {"steps": steps, "epochs": epochs, "held_out_loss": curve}


def _new_head(name: str, backbone: Medformer, given: Given, seed: int) -> Head:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return create_head(name, backbone.embed_dim, logit_count(given.task, given.classes))
