"""What timm and those who use it expect of a model, beyond its mathematics."""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pretrain.backbone.contract import Backbone
from pretrain.backbone.position import Spacing
from pretrain.backbone.study import Encoded, StudyImage
from pretrain.metadata import Metadata


class TimmModel(Backbone):
    """The part of :class:`~pretrain.backbone.perceiver.Medformer` that is timm's model contract.

    Args:
        img_size: nominal size, one number or one for each axis.
        in_chans: canonical number of channels.
        embed_dim: channels of the features.
        depth: layers that :meth:`forward_intermediates` can take features from.
        stride: pixels per token.

    Raises:
        ValueError: an argument is below what is possible; it is named.
    """

    blocks: nn.ModuleList
    encoders_again: nn.ModuleDict
    query: Tensor
    norm: nn.Module
    head_drop: nn.Module

    def __init__(self, img_size: int | Sequence[int], in_chans: int, embed_dim: int, depth: int, stride: int) -> None:
        super().__init__()
        for name, value, least in (("in_chans", in_chans, 1), ("embed_dim", embed_dim, 1), ("depth", depth, 0)):
            if value < least:
                raise ValueError(f"{name} {value}: at least {least} is expected")
        # timm is not to fit the first convolution to other channels: checkpoint_filter_fn does, its depth included.
        self._traits: dict[str, Any] = {"first_conv": None}
        self.set_input_size(img_size)
        self.in_chans = in_chans
        self.embed_dim = self.num_features = self.head_hidden_size = embed_dim
        self.stride = stride
        self.num_prefix_tokens = 1
        self.grad_checkpointing = False
        self.feature_info = [
            {"num_chs": embed_dim, "reduction": stride, "module": f"blocks.{number}"} for number in range(depth)
        ]

    @abc.abstractmethod
    def encode(
        self,
        images: Sequence[StudyImage],
        metadata: Metadata | None = None,
        *,
        stages: Sequence[int] = (),
        stop_early: bool = False,
    ) -> Encoded:
        """See :meth:`pretrain.backbone.perceiver.Medformer.encode`."""

    @abc.abstractmethod
    def answer(
        self,
        encoded: Encoded,
        queries: Sequence[Tensor] = (),
        *,
        latents_BND: Tensor | None = None,
        norm: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`pretrain.backbone.perceiver.Medformer.answer`."""

    def forward_features(self, images: Tensor, metadata: Metadata | None = None, spacing_mm: Spacing = None) -> Tensor:
        """The embedding token followed by the dense tokens, ``B, 1 + T, D``."""
        features = self.features(images, metadata, spacing_mm, dense=True)
        assert features.tokens_BTD is not None
        return torch.cat([features.embedding_BD[:, None], features.tokens_BTD], dim=1)

    def forward_head(self, x_BND: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool the tokens of :meth:`forward_features` and classify."""
        if self.global_pool == "token":
            x_BND = x_BND[:, 0]
        elif self.global_pool == "avg":
            x_BND = x_BND[:, self.num_prefix_tokens :].mean(dim=1)
        x_BND = self.head_drop(x_BND)
        return x_BND if pre_logits else self.head(x_BND)

    def forward(self, images: Tensor, metadata: Metadata | None = None, spacing_mm: Spacing = None) -> Tensor:
        """Logits ``B, num_classes``, or what was pooled when there is no classifier.

        Without pooling either of each token, ``B, 1 + T, ...``.
        """
        if self.global_pool == "token":
            embedding_BD = self.features(images, metadata, spacing_mm).embedding_BD
            logits: Tensor = self.head(self.head_drop(embedding_BD))
            return logits
        return self.forward_head(self.forward_features(images, metadata, spacing_mm))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: Literal["NCHW", "NLC"] = "NCHW",
        intermediates_only: bool = False,
        metadata: Metadata | None = None,
        spacing_mm: Spacing = None,
    ) -> Any:
        """Feature maps of several depths: what the latents answer to the dense queries after a layer.

        Args:
            x: images, planes or volumes.
            indices: layers, counted from 0 or, when negative, from the end; a number for so many last ones; None for
                all.
            return_prefix_tokens: give ``(map, embedding token B,1,D)`` for each instead of the map.
            norm: apply the last LayerNorm.
            stop_early: leave out the layers after the last index.
            output_fmt: ``NCHW`` for maps ``B, D, *grid``, ``NLC`` for tokens ``B, T, D``.
            intermediates_only: leave out the features of the last layer.
            metadata: what is known of each image.
            spacing_mm: distance of voxels.

        Returns:
            The intermediates as a list, preceded by what :meth:`forward_features` gives unless ``intermediates_only``.

        Raises:
            ValueError: ``output_fmt`` is another one, there is no such layer, or the images are no images.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise ValueError(f"output_fmt {output_fmt!r} is neither 'NCHW' nor 'NLC'")
        wanted = self._layers(indices)
        modality_B = metadata.modality_B if isinstance(metadata, Metadata) else None
        image = StudyImage(x, modality_B, spacing_mm)
        encoded = self.encode([image], metadata, stages=wanted, stop_early=stop_early)
        (grid,) = encoded.grids
        found = []
        for latents_BND in encoded.stages:
            embedding_BD, dense = self.answer(encoded, encoded.tokens, latents_BND=latents_BND, norm=norm)
            if output_fmt == "NCHW":
                dense = dense.transpose(1, 2).unflatten(2, grid.cells).contiguous()
            found.append((dense, embedding_BD[:, None]) if return_prefix_tokens else dense)
        if intermediates_only:
            return found
        embedding_BD, tokens_BTD = self.answer(encoded, encoded.tokens)
        return torch.cat([embedding_BD[:, None], tokens_BTD], dim=1), found

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove what :meth:`forward_intermediates` does not need for these layers; gives their numbers."""
        wanted = self._layers(indices)
        self.blocks = self.blocks[: max(wanted) + 1]
        for number in [number for number in self.encoders_again if int(number) > max(wanted)]:
            del self.encoders_again[number]
        if prune_norm:
            self.norm = nn.Identity()
        if prune_head:
            self.reset_classifier(0)
        return wanted

    def _layers(self, indices: int | Sequence[int] | None) -> list[int]:
        """Numbers of layers, counted from the first; as timm reads ``indices``."""
        count = len(self.blocks)
        if indices is None:
            return list(range(count))
        if isinstance(indices, int):
            found = list(range(count - indices, count))
        else:
            found = [index + count if index < 0 else index for index in indices]
        if not found or min(found) < 0 or max(found) >= count:
            raise ValueError(f"indices {indices} of {count} layers")
        return found

    def get_classifier(self) -> nn.Module:
        """The classifier."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a new one of ``num_classes`` outputs; 0 for none.

        Args:
            num_classes: its outputs.
            global_pool: ``token`` (the embedding), ``avg`` (the mean of the dense tokens), ``""`` (no pooling), or None
                for what it was.

        Raises:
            ValueError: ``global_pool`` is another one, or ``num_classes`` is negative.
        """
        if num_classes < 0:
            raise ValueError(f"num_classes {num_classes}: at least 0 is expected, for no classifier")
        if global_pool is not None:
            if global_pool not in ("token", "avg", ""):
                raise ValueError(f"global_pool {global_pool!r} is none of 'token', 'avg' and ''")
            self.global_pool = global_pool
        self.num_classes = num_classes
        self.head: nn.Module = nn.Identity()
        if num_classes:
            self.head = nn.Linear(self.embed_dim, num_classes, device=self.query.device, dtype=self.query.dtype)
        self.head.train(self.training)

    def set_input_size(self, img_size: int | Sequence[int]) -> None:
        """Change the nominal size; the stride stays, and any size is accepted at run time.

        Raises:
            ValueError: it is not one positive number, or two, or three.
        """
        self.img_size = check_size(img_size)
        # What timm.models.save_for_hf writes; timm knows sizes of two axes, volumes go in through the arguments.
        self._traits = {**self._traits, "img_size": self.img_size if len(self.img_size) == 2 else None}
        self._model_args = {**getattr(self, "_model_args", {}), "img_size": self.img_size}

    @property
    def voxel_mm(self) -> float | None:
        """Distance of voxels at which images of known spacing are read; None for as they are. May be set at any time.

        Raises:
            ValueError: what is set is no length above 0.
        """
        return self._voxel_mm

    @voxel_mm.setter
    def voxel_mm(self, value: float | None) -> None:
        if value is not None and not (isinstance(value, int | float) and 0 < value < math.inf):
            raise ValueError(f"voxel_mm {value}: a length above 0 is expected, or None")
        self._voxel_mm = value
        self._model_args = {**getattr(self, "_model_args", {}), "voxel_mm": value}

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute encoder and latent layers in the backward pass instead of storing them."""
        self.grad_checkpointing = enable

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay would pull to a meaningless zero: latents, queries and tags."""
        return {name for name, _ in self.named_parameters() if name in ("query", "tags") or name.startswith("latents.")}

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, object]:
        """Layer groups from input to output, for layer-wise learning rates."""
        return {
            "stem": r"^adapter|^latents|^tags|^encoder\.",
            "blocks": [
                (r"^blocks\.(\d+)", None),
                (r"^encoders_again\.(\d+)", None),
                (r"^query|^decoder|^reader|^norm", (99999,)),
            ],
        }


def check_size(img_size: int | Sequence[int]) -> tuple[int, ...]:
    """A nominal size with one number for each axis.

    Raises:
        ValueError: it is not one positive number, or two, or three.
    """
    size = tuple(img_size) if isinstance(img_size, Sequence) else (img_size, img_size)
    if len(size) not in (2, 3) or not all(isinstance(length, int) and length > 0 for length in size):
        raise ValueError(f"img_size {img_size}: one positive number is expected, or one for each of 2 or 3 axes")
    return size
