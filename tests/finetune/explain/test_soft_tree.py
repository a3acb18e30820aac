"""The soft decision tree: its equations by hand, a tree that is known, and how far it is the classifier."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from data_shards.support.errors import DataError
from finetune.explain.base import CasesMethod
from finetune.explain.methods import create_method
from finetune.explain.soft_tree import SoftTree, fitted
from finetune.explain.tree_drawing import as_svg, as_text, nodes_of
from tests.finetune.explain import fits
from tests.finetune.samples import blobs


def by_hand(tree: SoftTree, x: torch.Tensor, wanted: torch.Tensor) -> tuple[float, float]:
    """Loss and penalty of a tree of depth 2, path by path."""
    right = torch.sigmoid(x @ tree.weight_ID.T + tree.bias_I)
    answers = tree.leaf_LC.softmax(dim=1)
    loss = 0.0
    for case in range(len(x)):
        for first, second in itertools.product((0, 1), (0, 1)):
            inner = 1 + first
            path = (right[case, 0] if first else 1 - right[case, 0]) * (
                right[case, inner] if second else 1 - right[case, inner]
            )
            loss += (path * -(wanted[case] * answers[2 * first + second].log()).sum()).item() / len(x)
    penalty = 0.0
    for node, reach in ((0, torch.ones(len(x))), (1, 1 - right[:, 0]), (2, right[:, 0])):
        alpha = ((reach * right[:, node]).sum() / reach.sum()).item()
        penalty += -(0.5 if node else 1.0) * 0.5 * (np.log(alpha) + np.log(1 - alpha))
    return loss, penalty


def test_loss_and_penalty_are_those_of_the_paper() -> None:
    torch.manual_seed(0)
    tree = SoftTree(3, 4, 2).double()
    with torch.no_grad():
        tree.leaf_LC.normal_()
    x, wanted = torch.randn(7, 3).double(), torch.rand(7, 4).double().softmax(dim=1)
    loss, penalty = by_hand(tree, x, wanted)
    assert float(tree.loss(x, wanted)) == pytest.approx(loss)
    assert float(tree.penalty(x)) == pytest.approx(penalty)
    for level in tree.reach(x):
        torch.testing.assert_close(level.sum(dim=1), torch.ones(7).double())


def test_it_finds_a_tree_that_is_known() -> None:
    """Four quadrants, four answers: a tree of depth 2 is exact, one of depth 1 cannot be."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(400, 2))
    x = x[np.abs(x).min(axis=1) > 0.1]
    place = (x[:, 0] > 0) * 2 + (x[:, 1] > 0)
    wanted = np.eye(4)[place] * 0.96 + 0.01
    options = {"balance": 0.1, "decay": 0.0, "steps": 600, "rate": 0.05, "seed": 0}
    for depth, least, most in ((2, 0.99, 1.0), (1, 0.4, 0.6)):
        tree = fitted(torch.from_numpy(x), torch.from_numpy(wanted), depth=depth, **options)
        right = float((tree(torch.from_numpy(x)).argmax(dim=1).numpy() == place).mean())
        assert least <= right <= most
    again = fitted(torch.from_numpy(x), torch.from_numpy(wanted), depth=1, **options)
    assert (again.weight_ID == tree.weight_ID).all()


def test_the_drawing_has_every_node_and_names_are_escaped() -> None:
    torch.manual_seed(0)
    tree = SoftTree(5, 3, 2).double().requires_grad_(False)
    names, classes = [f"mean[{number}]" for number in range(5)], ["<none>", "cyst & co", "tumour"]
    nodes = nodes_of(tree, np.random.default_rng(0).normal(size=(9, 5)), names, classes)
    assert len(nodes) == 7 and nodes[0].share == 1 and sum(node.share for node in nodes[3:]) == pytest.approx(1)
    largest = int(tree.weight_ID[0].abs().argmax())
    assert nodes[0].lines[0] == f"{float(tree.weight_ID[0, largest]):+.2f} mean[{largest}]"
    text, svg = as_text(nodes), as_svg(nodes, "a tree")
    assert text.count("leaf ") == 4 and text.count("node ") == 3 and "cyst & co" in text
    assert svg.count("<rect") == 7 and svg.count("<line") == 6 and "&lt;none&gt;" in svg and "cyst &amp; co" in svg
    import xml.etree.ElementTree as tree_of

    assert tree_of.fromstring(svg).tag.endswith("svg")


def test_it_says_on_other_subjects_what_the_classifier_says() -> None:
    cases = blobs(80)
    model = fits.fitted(cases, **fits.HEADS["mean_spread"])
    method = create_method("soft_tree", {"depth": 2})
    assert isinstance(method, CasesMethod)
    view, said = model.predictor_.shown(cases), model.predict_proba(cases)
    drawn = method.drawn(model.predictor_, view, said, 0)
    assert drawn.figures["fitted_to"] == 56 and drawn.figures["compared_on"] == 24
    assert drawn.figures["fidelity"] > drawn.figures["fidelity_of_a_constant"] + 0.2
    assert method.drawn(model.predictor_, view, said, 0) == drawn
    assert "leaf 4" in drawn.text and drawn.svg.startswith("<svg")
    with pytest.raises(DataError, match="12 cases; a tree is fitted to 20 at least"):
        method.drawn(model.predictor_, view[np.arange(12)], said[:12], 0)
