"""Bags of vectors, and one training loop for our head and for torchmil's attention model on the same bags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torchmil.models import ABMIL

from finetune.fit.learners import CachedLearner
from finetune.fit.loop import Recipe, fit_steps
from finetune.fit.network import Readout
from finetune.heads import CaseFeatures, Head, create_head
from finetune.objective import Objective
from finetune.steppers import Drawing
from finetune.strategies import Rates
from finetune.targets import create_target

TORCHMIL = "torchmil ABMIL"
ARMS: Mapping[str, dict[str, Any]] = {
    "attention": {"pooling": "attention"},
    "max": {"pooling": "max"},
    "mean": {"pooling": "mean"},
    "max_min": {"pooling": "max_min"},
    "log_sum_exp": {"pooling": "log_sum_exp"},
    "top_bottom": {"pooling": "top_bottom"},
    TORCHMIL: {},
}
"""The first is the one that torchmil's is compared with: gated attention, both of them."""


@dataclass(frozen=True)
class Bags:
    """Bags of vectors.

    Attributes:
        vectors: float32 ``(H, D)`` each.
        labels: 0 or 1 of each bag.
        instance_labels: of the instances, where they are known.
    """

    vectors: Sequence[np.ndarray]
    labels: np.ndarray
    instance_labels: Sequence[np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.vectors)

    def take(self, rows: np.ndarray) -> Bags:
        """The bags at ``rows``."""
        known = self.instance_labels
        return Bags(
            [self.vectors[row] for row in rows],
            self.labels[rows],
            None if known is None else [known[row] for row in rows],
        )

    def features(self) -> CaseFeatures:
        """As the studies of cases."""
        rows = [torch.from_numpy(vectors) for vectors in self.vectors]
        studies_BSD = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        size_B = torch.tensor([len(row) for row in rows])
        present_BS = torch.arange(studies_BSD.shape[1]) < size_B[:, None]
        return CaseFeatures(studies_BSD.sum(dim=1) / size_B[:, None], studies_BSD=studies_BSD, present_BS=present_BS)


class TorchmilHead(Head):
    """Gated attention as torchmil has it, with the layer before it that ours has.

    Args:
        dim: channels of the vectors.
        hidden: of the layer before attention.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__(dim, 1, None)
        layer = nn.Sequential(nn.Linear(dim, hidden), nn.GELU())
        self.model = ABMIL((dim,), att_dim=128, gated=True, feat_ext=layer)

    def forward(self, features: CaseFeatures) -> Tensor:
        """Logits ``(B, 1)``."""
        logit_B: Tensor = self.model(features.studies_BSD, features.present_BS.to(features.studies_BSD.dtype))
        return logit_B[:, None]

    def attention(self, features: CaseFeatures) -> Tensor:
        """Weights before normalisation, ``(B, S)``."""
        mask = features.present_BS.to(features.studies_BSD.dtype)
        _, scores_BS = self.model(features.studies_BSD, mask, return_att=True)
        return scores_BS


@dataclass(frozen=True)
class Training:
    """How long and how fast both are trained, by the same loop.

    Attributes:
        steps: of AdamW with warm-up and cosine.
        batch_size: bags per step.
        rate: peak.
        weight_decay: of matrices.
        hidden: of the layer before the scores.
    """

    steps: int
    batch_size: int = 8
    rate: float = 1e-3
    weight_decay: float = 1e-4
    hidden: int = 64


def fitted(arm: str, bags: Bags, training: Training, seed: int) -> Readout:
    """The head of an arm after training on bags; equal seeds draw the same batches for every arm."""
    torch.manual_seed(seed)
    target = create_target("binary", ["negative", "positive"])
    dim = bags.vectors[0].shape[1]
    options = {"instances": "studies", "hidden": training.hidden, "norm": False}
    head = TorchmilHead(dim, training.hidden) if arm == TORCHMIL else create_head("mil", dim, 1, options | ARMS[arm])
    readout = Readout.of(head, target)
    learner = CachedLearner(readout, bags.features(), Rates(training.rate, 0.0, 1.0, training.weight_decay))
    objective = Objective.of(target, bags.labels[:, None], balanced=True, drawn_evenly=False, loss="nll")
    recipe = Recipe(training.steps, Drawing(min(training.batch_size, len(bags)), seed))
    fit_steps(learner, objective, np.arange(len(bags)), recipe, training.steps)
    return readout


@torch.no_grad()
def bag_scores(readout: Readout, bags: Bags) -> np.ndarray:
    """Logits of bags."""
    found: np.ndarray = readout(bags.features())[:, 0].numpy()
    return found


@torch.no_grad()
def instance_scores(readout: Readout, bags: Bags) -> list[np.ndarray]:
    """What is said of the instances of each bag; of attention its weights, which is all that torchmil's tells."""
    features = bags.features()
    if isinstance(readout.head, TorchmilHead):
        values = readout.head.attention(features).softmax(dim=1)
    else:
        found = readout.head.instances(features)
        assert found is not None
        attends = readout.head.config.pooling == "attention"
        values = found.weights_BH if attends and found.weights_BH is not None else found.scores_BHO[..., 0]
    return [row[: len(bag)].numpy() for row, bag in zip(values, bags.vectors, strict=True)]


def localisation(readout: Readout, bags: Bags) -> float:
    """Mean over the positive bags with both kinds of instances of the AUC of instances within the bag."""
    assert bags.instance_labels is not None
    each = zip(instance_scores(readout, bags), bags.instance_labels, bags.labels, strict=True)
    found = [roc_auc_score(truth, said) for said, truth, label in each if label and 0 < truth.sum() < len(truth)]
    return float(np.mean(found))
