"""Fixed windows as channels."""

from __future__ import annotations

import torch
from torch import Tensor

from data_shards.intensity import Windows


def windowed(values: Tensor, rule: Windows) -> Tensor:
    """Each window as the channels ``values`` have, one window after the other.

    Args:
        values: floats ``B,C,...``.
        rule: the windows; several are for one channel.

    Returns:
        float32 ``B,C',...`` in [-1, 1], both ends exactly.
    """
    shown = [
        values.clamp(window.low, window.high).sub_(window.low).div_(window.width / 2).sub_(1).to(torch.float32)
        for window in rule.windows
    ]
    return shown[0] if len(shown) == 1 else torch.cat(shown, dim=1)
