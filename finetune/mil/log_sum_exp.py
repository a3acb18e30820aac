"""The generalised log-sum-exp: between the smallest, the mean and the largest, by two numbers that are learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from finetune.mil.masks import checked, masked_max, masked_mean, masked_min


def soft_extreme(scores_BHO: Tensor, mask_BH: Tensor, beta: Tensor) -> Tensor:
    """``(1 / beta) log mean_h exp(beta z_h)``, ``(B, O)``: the mean at 0, the largest at +inf, the smallest at -inf.

    It is the cumulant generating function over ``beta``. Near 0, where the quotient loses its digits, the first four
    cumulants are summed; the border is where the fifth is as large as what rounding takes from the quotient.

    Args:
        scores_BHO: of the instances.
        mask_BH: true where there is one.
        beta: a finite number, ``()``.
    """
    mean_BO = masked_mean(scores_BHO, mask_BH)
    away_BHO = (scores_BHO - mean_BO[:, None]).masked_fill(~mask_BH[..., None], 0)
    reach_BO = (masked_max(scores_BHO, mask_BH) - masked_min(scores_BHO, mask_BH)).detach() * beta.detach().abs()
    near_BO = reach_BO < (120 * torch.finfo(scores_BHO.dtype).eps) ** 0.2

    # What is not taken of either branch must be finite, or its gradient of zero becomes NaN.
    small_BHO = torch.where(near_BO[:, None], away_BHO, 0)
    second, third, fourth = (masked_mean(small_BHO**power, mask_BH) for power in (2, 3, 4))
    series_BO = beta * second / 2 + beta**2 * third / 6 + beta**3 * (fourth - 3 * second**2) / 24

    safe_BO = torch.where(near_BO, 1, beta)
    powers_BHO = (safe_BO[:, None] * away_BHO).masked_fill(~mask_BH[..., None], -torch.inf)
    count_B1 = mask_BH.sum(dim=1, keepdim=True).to(scores_BHO.dtype)
    quotient_BO = (powers_BHO.logsumexp(dim=1) - count_B1.log()) / safe_BO
    return mean_BO + torch.where(near_BO, series_BO, quotient_BO)


class GeneralisedLogSumExp(nn.Module):
    """``(f(beta+) + f(beta-)) / 2`` with ``f`` of :func:`soft_extreme`.

    Durand et al., Exploiting negative evidence for deep latent structured models, TPAMI 2019.
    Both at 0 give the mean, both at +inf the maximum, (+inf, -inf) half of maximum plus minimum.

    Args:
        betas: where they start; equal ones stay equal, for they get the same gradient.
        learnable: whether they are learned.
    """

    betas: Tensor

    def __init__(self, betas: tuple[float, float] = (1.0, 0.0), *, learnable: bool = True) -> None:
        super().__init__()
        values = torch.tensor(betas)
        if learnable:
            self.betas = nn.Parameter(values)
        else:
            self.register_buffer("betas", values)

    def forward(self, scores_BHO: Tensor, mask_BH: Tensor | None = None) -> Tensor:
        """Scores of bags ``(B, O)``."""
        mask_BH = checked(scores_BHO, mask_BH)
        betas = self.betas.to(scores_BHO.dtype)
        return (soft_extreme(scores_BHO, mask_BH, betas[0]) + soft_extreme(scores_BHO, mask_BH, betas[1])) / 2
