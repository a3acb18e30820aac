"""Networks whose embedding is made in different ways; all other weights that a seed gives are the same."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pretrain.backbone import Medformer
from pretrain.backbone.attention import CrossAttentionLayer
from pretrain.backbone.embedding import PooledTokens
from pretrain.backbone.perceiver import initialise
from pretrain.backbone.study import Encoded

NANO: dict[str, Any] = {"embed_dim": 128, "depth": 4, "num_heads": 4, "stem": "hmlp"}
"""What ``medformer_nano`` is, with the stem that is the default named."""


class OtherEmbedding(Medformer):
    """Makes its embedding in another way than by the answer to one query."""

    def embedded(self, answers_BQD: Tensor, encoded: Encoded, latents_BND: Tensor) -> Tensor:
        """See :class:`Medformer`."""
        made_BD = self.made(answers_BQD[:, 0], encoded, latents_BND)
        return torch.cat([made_BD[:, None], answers_BQD[:, 1:]], dim=1)

    @abc.abstractmethod
    def made(self, answer_BD: Tensor, encoded: Encoded, latents_BND: Tensor) -> Tensor:
        """The embedding ``B, D`` before the last LayerNorm.

        Args:
            answer_BD: to the query of the embedding.
            encoded: what was answered of.
            latents_BND: that answered.
        """


class Pooling(OtherEmbedding):
    """Mean and spread of something add to the answer."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pool = PooledTokens(self.embed_dim).apply(initialise)


class PooledLatents(Pooling):
    """Those of the latents."""

    def made(self, answer_BD: Tensor, encoded: Encoded, latents_BND: Tensor) -> Tensor:
        """See :class:`OtherEmbedding`."""
        made_B1D: Tensor = self.pool(answer_BD[:, None], latents_BND)
        return made_B1D[:, 0]


class PooledAnswers(Pooling):
    """Those of what the latents answer to the dense queries: that which ``mean_spread`` reads."""

    def made(self, answer_BD: Tensor, encoded: Encoded, latents_BND: Tensor) -> Tensor:
        """See :class:`Medformer`."""
        dense_BTD = self.decode(latents_BND, torch.cat(encoded.tokens, dim=1))
        made_B1D: Tensor = self.pool(answer_BD[:, None], dense_BTD, encoded.mask_BT)
        return made_B1D[:, 0]


class Queries(OtherEmbedding):
    """Eight queries; a linear map of the answers to seven of them is added to that of the first."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.queries = nn.Parameter(torch.randn(7, self.embed_dim) * 0.02)
        self.joined = nn.Linear(7 * self.embed_dim, self.embed_dim).apply(initialise)

    def made(self, answer_BD: Tensor, encoded: Encoded, latents_BND: Tensor) -> Tensor:
        """See :class:`Medformer`."""
        answers_BQD = self.decode(latents_BND, self.repeated(self.queries, len(answer_BD)))
        added_BD: Tensor = self.joined(answers_BQD.flatten(1))
        return answer_BD + added_BD


class Deeper(OtherEmbedding):
    """The answer to the embedding query asks the latents twice more."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.again = nn.ModuleList(_layer(self.embed_dim) for _ in range(2))

    def made(self, answer_BD: Tensor, encoded: Encoded, latents_BND: Tensor) -> Tensor:
        """See :class:`Medformer`."""
        asked_B1D = answer_BD[:, None]
        for layer in self.again:
            asked_B1D = layer(asked_B1D, latents_BND)
        return asked_B1D[:, 0]


def _layer(dim: int) -> CrossAttentionLayer:
    return CrossAttentionLayer(dim, dim, NANO["num_heads"]).apply(initialise)


@dataclass(frozen=True)
class Arm:
    """A way to make the embedding.

    Attributes:
        name: in the table.
        network: its class.
        options: of the network.
    """

    name: str
    network: type[Medformer] = Medformer
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """Its name in those of files."""
        return self.name.replace(" ", "-")

    def fresh(self, size: tuple[int, ...], seed: int) -> Medformer:
        """The network with new weights."""
        torch.manual_seed(seed)
        return self.network(img_size=size, **NANO, **self.options).eval()


QUERY = Arm("query")
POOLED = Arm("pooled latents", PooledLatents)
CHOSEN = Arm("pooled tokens", options={"embedding": "pooled_tokens"})
"""The arm that predicts the test split beside the default: the best linear read on what draws left."""
LOTS = (
    (QUERY, POOLED, Arm("pooled answers", PooledAnswers)),
    (
        CHOSEN,
        Arm("reads tokens", options={"embedding": "reads_tokens"}),
        Arm("8 queries", Queries),
        Arm("deeper decoder", Deeper),
    ),
)
"""Those of a lot are trained beside each other, on views that are made once."""
ARMS = tuple(arm for lot in LOTS for arm in lot)
