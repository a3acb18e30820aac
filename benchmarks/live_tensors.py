"""How many bytes of tensors are there at once."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveTensors(TorchDispatchMode):
    """While it is on, the storages that operations make are counted from when they are made to when they go.

    What a kernel needs for itself and gives back before it ends is not seen.

    Attributes:
        peak: the most bytes at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def count(self, *tensors: torch.Tensor) -> None:
        """Count what was there before, too."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage in self._known:
                continue
            self._known.add(storage)
            size = storage.nbytes()
            self._now += size
            self.peak = max(self.peak, self._now)
            weakref.finalize(storage, self._gone, size)

    def _gone(self, size: int) -> None:
        self._now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.count(*(each for each in tree_leaves(made) if isinstance(each, torch.Tensor)))
        return made
