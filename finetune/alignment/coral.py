"""CORAL: covariances of the two sites are made alike."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from finetune.alignment.base import Alignment, AlignmentConfig, register_alignment


def coral_loss(source_BD: Tensor, target_MD: Tensor) -> Tensor:
    """``|C_S - C_T|_F^2 / (4 D^2)`` (Sun and Saenko, Deep CORAL, ECCV 2016 workshops, eq. 1).

    Args:
        source_BD: features of one site.
        target_MD: of the other; two at least of each.

    Returns:
        A scalar. The covariances are those of eq. 2 and 3, divided by one less than there are cases.
    """
    apart_DD = source_BD.T.cov() - target_MD.T.cov()
    return apart_DD.square().sum() / (4 * source_BD.shape[1] ** 2)


def recoloured(source_ND: np.ndarray, target_MD: np.ndarray, ridge: float = 1.0) -> np.ndarray:
    """Source features with mean and covariance of the target's (Sun, Feng and Saenko, AAAI 2016, algorithm 1).

    Features of each site are standardised, as the paper does; those of the source are whitened by ``C_S + ridge I``
    and re-coloured by ``C_T + ridge I``. Then they are brought to the means and scales of the target, so that what is
    fitted to them reads target features as they are. With ``ridge`` 0 and a ``C_S`` of full rank their covariance is
    that of the target; else directions in which the source does not vary stay without variance.

    Args:
        source_ND: features of one site.
        target_MD: of the other.
        ridge: what is added to the covariances of standardised features, 1 in the paper.

    Returns:
        float64 ``(N, D)``.
    """
    standard_ND, _, _ = _standardised(source_ND)
    other_MD, center_D, scale_D = _standardised(target_MD)
    whitening_DD = _power(_covariance(standard_ND, ridge), -0.5)
    colouring_DD = _power(_covariance(other_MD, ridge), 0.5)
    found_ND: np.ndarray = standard_ND @ whitening_DD @ colouring_DD * scale_D + center_D
    return found_ND


def _standardised(features_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Standardised features, their means and scales; what does not vary is only centred, and has scale 0."""
    values_ND = np.asarray(features_ND, np.float64)
    center_D, scale_D = values_ND.mean(axis=0), values_ND.std(axis=0)
    scale_D = np.where(scale_D > _ROUNDING * np.abs(values_ND).max(axis=0), scale_D, 0.0)
    return (values_ND - center_D) / np.where(scale_D > 0, scale_D, np.inf), center_D, scale_D


_ROUNDING = 1e-12
"""What varies by less than this share of its largest value does not vary."""


def _covariance(standard_ND: np.ndarray, ridge: float) -> np.ndarray:
    covariance_DD: np.ndarray = standard_ND.T @ standard_ND / max(len(standard_ND) - 1, 1)
    return covariance_DD + ridge * np.eye(standard_ND.shape[1])


def _power(matrix_DD: np.ndarray, exponent: float) -> np.ndarray:
    """``U L^p U'`` of a covariance, without the directions in which there is nothing but rounding."""
    values_D, vectors_DD = np.linalg.eigh(matrix_DD)
    there_D = values_D > values_D.max(initial=0.0) * len(values_D) * np.finfo(np.float64).eps
    powers_D = np.where(there_D, np.where(there_D, values_D, 1.0) ** exponent, 0.0)
    powered_DD: np.ndarray = vectors_DD * powers_D @ vectors_DD.T
    return powered_DD


@register_alignment("coral")
class Coral(Alignment):
    """Second moments of the two sites: their distance in training, or the closed form on frozen features.

    In training the loss is that of Deep CORAL, on what the head reads; the paper takes the last layer, whose few
    outputs leave little to align. Each number is divided by its spread within the sites of the batch: the embeddings of
    a network vary far less than the outputs of the paper, so that their covariances are near 0, and without a unit the
    loss could be lowered by making all features small. Means are not compared, as in the paper. The paper chooses the
    weight so that both losses are about equal at the end of training; the record has that of the last step. The closed
    form has nothing to weigh: its weight counts only in that 0 switches it off.
    """

    closed_form: ClassVar[bool] = True

    class Config(AlignmentConfig):
        """Weight, and what keeps the closed form from amplifying what hardly varies."""

        ridge: float = Field(
            1.0, ge=0, description="closed form: what is added to the covariances of standardised features"
        )

    config: Any

    def forward(self, source_BD: Tensor, target_MD: Tensor, progress: float) -> Tensor:
        """Its weight times the distance of the covariances, in units of the mean variance of the two sites."""
        del progress
        spread_D = ((source_BD.var(dim=0) + target_MD.var(dim=0)) / 2 + torch.finfo(source_BD.dtype).tiny).sqrt()
        return float(self.config.weight) * coral_loss(source_BD / spread_D, target_MD / spread_D)

    def transported(self, source_ND: np.ndarray, target_MD: np.ndarray) -> np.ndarray:
        """See :func:`recoloured`."""
        return recoloured(source_ND, target_MD, self.config.ridge)
