"""The Medformer backbone: a Perceiver IO whose latents are selected by organ, modality, dimensionality and task.

input adapter -> encoder cross-attention -> latent self-attention -> decoder cross-attention with output queries
(Perceiver IO, Jaegle et al., ICLR 2022, figure 2). Shapes: ``B`` samples, ``T`` input tokens, ``N`` latents, ``Q``
queries, ``D`` channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pretrain.backbone.adapters import ImageAdapter
from pretrain.backbone.attention import CrossAttentionLayer, SelfAttentionLayer
from pretrain.backbone.bare import Repeated, Rows
from pretrain.backbone.embedding import embedding_reader
from pretrain.backbone.latents import COLLECTIONS, LatentArray, grow_rows
from pretrain.backbone.position import REFERENCE_MM, Grid, Spacing
from pretrain.backbone.resampling import at_spacing, rows_of_one_size, study_rows
from pretrain.backbone.study import Encoded, Features, StudyFeatures, StudyImage, checked, mask_of
from pretrain.backbone.timm_model import TimmModel, check_size
from pretrain.backbone.visible import Visible
from pretrain.metadata import Metadata


class Medformer(TimmModel):
    """Perceiver IO with latent collections, for planes and volumes, in timm's model contract.

    Args:
        img_size: nominal size, for timm's configuration, one number or one for each axis; any size is accepted at run
            time, and planes and volumes alike.
        in_chans: canonical number of channels; images of another number are accepted, see
            :func:`~pretrain.backbone.stems.channels_as`.
        num_classes: outputs of the linear classifier; 0 for none.
        global_pool: ``token`` (the embedding query) or ``avg`` (mean of the dense tokens).
        embed_dim: channels of tokens, latents and embedding.
        depth: latent self-attention layers.
        num_heads: heads of every attention.
        latents: shared latents.
        latents_per_entry: latents of each vocabulary entry (organ, modality, dimensionality, task).
        cross_attends: how often the latents attend to the tokens: before the first layer, and again at even distances.
        embedding: ``latents``, what the latents answer to the embedding query (figure 2 of the paper); or what else it
            is made of, ``reads_tokens`` or ``pooled_tokens``: :func:`~pretrain.backbone.embedding.embedding_reader`.
        stem: ``hmlp``, ``conv``, ``patch`` or ``pixel``, see :mod:`~pretrain.backbone.stems`.
        stem_width: channels of the first map of ``hmlp`` and ``conv``; None follows ``embed_dim``.
        stride: pixels per input token along each axis; None follows ``img_size``, see :func:`nominal_stride`.
        mlp_ratio: widening of the MLPs.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last latent layer; earlier layers have proportionally less.
        voxel_mm: distance of voxels at which the network reads images: those of known spacing are brought to it along
            every axis before the stem. None reads every image as it is.

    Raises:
        ValueError: an argument does not fit the others; it is named.
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
        cross_attends: int = 1,
        embedding: str = "latents",
        stem: str = "hmlp",
        stem_width: int | None = None,
        stride: int | None = None,
        mlp_ratio: float = 4.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        voxel_mm: float | None = None,
    ) -> None:
        stride = nominal_stride(img_size, stem) if stride is None else stride
        super().__init__(img_size, in_chans, embed_dim, depth, stride)
        if not 1 <= cross_attends <= max(depth, 1):
            raise ValueError(f"cross_attends {cross_attends} with {depth} layers; 1 to {max(depth, 1)} are possible")
        if not 0 <= drop_path_rate < 1:
            raise ValueError(f"drop_path_rate {drop_path_rate}: at least 0 and below 1 is expected")
        self.voxel_mm = voxel_mm
        self.adapter = ImageAdapter(in_chans, embed_dim, stride, stem, stem_width)
        self._stem = stem
        self._model_args |= self.stem_args  # what timm saves
        self.latents = LatentArray(latents, latents_per_entry, embed_dim)
        self.encoder = CrossAttentionLayer(embed_dim, embed_dim, num_heads, mlp_ratio)
        rates = [drop_path_rate * number / max(depth - 1, 1) for number in range(depth)]
        self.blocks = nn.ModuleList([SelfAttentionLayer(embed_dim, num_heads, mlp_ratio, rate) for rate in rates])
        self.query = nn.Parameter(torch.zeros(1, embed_dim))
        self.decoder = CrossAttentionLayer(embed_dim, embed_dim, num_heads, mlp_ratio)
        self.norm = nn.LayerNorm(embed_dim)
        self.head_drop = nn.Dropout(drop_rate)
        self.tags = nn.Parameter(torch.zeros(len(COLLECTIONS["modality"]), embed_dim))
        self.encoders_again = nn.ModuleDict(
            {
                str(n * depth // cross_attends): CrossAttentionLayer(embed_dim, embed_dim, num_heads, mlp_ratio)
                for n in range(1, cross_attends)
            }
        )
        self.repeated, self.rows = Repeated(), Rows()
        self.apply(initialise)
        nn.init.normal_(self.query, std=0.02)
        self.reader = embedding_reader(embedding, embed_dim, num_heads, mlp_ratio)
        if self.reader is not None:  # after the others, which have the same weights with it and without
            self.reader.apply(initialise)
        self.reset_classifier(num_classes, global_pool)

    @property
    def stem_args(self) -> dict[str, Any]:
        """``stem`` and ``stride`` as arguments, see :class:`~pretrain.backbone.contract.Backbone`."""
        return {"stem": self._stem, "stride": self.stride}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        grow_rows(state_dict, f"{prefix}tags", self.tags)
        super()._load_from_state_dict(state_dict, prefix, *others)

    def features(
        self,
        images: Tensor,
        metadata: Metadata | None = None,
        spacing_mm: Spacing = None,
        *,
        dense: bool = False,
    ) -> Features:
        """Encode a batch of single images.

        Args:
            images: normalised (see :func:`~pretrain.backbone.normalise`), ``B,C,H,W`` or ``B,C,D,H,W``.
            metadata: what is known of each image; None for nothing.
            spacing_mm: distance between slices, rows and columns, one for all or one per image; None when unknown.
            dense: also decode one token per cell of the input grid.

        Raises:
            ValueError: see :func:`~pretrain.backbone.study.check_study`.
        """
        modality_B = metadata.modality_B if isinstance(metadata, Metadata) else None
        found = self.study([StudyImage(images, modality_B, spacing_mm)], metadata, dense=dense)
        return Features(found.embedding_BD, found.tokens[0] if dense else None, found.grids[0], found.voxels[0])

    def study(
        self, images: Sequence[StudyImage], metadata: Metadata | None = None, *, dense: bool = False
    ) -> StudyFeatures:
        """Encode a batch of subjects with several images each; their order does not matter.

        Args:
            images: the images, of any shapes, planes beside volumes.
            metadata: organ and task of each subject; its modality is not used, each image has its own.
            dense: also decode one token per cell of every image.

        Raises:
            ValueError: see :meth:`encode`; without ``dense``, subjects may differ in spacing.
        """
        if self.voxel_mm is not None and not dense:
            metadata = checked(images, metadata, self.query.dtype)
            if len(rows := rows_of_one_size(images, self.voxel_mm)) > 1:
                return self._by_size(images, metadata, rows)
        encoded = self.encode(images, metadata)
        embedding_BD, answers_BQD = self.answer(encoded, encoded.tokens if dense else ())
        tokens: tuple[Tensor, ...] = ()
        if dense:
            tokens = answers_BQD.split([tokens_BTD.shape[1] for tokens_BTD in encoded.tokens], dim=1)
        grids = encoded.grids
        return StudyFeatures(
            embedding_BD, tokens, tuple(grid.cells for grid in grids), tuple(grid.voxels for grid in grids)
        )

    def _by_size(self, images: Sequence[StudyImage], metadata: Metadata, groups: Sequence[Tensor]) -> StudyFeatures:
        """Subjects whose images become of different sizes, group by group; see :func:`rows_of_one_size`."""
        found = [self.study(*study_rows(images, metadata, rows)) for rows in groups]
        embedding_BD = torch.cat([features.embedding_BD for features in found])
        order_B = torch.cat(list(groups)).argsort().to(embedding_BD.device)
        return replace(found[0], embedding_BD=embedding_BD[order_B])

    def encode(
        self,
        images: Sequence[StudyImage],
        metadata: Metadata | None = None,
        *,
        stages: Sequence[int] = (),
        stop_early: bool = False,
        visible: Visible | None = None,
    ) -> Encoded:
        """Let the latents read the images of a study.

        Args:
            images: see :meth:`study`.
            metadata: see :meth:`study`.
            stages: layers, counted from 0, after which the latents are kept.
            stop_early: leave out the layers after the last of the stages.
            visible: of the one image of the study, the patches that are read; None reads all of it.

        Raises:
            ValueError: see :func:`~pretrain.backbone.study.check_study`, or see
                :func:`~pretrain.backbone.resampling.at_spacing`; or patches of a study of several images.
        """
        if visible is not None and len(images) != 1:
            raise ValueError(f"visible patches of a study of {len(images)} images; of one they can be told")
        metadata = checked(images, metadata, self.query.dtype)
        if self.voxel_mm is not None:
            images = [at_spacing(image, self.voxel_mm) for image in images]
        kinds = [image.kind for image in images]
        pairs = [self.adapter(image.images, image.spacing_mm, visible) for image in images]
        tokens = tuple(
            tokens_BTD + self.rows(self.tags, kind.modality_B)[:, None].to(tokens_BTD.dtype)
            for (tokens_BTD, _), kind in zip(pairs, kinds, strict=True)
        )
        tokens_BTD = torch.cat(tokens, dim=1) if len(tokens) > 1 else tokens[0]
        mask_BT = mask_of(images, tokens)
        latents_BND = self.latents(metadata, kinds).to(tokens_BTD.dtype)
        latents_BND = self._run(self.encoder, latents_BND, tokens_BTD, mask_BT)
        kept = []
        for number, block in enumerate(self.blocks):
            if str(number) in self.encoders_again:
                latents_BND = self._run(self.encoders_again[str(number)], latents_BND, tokens_BTD, mask_BT)
            latents_BND = self._run(block, latents_BND)
            if number in stages:
                kept.append(latents_BND)
                if stop_early and len(kept) == len(stages):
                    break
        return Encoded(latents_BND, tokens, tuple(grid for _, grid in pairs), tuple(kept), mask_BT)

    def answer(
        self,
        encoded: Encoded,
        queries: Sequence[Tensor] = (),
        *,
        latents_BND: Tensor | None = None,
        norm: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """The embedding ``B, D``, and what the latents answer to further queries, ``B, Q, D``.

        Args:
            encoded: of :meth:`encode`.
            queries: ``B, Q, D`` each, see :meth:`decode`; their answers stand side by side.
            latents_BND: those that answer, such as one of its stages; None for the last ones.
            norm: apply the last LayerNorm.
        """
        latents_BND = encoded.latents_BND if latents_BND is None else latents_BND
        asked_BQD = self.repeated(self.query, latents_BND.shape[0]).to(latents_BND.dtype)
        answers_BQD = self.decode(latents_BND, torch.cat([asked_BQD, *queries], dim=1), norm=False)
        answers_BQD = self.embedded(answers_BQD, encoded, latents_BND)
        if norm:
            answers_BQD = self.norm(answers_BQD)
        return answers_BQD[:, 0], answers_BQD[:, 1:]

    def embedded(self, answers_BQD: Tensor, encoded: Encoded, latents_BND: Tensor) -> Tensor:
        """The answers ``B, Q, D`` before the last LayerNorm, the first of which becomes the embedding.

        Args:
            answers_BQD: of the latents.
            encoded: what else the embedding may be made of.
            latents_BND: that answered.
        """
        if self.reader is None:
            return answers_BQD
        tokens_BTD = torch.cat(encoded.tokens, dim=1)
        found_B1D = self._run(self.reader, answers_BQD[:, :1], tokens_BTD, encoded.mask_BT)
        return torch.cat([found_B1D, answers_BQD[:, 1:]], dim=1)

    def decode(self, latents_BND: Tensor, queries_BQD: Tensor, *, norm: bool = True) -> Tensor:
        """The answer ``B, Q, D`` of the latents to any queries.

        Args:
            latents_BND: of :meth:`encode`.
            queries_BQD: such as :attr:`query`, the tokens of :meth:`encode`, or ``adapter.at(points_mm)``.
            norm: apply the last LayerNorm.
        """
        answers_BQD: Tensor = self.decoder(queries_BQD, latents_BND)
        return self.norm(answers_BQD) if norm else answers_BQD

    def place_queries(self, grid: Grid, modality_B: Tensor, spacing_mm: Spacing = None) -> Tensor:
        """Queries ``B, T, D`` for the cells of a grid that say where a cell is and nothing of what it shows.

        Args:
            grid: of :meth:`encode`.
            modality_B: ids of :class:`~data_shards.vocabulary.Modality`.
            spacing_mm: of the image, see :data:`~pretrain.backbone.position.Spacing`.
        """
        coordinates = grid.coordinates(spacing_mm, modality_B.device)
        return self.adapter.at(coordinates * (REFERENCE_MM / 2)) + self.rows(self.tags, modality_B)[:, None]

    def _run(self, layer: nn.Module, *inputs: Tensor | None) -> Tensor:
        if self.grad_checkpointing and self.training:
            return checkpoint(layer, *inputs, use_reentrant=False)
        return layer(*inputs)


def nominal_stride(img_size: int | Sequence[int], stem: str | None = None) -> int:
    """Pixels per token along each axis: 4 for images of less than 48, 8 up to 256, 16 beyond; 1 for ``pixel``.

    Args:
        img_size: nominal size of the images; its longest axis counts.
        stem: its kind; None for any but ``pixel``.

    Raises:
        ValueError: it is not one positive number, or two, or three.
    """
    longest = max(check_size(img_size))
    if stem == "pixel":
        return 1
    return 4 if longest < 48 else 8 if longest <= 256 else 16


def initialise(module: nn.Module) -> None:
    """New weights of a linear layer, for ``apply``."""
    # Xavier, as in the reference ViT: with a standard deviation of 0.02 the first attention adds less to the latents
    # than they hold to begin with, and all images start with nearly the same embedding.
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
