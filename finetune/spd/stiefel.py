"""Matrices with orthonormal columns: how they start and how they step (Huang and Van Gool, AAAI 2017, section 4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def tangent(weight: Tensor, grad: Tensor) -> Tensor:
    """The part of a gradient along the manifold, Euclidean metric: ``G - W sym(W' G)``."""
    product = weight.mT @ grad
    return grad - weight @ ((product + product.mT) / 2)


def retracted(matrix: Tensor) -> Tensor:
    """The Q of QR, with signs such that R has a diagonal above 0."""
    q, r = torch.linalg.qr(matrix)
    diagonal = r.diagonal(dim1=-2, dim2=-1)
    return q * torch.where(diagonal < 0, -1.0, 1.0).to(q.dtype)[..., None, :]


def orthonormal(rows: int, columns: int) -> Tensor:
    """A random matrix with orthonormal columns, ``rows >= columns``."""
    return retracted(torch.randn(rows, columns))


class ManifoldAdamW(torch.optim.AdamW):
    """AdamW, but groups with ``manifold: "stiefel"`` take Riemannian steps with momentum and no decay.

    The momentum is carried along by projection to the tangent space at the new point.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of every group."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = self.param_groups
        curved = [group for group in groups if group.get("manifold") == "stiefel"]
        self.param_groups = [group for group in groups if group.get("manifold") != "stiefel"]
        try:
            super().step()
        finally:
            self.param_groups = groups
        for group in curved:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._along(weight, group["lr"], group.get("momentum", 0.9))
        return loss

    def _along(self, weight: Tensor, rate: float, momentum: float) -> None:
        state = self.state[weight]
        direction = tangent(weight, weight.grad) if weight.grad is not None else torch.zeros_like(weight)
        if "momentum" in state:
            direction = direction + momentum * tangent(weight, state["momentum"])
        weight.copy_(retracted(weight - rate * direction))
        state["momentum"] = direction


def optimizer_of(groups: list[dict[str, Any]]) -> torch.optim.AdamW:
    """AdamW, which keeps groups on their manifold where there are any."""
    on_manifold = any("manifold" in group for group in groups)
    return ManifoldAdamW(groups) if on_manifold else torch.optim.AdamW(groups)
