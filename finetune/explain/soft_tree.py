"""A soft decision tree: at every inner node a case goes right with a probability, and each leaf holds one answer.

Frosst and Hinton, Distilling a neural network into a soft decision tree, arXiv 1711.09784, section 2.

Shape suffixes: N cases, D features, I inner nodes, L leaves, C classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SoftTree(nn.Module):
    """A full binary tree.

    Args:
        dim: features.
        classes: of the answers.
        depth: inner nodes on the way to each leaf.
    """

    def __init__(self, dim: int, classes: int, depth: int) -> None:
        super().__init__()
        self.depth = depth
        self.weight_ID = nn.Parameter(torch.randn(2**depth - 1, dim) * dim**-0.5)
        self.bias_I = nn.Parameter(torch.zeros(2**depth - 1))
        self.leaf_LC = nn.Parameter(torch.zeros(2**depth, classes))

    def right(self, features_ND: Tensor) -> Tensor:
        """Probability of going right at each inner node, ``N, I`` (the equation before eq. 1)."""
        return F.linear(features_ND, self.weight_ID, self.bias_I).sigmoid()

    def reach(self, features_ND: Tensor) -> list[Tensor]:
        """Probability of coming to each node, ``N, 2**level`` for every level; the last are the leaves."""
        right_NI = self.right(features_ND)
        levels = [torch.ones_like(right_NI[:, :1])]
        for level in range(self.depth):
            go_right = right_NI[:, 2**level - 1 : 2 ** (level + 1) - 1]
            levels.append(torch.stack([levels[-1] * (1 - go_right), levels[-1] * go_right], dim=-1).flatten(1))
        return levels

    def forward(self, features_ND: Tensor) -> Tensor:
        """The answer of the leaf that a case most probably comes to, ``N, C``: a tree that can be followed by hand."""
        return self.leaf_LC.softmax(dim=1)[self.reach(features_ND)[-1].argmax(dim=1)]

    def loss(self, features_ND: Tensor, target_NC: Tensor) -> Tensor:
        """Cross-entropy of each leaf to the wanted answer, by the probability of coming to it, the mean over cases.

        It is eq. 2 without its outer logarithm, whose argument is negative as it is printed.
        """
        cross_NL = -target_NC @ self.leaf_LC.log_softmax(dim=1).mT
        return (self.reach(features_ND)[-1] * cross_NL).sum(dim=1).mean()

    def penalty(self, features_ND: Tensor) -> Tensor:
        """Eq. 3 and 4: cases shall go both ways at each node; it halves from one level to the next."""
        right_NI, total = self.right(features_ND), features_ND.new_zeros(())
        for level, reach_NM in enumerate(self.reach(features_ND)[:-1]):
            right_NM = right_NI[:, 2**level - 1 : 2 ** (level + 1) - 1]
            alpha_M = (reach_NM * right_NM).sum(dim=0) / reach_NM.sum(dim=0).clamp(min=torch.finfo(reach_NM.dtype).eps)
            alpha_M = alpha_M.clamp(_EDGE, 1 - _EDGE)
            total = total - 2.0**-level * 0.5 * (alpha_M.log() + (1 - alpha_M).log()).sum()
        return total


_EDGE = 1e-6


def fitted(
    features_ND: Tensor,
    target_NC: Tensor,
    *,
    depth: int,
    balance: float,
    decay: float,
    steps: int,
    rate: float,
    seed: int,
) -> SoftTree:
    """A tree that answers as it is told, by Adam on all cases at once.

    Args:
        features_ND: standardised, float64.
        target_NC: probabilities that are wanted.
        depth: of the tree.
        balance: weight of :meth:`SoftTree.penalty`.
        decay: weight of half the squared weights of the inner nodes.
        steps: of training.
        rate: of training.
        seed: of the first weights; the global random state is left alone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tree = SoftTree(features_ND.shape[1], target_NC.shape[1], depth).to(features_ND.dtype)
    optimizer = torch.optim.Adam(tree.parameters(), lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = tree.loss(features_ND, target_NC) + balance * tree.penalty(features_ND)
        (loss + decay / 2 * tree.weight_ID.square().sum()).backward()
        optimizer.step()
    return tree.eval().requires_grad_(False)
