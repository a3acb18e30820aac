"""Augmentation of volumes by kornia or MONAI; run by an interpreter that has them.

``python augmentations.py LIBRARY ROWS SIDE`` makes volumes, and for each line that it reads augments them once and
prints the seconds of the processor that it took.
"""

import math
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

_TURN = math.radians(10)


def monai_all() -> Callable[[Tensor], Tensor]:
    """One volume after the other: everything that moves but mirrors is one resampling, as MONAI has it."""
    from monai import transforms

    each = transforms.Compose(
        [
            transforms.RandFlip(0.5, spatial_axis=2),
            transforms.RandAffine(
                1.0,
                rotate_range=(_TURN,) * 3,
                scale_range=((-0.37, 0.0),) * 3,
                translate_range=(6,) * 3,
                mode="bilinear",
                padding_mode="reflection",
            ),
            transforms.RandScaleIntensityFixedMean(0.8, factors=0.4),
            transforms.RandShiftIntensity(0.2, prob=0.8),
            transforms.RandAdjustContrast(0.8, gamma=(1 / 1.3, 1.3)),
            transforms.RandGaussianSmooth((0.1, 1.0), (0.1, 1.0), (0.1, 1.0), prob=0.3),
            transforms.RandGaussianNoise(1.0, std=0.05),
        ]
    )
    return lambda volumes: torch.stack([each(volume).clamp(0, 1) for volume in volumes])


def kornia_moves() -> Callable[[Tensor], Tensor]:
    """The whole batch at once; kornia has nothing for the intensities of volumes but equalisation and motion blur."""
    import kornia.augmentation as augmentation

    moves = torch.nn.Sequential(
        augmentation.RandomHorizontalFlip3D(p=0.5),
        augmentation.RandomAffine3D(degrees=10, translate=(0.1,) * 3, scale=(0.63, 1.0), p=1.0),
    )
    return moves


MAKERS = {"monai": monai_all, "kornia": kornia_moves}


def main(library: str, rows: int, side: int) -> None:
    """Answer each line by a time."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    augment, volumes = MAKERS[library](), torch.rand(rows, 1, side, side, side)
    augment(volumes)
    print("ready", flush=True)
    for _ in sys.stdin:
        started_s = time.process_time()
        augment(volumes)
        print(time.process_time() - started_s, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
