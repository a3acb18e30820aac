"""The attention of a Perceiver, layer by layer, from its inputs to its outputs.

Its layers do not hold their weights, which the fused kernels never make; within :func:`explicit` they do.

Shapes: ``B`` samples, ``H`` heads, ``N`` latents, ``T`` input tokens, ``Q`` output queries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor

from pretrain.backbone import Medformer
from pretrain.backbone.attention import Attention, CrossAttentionLayer, SelfAttentionLayer

Keep = Callable[[Tensor], None]


@dataclass
class Layers:
    """Weights of attention in one pass, in the order in which the network uses them.

    Attributes:
        reading: of latents to input tokens ``B, H, N, T``, by the number of the latent layer before which they read.
        mixing: of latents to latents ``B, H, N, N``, layer by layer.
        answering: of output queries to latents ``B, H, Q, N``: first that of the embedding, then those of dense tokens.
        again: of the embedding to input tokens ``B, H, 1, T``, where the network has it ask them.
    """

    reading: dict[int, Tensor] = field(default_factory=dict)
    mixing: dict[int, Tensor] = field(default_factory=dict)
    answering: list[Tensor] = field(default_factory=list)
    again: list[Tensor] = field(default_factory=list)

    @property
    def all(self) -> list[Tensor]:
        """All of them."""
        return [*self.reading.values(), *self.mixing.values(), *self.answering, *self.again]

    def clear(self) -> None:
        """Forget a pass before the next one."""
        self.reading.clear()
        self.mixing.clear()
        self.answering.clear()
        self.again.clear()


@contextmanager
def explicit(backbone: Medformer) -> Iterator[Layers]:
    """Within the block the network computes its weights of attention, and those of the last pass are kept."""
    kept = Layers()
    layers: list[tuple[Attention, Keep]] = [
        (backbone.encoder.attention, partial(kept.reading.__setitem__, 0)),
        (backbone.decoder.attention, kept.answering.append),
    ]
    if isinstance(backbone.reader, CrossAttentionLayer):
        layers.append((backbone.reader.attention, kept.again.append))
    for number, layer in backbone.encoders_again.items():
        assert isinstance(layer, CrossAttentionLayer)
        layers.append((layer.attention, partial(kept.reading.__setitem__, int(number))))
    for place, block in enumerate(backbone.blocks):
        assert isinstance(block, SelfAttentionLayer)
        layers.append((block.attention, partial(kept.mixing.__setitem__, place)))
    for attention, keep in layers:
        attention.forward = partial(_forward, attention, keep)  # type: ignore[method-assign]
    try:
        yield kept
    finally:
        for attention, _ in layers:
            del attention.forward


def _forward(
    attention: Attention, keep: Keep, queries_BQC: Tensor, context_BKC: Tensor | None = None,
    mask_BK: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """As :meth:`Attention.forward`, by the weights."""
    weights_BHQK, values_BHKE = attention.weights(queries_BQC, context_BKC, mask_BK)
    keep(weights_BHQK)
    found: Tensor = attention.proj((weights_BHQK @ values_BHKE).transpose(1, 2).flatten(2))
    return found
