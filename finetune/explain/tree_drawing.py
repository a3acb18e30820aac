"""A soft decision tree as text, and as a drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from finetune.explain.soft_tree import SoftTree
from finetune.report.markup import Markup, element

NAMED = 3
"""So many features are named at a node: those with the largest weights."""
_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _LINE = 190, 66, 12, 46, 15


@dataclass(frozen=True)
class Node:
    """What is told of one node.

    Attributes:
        lines: of text.
        share: of the cases that come here.
    """

    lines: tuple[str, ...]
    share: float


def nodes_of(tree: SoftTree, features_ND: np.ndarray, features: Sequence[str], classes: Sequence[str]) -> list[Node]:
    """Every node, level by level from the left; inner nodes, then leaves.

    Args:
        tree: fitted.
        features_ND: of cases, standardised.
        features: their names.
        classes: the names of the answers.
    """
    import torch

    reach = tree.reach(torch.from_numpy(features_ND))
    shares = np.concatenate([level.mean(dim=0).numpy() for level in reach])
    found = []
    for number, (weight_D, bias) in enumerate(zip(tree.weight_ID.numpy(), tree.bias_I.tolist(), strict=True)):
        largest = np.argsort(-np.abs(weight_D), kind="stable")[:NAMED]
        terms = tuple(f"{weight_D[place]:+.2f} {features[place]}" for place in largest)
        more = len(weight_D) - len(largest)
        rest = f"{bias:+.2f}, and {more} smaller" if more else f"{bias:+.2f}"
        found.append(Node((*terms, f"{rest}, > 0 goes right"), float(shares[number])))
    for number, answer_C in enumerate(tree.leaf_LC.softmax(dim=1).numpy()):
        order = np.argsort(-answer_C, kind="stable")[:NAMED]
        lines = tuple(f"{answer_C[place]:.2f} {classes[place]}" for place in order)
        found.append(Node(lines, float(shares[len(tree.bias_I) + number])))
    return found


def as_text(nodes: Sequence[Node], place: int = 0, indent: str = "") -> str:
    """The tree, a node to a line, what hangs on it below it."""
    node, inner = nodes[place], len(nodes) // 2
    if place >= inner:
        return f"{indent}leaf {place - inner + 1}, {node.share:.0%} of cases: {', '.join(node.lines)}\n"
    text = f"{indent}node {place + 1}, {node.share:.0%} of cases: {', '.join(node.lines)}\n"
    left, right = as_text(nodes, 2 * place + 1, indent + "    "), as_text(nodes, 2 * place + 2, indent + "    ")
    return f"{text}{indent}  left:\n{left}{indent}  right:\n{right}"


def as_svg(nodes: Sequence[Node], title: str) -> Markup:
    """The tree drawn from top to bottom; lines are as wide as the share of cases that go along them."""
    leaves = (len(nodes) + 1) // 2
    depth = leaves.bit_length() - 1
    width, height = leaves * (_WIDTH + _GAP_X), (depth + 1) * (_HEIGHT + _GAP_Y)
    parts: list[str] = [element("title", title)]
    boxes: list[str] = []
    for place, node in enumerate(nodes):
        level = (place + 1).bit_length() - 1
        span = width / 2**level
        middle, top = span * (place + 1 - 2**level + 0.5), level * (_HEIGHT + _GAP_Y) + 4.0
        if level < depth:
            for child in (2 * place + 1, 2 * place + 2):
                end = span / 2 * (child + 1 - 2 ** (level + 1) + 0.5)
                below = (level + 1) * (_HEIGHT + _GAP_Y) + 4.0
                thick = 0.5 + 6 * nodes[child].share
                ends = {"x1": middle, "y1": top + _HEIGHT, "x2": end, "y2": below}
                parts.append(element("line", **ends, stroke="#59636d", stroke_width=thick))
        corner = {"x": middle - _WIDTH / 2, "y": top, "width": float(_WIDTH), "height": float(_HEIGHT), "rx": 4.0}
        boxes.append(element("rect", **corner, fill="#fff", stroke="#0072b2" if level < depth else "#d55e00"))
        for number, line in enumerate(node.lines):
            boxes.append(element("text", line, x=middle, y=top + _LINE * (number + 1), text_anchor="middle"))
    drawing = element("g", *parts, *boxes, font_family="system-ui, sans-serif", font_size=11.0, fill="#1c2126")
    frame = f"0 0 {width} {height}"
    return element("svg", drawing, xmlns="http://www.w3.org/2000/svg", viewBox=frame, role="img")
