from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from data_shards.vocabulary import Task
from finetune.objective import balanced_weights, loss_per_image, probabilities


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_equal_those_of_torch_also_far_from_zero(dtype: torch.dtype) -> None:
    logits = torch.cat([torch.linspace(-700, 700, 281), torch.linspace(-3, 3, 13)]).to(dtype)[:, None]
    # Up to the rounding of the logits, of which the largest that do not saturate are about 40.
    tolerance = {"rtol": 4 * torch.finfo(dtype).eps, "atol": 64 * torch.finfo(dtype).eps}
    for label in (0.0, 1.0):
        targets = torch.full_like(logits, label)
        expected = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")[:, 0]
        torch.testing.assert_close(loss_per_image(logits, targets, Task.binary), expected, **tolerance)
    logits = torch.cat([logits, -logits / 2, logits / 3], dim=1)
    classes = torch.arange(len(logits)) % 3
    expected = F.cross_entropy(logits, classes, reduction="none")
    torch.testing.assert_close(loss_per_image(logits, classes, Task.multiclass), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("task", [Task.binary, Task.multiclass, Task.multilabel])
def test_the_loss_is_minus_the_log_of_the_probability(task: Task) -> None:
    torch.manual_seed(0)
    logits = torch.randn(6, 1 if task is Task.binary else 3, dtype=torch.float64)
    chances = probabilities(logits, task)
    if task is Task.multilabel:
        targets = (torch.rand(6, 3) < 0.5).double()
        expected = -torch.where(targets == 1, chances, 1 - chances).log().sum(dim=1)
    else:
        classes = torch.arange(6) % chances.shape[1]
        targets = classes.double()[:, None] if task is Task.binary else classes
        torch.testing.assert_close(chances.sum(dim=1), torch.ones(6, dtype=torch.float64))
        expected = -chances[torch.arange(6), classes].log()
    torch.testing.assert_close(loss_per_image(logits, targets, task), expected)


def test_balanced_weights_give_every_class_the_same_total() -> None:
    labels = np.array([[0], [0], [0], [1], [2], [2]])
    weights = balanced_weights(labels, Task.multiclass, 4)
    assert [weights[labels[:, 0] == label].sum() for label in range(3)] == pytest.approx([2, 2, 2])
    assert weights.mean() == pytest.approx(1)
