"""Where mixed precision ends."""

from __future__ import annotations

import torch
from torch import Tensor


def full_precision(x: Tensor) -> torch.autocast:
    """A context without autocast, for heads and losses: sums over a batch lose their digits in bfloat16.

    Of tensors that are shapes alone (``meta``), to which no autocast belongs, it is that of the CPU.
    """
    device = x.device.type
    return torch.autocast(device if torch.amp.is_autocast_available(device) else "cpu", enabled=False)
