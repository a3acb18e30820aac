"""Gradient reversal, its ramp, and features from which the site can be told no longer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from finetune.alignment import create_alignment
from finetune.alignment.adversarial import ramp, reversed_gradient


def test_the_gradient_comes_back_with_the_other_sign_and_the_scale_and_values_go_through() -> None:
    values = torch.randn(4, 3, dtype=torch.float64, requires_grad=True, generator=torch.Generator().manual_seed(0))
    weights = torch.arange(12, dtype=torch.float64).view(4, 3)
    passed = reversed_gradient(values, 0.3)
    assert torch.equal(passed, values)
    (passed * weights).sum().backward()
    torch.testing.assert_close(values.grad, -0.3 * weights)


def test_the_ramp_is_that_of_the_paper() -> None:
    assert ramp(0.0) == 0.0
    assert ramp(0.5) == pytest.approx(2 / (1 + np.exp(-5)) - 1)
    assert 0.9999 < ramp(1.0) < 1


def test_the_classifier_of_sites_learns_at_full_rate_and_the_network_along_the_reversed_gradient() -> None:
    generator = torch.Generator().manual_seed(1)
    source_BD, target_MD = torch.randn(6, 4, generator=generator), torch.randn(3, 4, generator=generator) + 1
    gradients = {}
    for weight in (0.5, 1.0):
        torch.manual_seed(0)
        alignment = create_alignment({"name": "adversarial", "weight": weight, "hidden": 8}, 4)
        moved = source_BD.clone().requires_grad_()
        loss = alignment(moved, target_MD, 0.7)
        loss.backward()
        gradients[weight] = moved.grad, alignment.tells[0].weight.grad
    torch.manual_seed(0)
    alignment = create_alignment({"name": "adversarial", "hidden": 8}, 4)
    plain = source_BD.clone().requires_grad_()
    logits = [alignment.tells(each)[:, 0] for each in (plain, target_MD)]
    entropy = nn.functional.binary_cross_entropy_with_logits
    expected = (entropy(logits[0], torch.zeros(6)) + entropy(logits[1], torch.ones(3))) / 2
    torch.testing.assert_close(loss.detach(), expected.detach())
    expected.backward()
    for weight, (moved_grad, own_grad) in gradients.items():
        torch.testing.assert_close(moved_grad, -weight * ramp(0.7) * plain.grad)
        torch.testing.assert_close(own_grad, alignment.tells[0].weight.grad)


def told_apart(aligned: bool) -> float:
    """How often a fresh linear classifier tells the site of features of which two of six channels know it."""
    generator = torch.Generator().manual_seed(2)
    label_N = torch.arange(400) % 2
    draws = [torch.randn(400, 6, generator=generator) for _ in range(2)]
    for site, values in enumerate(draws):
        values[:, 0] += 4.0 * label_N
        values[:, 1:3] += 3.0 * site
    torch.manual_seed(3)
    network, head = nn.Linear(6, 4), nn.Linear(4, 1)
    alignment = create_alignment({"name": "adversarial", "hidden": 16}, 4)
    weights = [*network.parameters(), *head.parameters(), *alignment.parameters()]
    optimizer = torch.optim.Adam(weights, lr=1e-2)
    for step in range(400):
        source, target = (network(values) for values in draws)
        loss = nn.functional.binary_cross_entropy_with_logits(head(source)[:, 0], label_N.float())
        if aligned:
            loss = loss + alignment(source, target, step / 400)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        features = torch.cat([network(values) for values in draws]).numpy()
        said = (head(network(draws[1]))[:, 0] > 0).long()
    assert (said == label_N).double().mean() > 0.85 or not aligned
    sites = np.repeat([0, 1], 400)
    return float(LogisticRegression().fit(features[::2], sites[::2]).score(features[1::2], sites[1::2]))


def test_adversarial_features_do_not_tell_the_site_and_plain_ones_do() -> None:
    assert told_apart(aligned=False) > 0.9
    assert told_apart(aligned=True) < 0.75
