"""How many images a network takes at a time, by the memory that one image needs.

The need of a network is measured on small images and grows linearly with their voxels: the stem is convolutions, and
the latents attend to every token. So nothing large is run to find out that it is too large.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

from data_shards.support.errors import DataError
from data_shards.support.memory import available_bytes, in_words
from finetune.random_state import seeded

WORK_BYTES = 1 << 30
"""What a pass through a network may take; more images at a time are hardly faster."""

# Convolutions unfold and reorder values in memory of their own, which is no tensor. Without a backward pass, where few
# tensors live at a time, the process grows by three times what they take; with one, by hardly more than they take.
_MARGIN, _MARGIN_OF_TRAINING = 3.5, 1.5
_PROBES = {2: (64, 128), 3: (16, 32)}  # sides of the images that are measured


class _Live(TorchDispatchMode):
    """Bytes of all tensors that operations have made and that still live, and the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._seen: Any = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self._count, found)
        return found

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._seen:
            return
        self._seen[storage] = True
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._release, size)

    def _release(self, size: int) -> None:
        self.now -= size


@dataclass(frozen=True)
class Need:
    """What every image of a batch adds to the memory of a pass through a network.

    Attributes:
        constant: bytes, whatever its size.
        per_voxel: bytes more.
    """

    constant: float
    per_voxel: float

    def __call__(self, sizes: Sequence[int]) -> int:
        """Bytes of an image with these axes."""
        return int(self.constant + self.per_voxel * math.prod(sizes))


def need_of(run: Callable[[Tensor], Tensor], channels: int, axes: int, device: torch.device, *, train: bool) -> Need:
    """Measure a network, on small images.

    Args:
        run: from images ``B,C,...`` to something that can be summed.
        channels: of the images.
        axes: 2 for planes, 3 for volumes.
        device: where the network is.
        train: whether there is a backward pass.
    """
    small, large = _PROBES[axes]

    def peak(count: int, side: int) -> int:
        with seeded(0, device), torch.set_grad_enabled(train), _Live() as live:
            found = run(torch.zeros(count, channels, *[side] * axes, device=device))
            if train:
                torch.autograd.grad(found.float().sum(), _leaves(found), allow_unused=True)
        return live.peak

    alone, larger, two = peak(1, small), peak(1, large), peak(2, small)
    voxels = small**axes
    slope = max(0.0, (larger - alone) / (large**axes - voxels))
    margin = _MARGIN_OF_TRAINING if train else _MARGIN
    return Need(margin * max(0.0, two - alone - slope * voxels), margin * slope)


def _leaves(tensor: Tensor) -> list[Tensor]:
    """The parameters that a result depends on."""
    found: dict[int, Tensor] = {}
    queue, seen = [tensor.grad_fn], set()
    while queue:
        node = queue.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found[id(node.variable)] = node.variable
        queue += [following for following, _ in node.next_functions]
    return list(found.values())


def images_at_once(one: int, shape: Sequence[int], device: torch.device, *, most: int, name: str = "images") -> int:
    """How many images of a batch are passed through a network together.

    Args:
        one: what one image takes, see :func:`need_of`.
        shape: of an image.
        device: where the network is.
        most: no more than this.
        name: of the images, for the message.

    Raises:
        DataError: the memory that is there is too small for a single image; a size that fits is named.
    """
    free = free_bytes(device)
    if one > free:
        raise DataError(
            f"{name}: one image of {words_of(shape)} takes {in_words(one)} in this network, {in_words(free)} are free"
            f"{fitting(shape, free / one)}"
        )
    return max(1, min(most, min(WORK_BYTES, free) // max(one, 1)))


def free_bytes(device: torch.device) -> int:
    """What can still be taken on a device."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else available_bytes()


def fitting(shape: Sequence[int], share: float) -> str:
    """The clause that names a side at which images take this share of what they take now."""
    sizes = shape[1:]
    side = math.floor((0.8 * share * math.prod(sizes)) ** (1 / len(sizes)))
    option = f"--size {min(side, 1024)}" if len(sizes) == 2 else f"prepare.size={side} of shards build"
    return f"; {option} fits" if side >= 4 else ""


def words_of(shape: Sequence[int]) -> str:
    """``3 x 480 x 640``."""
    return " x ".join(map(str, shape))
