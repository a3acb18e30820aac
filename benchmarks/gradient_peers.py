"""The losses of solo-learn and stable-pretraining, where they can be imported, as functions of two projected views.

Neither is a dependency: run the benchmark by a Python that has them (a virtual environment beside this project's).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor, tuple[int, ...]], Tensor]


def solo_learn(prototypes_KD: Tensor) -> dict[str, Loss]:
    """By the name of the loss; empty where solo-learn is missing.

    Args:
        prototypes_KD: fixed, of SwAV and DINO.
    """
    if importlib.util.find_spec("solo") is None:
        return {}
    from solo.losses import DINOLoss, barlow_loss_func, simclr_loss_func, swav_loss_func
    from solo.utils.sinkhorn_knopp import SinkhornKnopp

    def nt_xent(za: Tensor, zb: Tensor, rows: tuple[int, ...]) -> Tensor:
        start = sum(rows[: _rank(rows)])
        found: Tensor = simclr_loss_func(torch.cat([za, zb]), torch.arange(start, start + len(za)).repeat(2), 0.5)
        return found

    def swav(za: Tensor, zb: Tensor, rows: tuple[int, ...]) -> Tensor:
        said = [F.normalize(z, dim=1) @ F.normalize(prototypes_KD, dim=1).T for z in (za, zb)]
        share = SinkhornKnopp(3, 0.05, len(rows))
        found: Tensor = swav_loss_func(said, [share(each.detach()) for each in said], 0.1)
        return found

    def dino(za: Tensor, zb: Tensor, rows: tuple[int, ...]) -> Tensor:
        criterion = DINOLoss(len(prototypes_KD), 0.04, 0.04, 0, 1)
        said = torch.cat([za, zb]) @ prototypes_KD.T
        criterion.update_center(said.detach())
        found: Tensor = criterion(said, said.detach())
        return found

    def twins(za: Tensor, zb: Tensor, _: tuple[int, ...]) -> Tensor:
        found: Tensor = barlow_loss_func(za.float(), zb.float(), 0.005, 1.0)  # Its normalisation knows float32 only.
        return found

    return {"Barlow Twins": twins, "NT-Xent": nt_xent, "SwAV": swav, "DINO": dino}


def stable_pretraining(prototypes_KD: Tensor) -> dict[str, Loss]:
    """By the name of the loss; empty where stable-pretraining is missing.

    Args:
        prototypes_KD: fixed, of SwAV and DINO.
    """
    if importlib.util.find_spec("stable_pretraining") is None:
        return {}
    from stable_pretraining.losses import BarlowTwinsLoss, DINOv1Loss, NTXEntLoss, SwAVLoss

    def swav(za: Tensor, zb: Tensor, _: tuple[int, ...]) -> Tensor:
        layer = nn.Linear(*reversed(prototypes_KD.shape), bias=False).double()
        layer.requires_grad_(False).weight.copy_(prototypes_KD)
        found: Tensor = SwAVLoss()(za, zb, layer)
        return found

    def dino(za: Tensor, zb: Tensor, _: tuple[int, ...]) -> Tensor:
        criterion = DINOv1Loss()
        said = torch.stack([za, zb]) @ prototypes_KD.T
        criterion.update_center(said.detach())
        told = criterion.softmax_center_teacher(said.detach(), 0.04)
        found: Tensor = criterion(said, told.float())  # As the student becomes inside.
        return found

    return {"Barlow Twins": lambda za, zb, _: BarlowTwinsLoss(0.005)(za, zb),
            "NT-Xent": lambda za, zb, _: NTXEntLoss(0.5)(za, zb), "SwAV": swav, "DINO": dino}  # fmt: skip


def _rank(rows: tuple[int, ...]) -> int:
    return torch.distributed.get_rank() if len(rows) > 1 else 0
