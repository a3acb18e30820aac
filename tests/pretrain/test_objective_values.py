"""Losses equal lightly's in one process (1e-6, float64) and hand-made examples."""

from __future__ import annotations

import math

import pytest
import torch
from lightly.loss import BarlowTwinsLoss, NegativeCosineSimilarity, NTXentLoss
from torch import Tensor, nn

from pretrain.backbone.position import Spacing
from pretrain.metadata import Metadata
from pretrain.objectives.barlow_twins import barlow_twins_loss
from pretrain.objectives.byol import BYOL, byol_loss
from pretrain.objectives.simclr import nt_xent


class Linear(nn.Module):
    """The least that has the interface of a backbone."""

    embed_dim = 10

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(6, self.embed_dim)

    def features(self, images: Tensor, metadata: Metadata, spacing_mm: Spacing = None) -> Linear:
        self.embedding_BD = self.map(images).tanh()
        return self


def pair(rows: int = 24, width: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    za = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    return za, za + torch.randn(rows, width, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("redundancy", [0.005, 0.1])
def test_barlow_twins_equals_lightly(redundancy: float) -> None:
    za, zb = pair()
    ours = sum(barlow_twins_loss(za, zb, redundancy, len(za)))
    assert float(ours) == pytest.approx(float(BarlowTwinsLoss(redundancy)(za, zb)), abs=1e-6, rel=1e-9)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_nt_xent_equals_lightly(temperature: float) -> None:
    za, zb = pair()
    theirs = NTXentLoss(temperature)(za, zb)
    assert float(nt_xent(za, zb, temperature, (len(za),))) == pytest.approx(float(theirs), abs=1e-6)


def test_byol_is_the_sum_of_lightlys_two_directions_plus_two() -> None:
    za, zb = pair()
    # 2 - 2 cos per direction, where lightly gives -cos.
    assert float(byol_loss(za, zb, len(za))) == pytest.approx(
        2 + 2 * float(NegativeCosineSimilarity()(za, zb)), abs=1e-6
    )


def test_nt_xent_of_two_orthogonal_images_by_hand() -> None:
    z = torch.eye(2, dtype=torch.float64)
    # Each anchor meets its partner (similarity 1) and twice the other image (similarity 0).
    expected = -math.log(math.e / (math.e + 2))
    assert float(nt_xent(z, z, 1.0, (2,))) == pytest.approx(expected, abs=1e-12)


def test_barlow_twins_of_decorrelated_equal_views_is_zero() -> None:
    signs = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64) * 1e3
    invariance, redundancy = barlow_twins_loss(signs, signs, 1.0, 4)
    assert float(invariance + redundancy) == pytest.approx(0, abs=1e-12)


def test_byol_target_takes_no_gradient_and_follows_the_cosine_schedule() -> None:
    torch.manual_seed(0)
    backbone = Linear()
    objective = BYOL(backbone, BYOL.Config(hidden=8, out=4, tau=0.9))
    assert not any(
        p.requires_grad for p in [*objective.target_backbone.parameters(), *objective.target_projector.parameters()]
    )
    before = objective.target_backbone.map.weight.clone()
    with torch.no_grad():
        backbone.map.weight.add_(1.0)
    for progress in (0.0, 0.5, 1.0):
        tau = 1 - (1 - 0.9) * (math.cos(math.pi * progress) + 1) / 2
        expected = tau * objective.target_backbone.map.weight + (1 - tau) * backbone.map.weight
        objective.after_step(backbone, progress)
        torch.testing.assert_close(objective.target_backbone.map.weight, expected)
    assert not torch.equal(before, objective.target_backbone.map.weight)


def test_byol_target_follows_the_batch_norm_buffers() -> None:
    backbone = Linear()
    objective = BYOL(backbone, BYOL.Config(hidden=8, out=4, tau=0.0))
    objective.projector[1].running_mean.fill_(5.0)
    objective.after_step(backbone, 0.0)
    torch.testing.assert_close(objective.target_projector[1].running_mean, torch.full((8,), 5.0))
