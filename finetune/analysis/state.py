"""What a forward pass changes beside the weights: buffers, such as running statistics, and random generators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class PassState:
    """Buffers of a module and the states of the generators it draws from, at one moment.

    Attributes:
        buffers: copies, in the order of ``module.buffers()``.
        generators: the state of the generator of the CPU and of each GPU that the module is on.
    """

    buffers: Sequence[Tensor]
    generators: Sequence[tuple[torch.device, Tensor]]

    @classmethod
    def of(cls, module: nn.Module) -> PassState:
        """The state as it is now."""
        tensors = [*module.parameters(), *module.buffers()]
        gpus = {tensor.device for tensor in tensors if tensor.device.type == "cuda"}
        states = [(torch.device("cpu"), torch.get_rng_state())]
        states += [(gpu, torch.cuda.get_rng_state(gpu)) for gpu in sorted(gpus, key=str)]
        return cls([buffer.detach().clone() for buffer in module.buffers()], states)

    def restore(self, module: nn.Module) -> None:
        """Bring the module and the generators back to it."""
        with torch.no_grad():
            for buffer, kept in zip(module.buffers(), self.buffers, strict=True):
                buffer.copy_(kept)
        for device, state in self.generators:
            if device.type == "cuda":
                torch.cuda.set_rng_state(state, device)
            else:
                torch.set_rng_state(state)
