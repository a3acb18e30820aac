"""Any model of timm under our contract: the same images in, embedding and tokens out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_shards.support.errors import ConfigError
from pretrain.backbone.contract import Backbone
from pretrain.backbone.position import Spacing
from pretrain.backbone.study import Features, StudyFeatures, StudyImage, check_study
from pretrain.foreign.shapes import Layout, Shapes
from pretrain.foreign.volumes import VOLUMETRIC
from pretrain.metadata import Metadata


class TimmBackbone(Backbone):
    """A model of timm without its classifier.

    The embedding is ``forward_head(forward_features(x), pre_logits=True)``, the tokens are the cells of the last
    feature map, or the patch tokens of a transformer. Where the head of a model changes the width, as that of
    MobileNetV3 does, the embedding is the mean of the tokens. A model whose features have no place in the image has
    one token, its embedding.

    Images come in our range, [-1, 1], and are given the mean and deviation of the model's own ``pretrained_cfg``. A
    single channel is repeated to ``in_chans`` of them; with equal means and deviations that is what timm's conversion
    of the first convolution to one channel (``in_chans=1``) computes. Sizes that the model does not take are resized
    on the device, see :meth:`~pretrain.foreign.shapes.Shapes.layout`. Organ, modality, task and spacing are not read.
    The embedding of a study of several images is the mean of theirs.

    Args:
        model: made by timm with ``num_classes=0``.
        architecture: name by which timm makes it, without tag.
        model_args: arguments it was made with.
        shapes: what sizes it takes.
    """

    scale_C: Tensor
    shift_C: Tensor

    def __init__(self, model: nn.Module, architecture: str, model_args: Mapping[str, Any], shapes: Shapes) -> None:
        super().__init__()
        self.model: Any = model
        self.architecture, self.model_args = architecture, dict(model_args)
        self.voxel_mm = None
        cfg: Any = model.pretrained_cfg
        self.pretrained_cfg = cfg
        self.in_chans = in_chans_of(model)
        self.img_size = shapes.nominal
        own: Any = model
        self.embed_dim = int(own.num_features)
        self.stride = shapes.stride
        self._shapes = shapes
        # Tokens go through it on their way to the embedding: a place for hooks.
        self.last = nn.Identity()
        mean_C, std_C = (_each(cfg[name], self.in_chans) for name in ("mean", "std"))
        # ((x + 1) / 2 - mean) / std, as one multiplication and one addition.
        self.register_buffer("scale_C", 0.5 / std_C, persistent=False)
        self.register_buffer("shift_C", (0.5 - mean_C) / std_C, persistent=False)

    @property
    def network(self) -> nn.Module:
        """The model itself."""
        found: nn.Module = self.model
        return found

    def reads(self, size: Sequence[int]) -> tuple[int, ...]:
        """See :meth:`pretrain.backbone.contract.Backbone.reads`; sizes that the model does not take are changed."""
        return self._layout(size).read

    def cells(self, size: Sequence[int]) -> tuple[int, ...]:
        """See :meth:`pretrain.backbone.contract.Backbone.cells`."""
        return self._layout(size).grid

    def features(
        self, images: Tensor, metadata: Metadata | None = None, spacing_mm: Spacing = None, *, dense: bool = False
    ) -> Features:
        """See :meth:`pretrain.backbone.contract.Backbone.features`.

        Raises:
            ValueError: see :func:`~pretrain.backbone.study.check_study`.
            ConfigError: the model reads neither such images nor resized ones.
        """
        found = self.study([StudyImage(images, None, spacing_mm)], metadata, dense=dense)
        return Features(found.embedding_BD, found.tokens[0] if dense else None, found.grids[0], found.voxels[0])

    def study(
        self, images: Sequence[StudyImage], metadata: Metadata | None = None, *, dense: bool = False
    ) -> StudyFeatures:
        """See :meth:`pretrain.backbone.contract.Backbone.study`; images that are not there are not looked at.

        Raises:
            ValueError: see :func:`~pretrain.backbone.study.check_study`.
            ConfigError: the model reads neither such images nor resized ones.
        """
        if metadata is None and images and isinstance(first := images[0].images, Tensor):
            metadata = Metadata.uniform(first.shape[:1].numel(), device=first.device)
        check_study(images, metadata, self.scale_C.dtype)
        embeddings, tokens, layouts = [], [], []
        for image in images:
            layout = self._layout(image.images.shape[2:])
            embedding_BD, tokens_BTD = self._present(image, layout)
            embeddings.append(embedding_BD)
            tokens.append(tokens_BTD)
            layouts.append(layout)
        there_SB = torch.stack([_there(image) for image in images]).to(embeddings[0].dtype)
        embedding_BD = embeddings[0]
        if len(images) > 1:
            embedding_BD = torch.einsum("sb,sbd->bd", there_SB / there_SB.sum(0).clamp_min(1), torch.stack(embeddings))
        grids, voxels = tuple(layout.grid for layout in layouts), tuple(layout.read for layout in layouts)
        return StudyFeatures(embedding_BD, tuple(tokens) if dense else (), grids, voxels)

    @property
    def places_pool(self) -> bool:
        """Whether the embedding is made of the tokens: there are some, and no class token is read in their place."""
        layout = self._layout(self.img_size)
        return layout.prefix >= 0 and (not layout.pools or getattr(self.model, "global_pool", "avg") != "token")

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """See :meth:`pretrain.backbone.contract.Backbone.set_grad_checkpointing`.

        Raises:
            ConfigError: the model does not do that.
        """
        try:
            self.model.set_grad_checkpointing(enable)
        except (AttributeError, AssertionError):
            if enable:
                raise ConfigError(f"{self.architecture}: timm's model has no gradient checkpointing") from None

    def no_weight_decay(self) -> set[str]:
        """What the model exempts, by its names in this module."""
        return {f"model.{name}" for name in undecayed(self.model)}

    def _layout(self, size: Sequence[int]) -> Layout:
        if len(size) != len(self.img_size):
            found = "x".join(map(str, size))
            if len(self.img_size) == 3:
                raise ConfigError(f"{self.architecture} reads volumes, the images are {found}")
            raise ConfigError(
                f"{self.architecture} reads planes, the images are {found}; {', '.join(VOLUMETRIC)} and the networks "
                "medformer_* read volumes, or let it read their slices, with slices in the document of a fine-tuning"
            )
        return self._shapes.layout(size)

    def _present(self, image: StudyImage, layout: Layout) -> tuple[Tensor, Tensor]:
        """Embedding and tokens of the images that are there, zeros of the others."""
        if image.present_B is None:
            return self._encoded(image.images, layout)
        rows = image.present_B.nonzero()[:, 0]
        count = len(image.images)
        found = self._encoded(image.images[rows], layout) if len(rows) else None
        if found is None:
            empty = image.images.new_zeros(count, self.embed_dim)
            return empty, empty[:, None].expand(-1, layout.cells, -1)
        embedding_BD, tokens_BTD = (each.new_zeros(count, *each.shape[1:]).index_copy(0, rows, each) for each in found)
        return embedding_BD, tokens_BTD

    def _encoded(self, images: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        self._check_statistics(len(images), layout)
        features = self.model.forward_features(self._prepared(images, layout.read))
        tokens_BTD = layout.tokens(features)
        if tokens_BTD is not None:
            tokens_BTD = self.last(tokens_BTD)
            features = layout.features(tokens_BTD, features)
        if not layout.pools:
            assert tokens_BTD is not None, "Shapes refuses such a network"
            return tokens_BTD.mean(dim=1), tokens_BTD
        embedding_BD: Tensor = self.model.forward_head(features, pre_logits=True)
        return embedding_BD, embedding_BD[:, None] if tokens_BTD is None else tokens_BTD

    def _prepared(self, images: Tensor, read: tuple[int, ...]) -> Tensor:
        """With the channels, range and size that the model reads."""
        channels, axes = images.shape[1], images.ndim - 2
        if channels not in (1, self.in_chans):
            raise ConfigError(
                f"{self.architecture} reads {self.in_chans} channels, the images have {channels}; set "
                f"in_chans={channels}"
            )
        if tuple(images.shape[2:]) != read:
            mode = "bilinear" if axes == 2 else "trilinear"
            images = F.interpolate(images, read, mode=mode, antialias=axes == 2, align_corners=False)
        scale, shift = (each.view(-1, *(1,) * axes) for each in (self.scale_C, self.shift_C))
        return torch.addcmul(shift, images, scale)

    def _check_statistics(self, count: int, layout: Layout) -> None:
        """Refuse a training batch of one image of one cell to batch normalisation, which has nothing to compare."""
        if self.training and count == 1 and layout.cells == 1:
            norms = (each for each in self.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm))
            if any(norm.training for norm in norms):
                raise ConfigError(
                    f"{self.architecture} has batch normalisation, which in training needs more than one image of a "
                    f"size in a batch; {layout.read} voxels are a single cell"
                )


def undecayed(model: Any) -> set[str]:
    """Names of parameters that a model of timm exempts from weight decay."""
    return set(model.no_weight_decay()) if hasattr(model, "no_weight_decay") else set()


def in_chans_of(model: nn.Module) -> int:
    """Channels that a model of timm reads."""
    cfg: Any = model.pretrained_cfg
    return int(getattr(model, "in_chans", None) or cfg["input_size"][0])


def _each(values: Sequence[float], channels: int) -> Tensor:
    """One value for each channel: as given, or their mean when there are other channels than they are of."""
    given = torch.tensor(values, dtype=torch.float32)
    return given if len(given) == channels else given.mean().expand(channels).clone()


def _there(image: StudyImage) -> Tensor:
    if image.present_B is not None:
        return image.present_B
    return torch.ones(len(image.images), dtype=torch.bool, device=image.images.device)
