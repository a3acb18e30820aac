"""The Medformer backbone: a Perceiver IO whose latents are selected by organ, modality, dimensionality and task.

input adapter -> encoder cross-attention -> latent self-attention -> decoder cross-attention with output queries
(Perceiver IO, Jaegle et al., ICLR 2022, figure 2). Shapes: ``B`` samples, ``T`` input tokens, ``N`` latents, ``D``
channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from data_shards.vocabulary import Dimensionality
from pretrain.backbone.adapters import PlanarAdapter
from pretrain.backbone.attention import CrossAttentionLayer, SelfAttentionLayer
from pretrain.backbone.latents import LatentArray
from pretrain.metadata import Metadata


@dataclass(frozen=True)
class Features:
    """What the backbone makes of a batch.

    Attributes:
        embedding_BD: one vector per image.
        tokens_BTD: one vector per cell of the input grid in row-major order, or None when they were not asked for.
        grid: cells along each axis; their product is ``T``.
    """

    embedding_BD: Tensor
    tokens_BTD: Tensor | None
    grid: tuple[int, ...]


class Medformer(nn.Module):
    """Perceiver IO with latent collections, in timm's model contract.

    Args:
        img_size: nominal size, for timm's configuration; any size is accepted at run time.
        in_chans: canonical number of channels; images of another number are accepted (see ``ConvStem``).
        num_classes: outputs of the linear classifier; 0 for none.
        global_pool: ``token`` (the embedding query) or ``avg`` (mean of the dense tokens).
        embed_dim: channels of tokens, latents and embedding.
        depth: latent self-attention layers.
        num_heads: heads of every attention.
        latents: shared latents.
        latents_per_entry: latents of each vocabulary entry (organ, modality, dimensionality, task).
        stride: pixels per input token along each axis.
        mlp_ratio: widening of the MLPs.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last latent layer; earlier layers have proportionally less.
    """

    def __init__(
        self,
        img_size: int | Sequence[int] = 28,
        in_chans: int = 3,
        num_classes: int = 0,
        global_pool: str = "token",
        embed_dim: int = 128,
        depth: int = 4,
        num_heads: int = 4,
        latents: int = 16,
        latents_per_entry: int = 2,
        stride: int = 4,
        mlp_ratio: float = 4.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.img_size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
        self.in_chans = in_chans
        self.num_classes = num_classes
        self.embed_dim = self.num_features = self.head_hidden_size = embed_dim
        self.num_prefix_tokens = 1
        self.grad_checkpointing = False

        self.planar = PlanarAdapter(in_chans, embed_dim, stride)
        self.latents = LatentArray(latents, latents_per_entry, embed_dim)
        self.encoder = CrossAttentionLayer(embed_dim, embed_dim, num_heads, mlp_ratio)
        rates = torch.linspace(0, drop_path_rate, depth).tolist()
        self.blocks = nn.ModuleList([SelfAttentionLayer(embed_dim, num_heads, mlp_ratio, rate) for rate in rates])
        self.query = nn.Parameter(torch.zeros(1, embed_dim))
        self.decoder = CrossAttentionLayer(embed_dim, embed_dim, num_heads, mlp_ratio)
        self.norm = nn.LayerNorm(embed_dim)
        self.head_drop = nn.Dropout(drop_rate)
        self.apply(_initialise)
        nn.init.normal_(self.query, std=0.02)
        self.reset_classifier(num_classes, global_pool)

    def features(
        self,
        images_BCHW: Tensor,
        metadata: Metadata | None = None,
        spacing_mm: Sequence[float] | None = None,
        *,
        dense: bool = False,
    ) -> Features:
        """Encode a batch.

        Args:
            images_BCHW: normalised images, see :func:`~pretrain.backbone.normalise`.
            metadata: what is known of each image; None for nothing.
            spacing_mm: distance between rows and between columns; None when unknown.
            dense: also decode one token per cell of the input grid.

        Raises:
            ValueError: the images do not have the axes ``B,C,H,W``, or an axis is empty.
        """
        if images_BCHW.ndim != 4 or 0 in images_BCHW.shape:
            raise ValueError(f"expected images B,C,H,W with no empty axis, found shape {tuple(images_BCHW.shape)}")
        if metadata is None:
            metadata = Metadata.uniform(len(images_BCHW), device=images_BCHW.device)
        tokens_BTD, grid = self.planar(images_BCHW, spacing_mm)
        latents_BND = self.latents(metadata, Dimensionality.planar).to(tokens_BTD.dtype)
        latents_BND = self.encoder(latents_BND, tokens_BTD)
        for block in self.blocks:
            if self.grad_checkpointing and self.training:
                latents_BND = checkpoint(block, latents_BND, use_reentrant=False)
            else:
                latents_BND = block(latents_BND)
        queries_BQD = self.query.to(tokens_BTD.dtype).expand(len(tokens_BTD), -1, -1)
        if dense:
            queries_BQD = torch.cat([queries_BQD, tokens_BTD], dim=1)
        outputs_BQD = self.norm(self.decoder(queries_BQD, latents_BND))
        return Features(outputs_BQD[:, 0], outputs_BQD[:, 1:] if dense else None, grid)

    def forward_features(self, images_BCHW: Tensor, metadata: Metadata | None = None) -> Tensor:
        """The embedding token followed by the dense tokens, ``B, 1 + T, D``."""
        features = self.features(images_BCHW, metadata, dense=True)
        assert features.tokens_BTD is not None
        return torch.cat([features.embedding_BD[:, None], features.tokens_BTD], dim=1)

    def forward_head(self, x_BND: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool the tokens of :meth:`forward_features` and classify."""
        pooled = x_BND[:, 0] if self.global_pool == "token" else x_BND[:, 1:].mean(dim=1)
        pooled = self.head_drop(pooled)
        return pooled if pre_logits else self.head(pooled)

    def forward(self, images_BCHW: Tensor, metadata: Metadata | None = None) -> Tensor:
        """Logits ``B, num_classes``, or the pooled embedding when there is no classifier."""
        if self.global_pool == "token":
            embedding_BD = self.features(images_BCHW, metadata).embedding_BD
            return self.head(self.head_drop(embedding_BD))
        return self.forward_head(self.forward_features(images_BCHW, metadata))

    def get_classifier(self) -> nn.Module:
        """The classifier."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a new one of ``num_classes`` outputs; 0 for none.

        Raises:
            ValueError: ``global_pool`` is neither ``token`` nor ``avg``.
        """
        if global_pool is not None:
            if global_pool not in ("token", "avg"):
                raise ValueError(f"global_pool {global_pool!r} is neither 'token' nor 'avg'")
            self.global_pool = global_pool
        self.num_classes = num_classes
        self.head = nn.Linear(self.embed_dim, num_classes) if num_classes else nn.Identity()

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the latent layers in the backward pass instead of storing them."""
        self.grad_checkpointing = enable

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay would pull to a meaningless zero: latents and queries."""
        return {"query", "latents.shared", *(f"latents.collections.{name}" for name in self.latents.collections)}

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, object]:
        """Layer groups from input to output, for layer-wise learning rates."""
        return {
            "stem": r"^planar|^latents|^encoder",
            "blocks": [(r"^blocks\.(\d+)", None), (r"^query|^decoder|^norm", (99999,))],
        }


def _initialise(module: nn.Module) -> None:
    # Xavier, as in the reference ViT: with a standard deviation of 0.02 the first attention adds less to the latents
    # than they hold to begin with, and all images start with nearly the same embedding.
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
