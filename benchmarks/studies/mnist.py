"""Handwritten digits (LeCun, Cortes and Burges) from the folder of real images."""

from __future__ import annotations

import gzip
import hashlib
from functools import cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from benchmarks.studies.runs import DATA
from data_shards.vocabulary import Task
from finetune.cases import Cases

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


def cases() -> Cases:
    """The training split, as few-label subsets are drawn from it."""
    pixels, digit_N = digits("train")
    files = [DATA / "mnist" / f"train-{part}-ubyte.gz" for part in ("images-idx3", "labels-idx1")]
    return Cases(
        name="mnist",
        images=pixels.reshape(-1, 1, 28, 28),
        labels=digit_N[:, None].astype(np.int64),
        task=Task.multiclass,
        classes={digit: str(digit) for digit in range(10)},
        keys=np.array([f"train-{row}" for row in range(len(digit_N))]),
        source={file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files},
    )
