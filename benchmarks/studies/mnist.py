"""Handwritten digits (LeCun, Cortes and Burges) from the folder of real images."""

from __future__ import annotations

import gzip
from functools import cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from benchmarks.studies.runs import DATA

MEAN, STD = 0.1307, 0.3081
"""Of the pixels of the training split, as fractions of white."""


@cache
def digits(split: Literal["train", "t10k"]) -> tuple[np.ndarray, np.ndarray]:
    """Pixels, uint8 ``(N, 784)``, and digits ``(N,)`` of the training or the test split."""
    images = gzip.decompress((DATA / "mnist" / f"{split}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((DATA / "mnist" / f"{split}-labels-idx1-ubyte.gz").read_bytes())
    return np.frombuffer(images, np.uint8, offset=16).reshape(-1, 784), np.frombuffer(labels, np.uint8, offset=8)


def normalised(pixels: np.ndarray) -> Tensor:
    """Pixels as float32 of mean 0 and deviation 1 over the training split."""
    return (torch.from_numpy(pixels.astype(np.float32)) / 255 - MEAN) / STD
