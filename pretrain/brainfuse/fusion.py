"""New images of several subjects: fused by the generator along a binary tree, or averaged (RawBrainFuse)."""

from __future__ import annotations

import torch
from torch import Tensor

from data_shards.support.errors import ConfigError
from pretrain.brainfuse.generator import Generator


def check_parents(parents: int, subjects: int) -> int:
    """How deep the tree is.

    Raises:
        ConfigError: the number is no power of two above 1, or there are not so many subjects.
    """
    if parents < 2 or parents & (parents - 1):
        raise ConfigError(f"brainfuse: {parents} subjects cannot be paired up to one; expected 2, 4, 8, ...")
    if parents > subjects:
        raise ConfigError(f"brainfuse: {parents} subjects are to be fused, there are {subjects}")
    return parents.bit_length() - 1


def fused(generator: Generator, parents_KBC: Tensor) -> Tensor:
    """One image of ``K = 2^m`` subjects at matched height: halfway between pairs, then between these, to the last.

    Args:
        generator: without context.
        parents_KBC: ``K,B,C,*size``, the k-th subject of each of B images.

    Returns:
        ``B,C,*size``.
    """
    check_parents(len(parents_KBC), len(parents_KBC))
    while len(parents_KBC) > 1:
        first, second = parents_KBC[::2], parents_KBC[1::2]
        made = generator(first.flatten(0, 1), second.flatten(0, 1), 0.5).image
        parents_KBC = made.unflatten(0, first.shape[:2])
    return parents_KBC[0]


def mean_fused(parents_KBC: Tensor) -> Tensor:
    """RawBrainFuse in our reading: the mean of the pixels."""
    return torch.mean(parents_KBC, dim=0)
