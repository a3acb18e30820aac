"""Images, keys and chosen random numbers for the tests of views."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pretrain.views import ViewConfig
from pretrain.views.config import IDENTITY
from pretrain.views.maps import composed
from pretrain.views.random import sample_keys
from pretrain.views.sampling import frame_of, sample, sampling_grid
from pretrain.views.transforms import TRANSFORMS, Draws, Move

EVERY = {name: {} for name, each in TRANSFORMS.items() if not each.on and name != "stain"}
"""The transforms that are off by default switched on, but for the one that needs colours."""
STRONG = ViewConfig.model_validate(
    {
        **EVERY,
        "rotation": {"degrees": 30, "tilt_degrees": 20},
        "flip": {"vertical": 0.5, "depth": 0.5},
        "blur": {"probability": 0.5},
        "colour": {"hue_degrees": 30},
    }
)
"""All of them, the present ones stronger than by default."""


def noise_images(rows: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (rows, *shape), generator=generator, dtype=torch.uint8)


def smooth_images(rows: int, *shape: int) -> Tensor:
    """Values in [0, 1] that change slowly, float32."""
    generator = np.random.default_rng(1)
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, side) for side in shape[1:]], indexing="ij"))
    waves = generator.uniform(1, 5, (rows, shape[0], len(grid), *[1] * len(grid)))
    return torch.from_numpy(0.5 + 0.4 * np.sin((waves * grid).sum(axis=2))).float()


def keys(rows: int, *, seed: int = 0, epoch: int = 0, dataset: int = 0, view: int = 0) -> Tensor:
    return sample_keys(seed, epoch, dataset, torch.arange(rows), view)


def only(**transforms: dict[str, object]) -> ViewConfig:
    """These transforms and no other."""
    return IDENTITY.changed(**transforms)


def drawn(*u: float, rows: int = 1) -> Draws:
    """The same chosen uniform numbers for each image."""
    return Draws(torch.tensor([u] * rows, dtype=torch.float64), keys(rows))


def map_of(image: Tensor, config: ViewConfig, u: dict[str, tuple[float, ...]]) -> Tensor:
    """The composed map of the moves of a configuration, for chosen uniform numbers of each."""
    frame = frame_of(image, None)
    moves = [each for each in config.acting_on(tuple(image.shape[1:])) if isinstance(each, Move)]
    return composed([move.maps(drawn(*u[move.name], rows=len(image)), frame) for move in moves])


def moved(image: Tensor, config: ViewConfig, u: dict[str, tuple[float, ...]], padding: str = "border") -> Tensor:
    """An image moved by chosen numbers."""
    return sample(image, sampling_grid(map_of(image, config, u), tuple(image.shape[2:])), padding)
