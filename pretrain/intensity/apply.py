"""One function from images as they are stored to images as networks read them."""

from __future__ import annotations

import torch
from torch import Tensor

from data_shards.intensity import BYTES, Bytes, Percentiles, Rule, Windows
from pretrain.backbone import normalise
from pretrain.intensity.per_image import percentiles, z_scores
from pretrain.intensity.windows import windowed

_STORED = (torch.uint8, torch.int8, torch.uint16, torch.int16, torch.float16, torch.float32)
_WIDE = (torch.uint32, torch.int32, torch.float64)
"""Their values, unlike those of the others, are not all float32 values."""


def in_range(images: Tensor, rule: Rule = BYTES) -> Tensor:
    """Images under a rule.

    Each image by itself: what becomes of it does not depend on the batch it is in.

    Args:
        images: ``B,C,H,W`` or ``B,C,D,H,W``, finite, of integers or floats as they are stored.
        rule: the rule.

    Returns:
        float32 in [-1, 1] on the same device, with as many channels as ``rule.channels`` says.

    Raises:
        TypeError: the images are of another dtype than the rule is for.
        DataError: they have too many channels for the rule.
    """
    channels = rule.channels(images.shape[1])
    if isinstance(rule, Bytes):
        return normalise(images)
    if images.dtype not in (*_STORED, *_WIDE):
        raise TypeError(f"expected stored values, found {images.dtype}")
    if images.is_meta:
        return torch.empty(len(images), channels, *images.shape[2:], dtype=torch.float32, device="meta")
    values = images.to(torch.float64 if images.dtype in _WIDE else torch.float32)
    if isinstance(rule, Windows):
        return windowed(values, rule)
    if isinstance(rule, Percentiles):
        shown = [percentiles(image, rule) for image in values]
    else:
        shown = [z_scores(image, rule) for image in values]
    return torch.stack(shown) if shown else values.to(torch.float32)
