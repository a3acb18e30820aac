"""Counting what a program computes and what it keeps, operation by operation."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import flop_registry


class Tracker(TorchDispatchMode):
    """Counts floating-point operations, and bytes of the tensors that are made in its block and still there.

    It works on tensors without values as on real ones, and follows the backward pass. Operations are those of torch's
    own ``flop_counter``: matrix products, convolutions and attention. Bytes are those of whole storages, which views
    share; work space that a kernel takes for itself is not seen.

    Attributes:
        flops: operations so far.
        live: bytes of what is there now.
        peak: the most that was there at once.
        aside: bytes of what was set aside.
        peak_with_aside: the most that was there at once, with what was set aside by then.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0
        self.live = 0
        self.peak = 0
        self.aside = 0
        self.peak_with_aside = 0
        self._known: dict[int, int] = {}

    def exempt(self, tensor: Tensor) -> int:
        """Count a tensor no longer, or never, as long as it is there; returns the bytes it was counted for."""
        address = tensor.untyped_storage()._cdata
        counted = self._known.get(address, 0)
        self.live -= counted
        self._known[address] = 0
        return counted

    def set_aside(self, tensor: Tensor) -> None:
        """Count a tensor apart from the others from now on, and for good."""
        self.aside += self.exempt(tensor)

    def restart(self) -> None:
        """Count operations and peaks anew."""
        self.flops, self.peak, self.peak_with_aside = 0, self.live, self.live + self.aside

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        if (formula := flop_registry.get(func._overloadpacket)) is not None:
            self.flops += int(formula(*args, **kwargs, out_val=found))
        tree_map_only(Tensor, self._add, found)
        return found

    def _add(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._known:
            self._known[storage._cdata] = storage.nbytes()
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            self.peak_with_aside = max(self.peak_with_aside, self.live + self.aside)
            weakref.finalize(storage, self._gone, storage._cdata)
        return tensor

    def _gone(self, address: int) -> None:
        self.live -= self._known.pop(address, 0)
