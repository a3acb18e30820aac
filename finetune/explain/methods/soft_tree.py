"""A classifier told again by a small tree on the features of its network.

Frosst and Hinton, Distilling a neural network into a soft decision tree, arXiv 1711.09784. The tree learns the
probabilities that the classifier gives for some of the cases, and is compared with it on those of other subjects: how
far it can be taken for the classifier is its fidelity there, beside that of a tree without branches.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from data_shards.support.documents import Document
from data_shards.support.errors import ConfigError, DataError
from data_shards.vocabulary import Task
from finetune.cases import Cases
from finetune.classifier.member import Member, reads_of_cases
from finetune.classifier.predictor import Predictor
from finetune.explain.base import CasesMethod, Drawn, register_method
from finetune.explain.soft_tree import fitted
from finetune.explain.tree_drawing import as_svg, as_text, nodes_of
from finetune.fit.linear import Standardiser
from finetune.scores.bootstrap import interval
from finetune.scores.metrics import accuracy

LEAST = 20
"""Of fewer cases a tree and its fidelity say nothing."""


@register_method("soft_tree")
class SoftTreeMethod(CasesMethod):
    """A soft decision tree that answers as the classifier does."""

    unit = "share of cases with the same answer"

    class Config(Document):
        """How large the tree is, what it reads, and how it is fitted."""

        depth: int = Field(3, ge=1, le=6, description="inner nodes on the way to a leaf")
        reads: Literal["embedding", "mean", "mean_spread", "embedding_mean_spread"] = Field(
            "embedding_mean_spread", description="which features of the (first) network"
        )
        held_out: float = Field(0.3, gt=0, lt=1, description="share of the subjects on whom fidelity is measured")
        balance: float = Field(0.1, ge=0, description="weight of the penalty for nodes where all cases go one way")
        decay: float = Field(1e-3, ge=0, description="weight of half the squared weights of inner nodes")
        steps: int = Field(500, ge=1, description="of training")
        rate: float = Field(0.05, gt=0, description="of training")

    def check(self, member: Member) -> None:
        """Classes, of which a case has one."""
        if member.target.task not in (Task.binary, Task.multiclass, Task.ordinal):
            raise ConfigError(
                f"method soft_tree: leaves hold probabilities of classes, and the target is {member.target.task.name}"
            )

    def drawn(self, predictor: Predictor, cases: Cases, probabilities: np.ndarray, seed: int) -> Drawn:
        """Fit the tree on some subjects, compare it on the others, and draw it."""
        if len(cases) < LEAST:
            raise DataError(f"{cases.name}: {len(cases)} cases; a tree is fitted to {LEAST} at least")
        config, classes = self.config, predictor.target.classes
        read = reads_of_cases(predictor.members[0].backbone, cases, (config.reads,), None)[config.reads]
        subjects = (
            np.arange(len(cases)) if cases.subjects is None else np.unique(cases.subjects, return_inverse=True)[1]
        )
        held_N = _held_out(subjects, config.held_out, seed)
        scale = Standardiser.of(read[~held_N])
        features_ND = scale(read)
        tree = fitted(
            torch.from_numpy(features_ND[~held_N]), torch.from_numpy(probabilities[~held_N]),
            depth=config.depth, balance=config.balance, decay=config.decay, steps=config.steps, rate=config.rate,
            seed=seed,
        )  # fmt: skip
        answers_MC = tree(torch.from_numpy(features_ND[held_N])).numpy()
        said_M, told_M = (predictor.target.decide(each)[:, 0] for each in (probabilities[held_N], answers_MC))
        commonest = np.bincount(predictor.target.decide(probabilities[~held_N])[:, 0]).argmax()
        right_M = (said_M == told_M).astype(np.float64)
        # The share of equal answers is the accuracy of a task in which being equal is the one class there is.
        agreement = interval(
            accuracy, np.ones(len(right_M), np.int64), right_M, Task.binary, seed=seed, subjects=subjects[held_N]
        )
        figures: dict[str, Any] = {
            "fidelity": agreement.estimate,
            "fidelity_low": agreement.low,
            "fidelity_high": agreement.high,
            "fidelity_of_a_constant": float(np.mean(said_M == commonest)),
            "mean_difference_of_probabilities": float(np.abs(answers_MC - probabilities[held_N]).mean()),
            "fitted_to": int((~held_N).sum()),
            "compared_on": int(held_N.sum()),
            "reads": config.reads,
            "depth": config.depth,
        }
        nodes = nodes_of(tree, features_ND, _names(config.reads, features_ND.shape[1]), classes)
        head = (
            f"A tree of depth {config.depth} on {features_ND.shape[1]} features ({config.reads}), fitted to what the "
            f"classifier says of {figures['fitted_to']} cases.\nOf {figures['compared_on']} others it gives the answer "
            f"of the classifier for {agreement.estimate:.1%} ({agreement.low:.1%} to {agreement.high:.1%}); a constant "
            f"answer does for {figures['fidelity_of_a_constant']:.1%}.\nFeatures are standardised.\n\n"
        )
        return Drawn(head + as_text(nodes), figures, f"{as_svg(nodes, 'The classifier as a soft decision tree')}\n")


def _held_out(subjects_N: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Which cases are of the subjects that are held out."""
    order = np.random.default_rng(seed).permutation(np.unique(subjects_N))
    count = min(max(1, round(share * len(order))), len(order) - 1)
    if not count:
        raise DataError("method soft_tree: all cases are of one subject, so none can be held out")
    return np.isin(subjects_N, order[:count])


def _names(reads: str, width: int) -> list[str]:
    parts = {"embedding": ["embedding"], "mean": ["mean"], "mean_spread": ["mean", "spread"]}.get(
        reads, ["embedding", "mean", "spread"]
    )
    return [f"{part}[{number}]" for part in parts for number in range(width // len(parts))]
