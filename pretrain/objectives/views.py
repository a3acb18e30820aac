"""The augmented views of one batch, as objectives receive them, and what networks make of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from pretrain.backbone import Backbone, Features, Medformer, StudyImage
from pretrain.backbone.position import Grid, Spacing
from pretrain.backbone.visible import Visible, cells_of, padded_grid, patch_grid
from pretrain.metadata import Metadata
from pretrain.objectives.chunks import Make, in_chunks
from pretrain.objectives.requests import SmallViews, kind_of
from pretrain.views.random import stream, uniforms

T = TypeVar("T")
_HIDING = "hiding"
"""The stream that says which patches are hidden."""


@dataclass(frozen=True, eq=False)
class View:
    """One view of each image of the batch; what networks make of it is kept under its identity.

    Attributes:
        images: normalised, ``B,C,H,W`` or ``B,C,D,H,W``, own rows only.
        metadata: what the network is told of each.
        spacing_mm: see :class:`Views`.
        keys_B: 64 random bits for each image and view, int64, of which an objective may draw whatever it needs from
            streams of names of its own (see :mod:`pretrain.views.random`): the same on any number of ranks.
    """

    images: Tensor
    metadata: Metadata
    spacing_mm: Spacing
    keys_B: Tensor

    def part(self, rows: slice) -> View:
        """Some of its images."""
        metadata = Metadata(self.metadata.organ_B[rows], self.metadata.modality_B[rows], self.metadata.task_B[rows])
        spacing_mm = self.spacing_mm[rows] if isinstance(self.spacing_mm, Tensor) else self.spacing_mm
        return View(self.images[rows], metadata, spacing_mm, self.keys_B[rows])


@dataclass(frozen=True)
class Source:
    """The images that views were made of.

    Attributes:
        images: normalised, not augmented.
        sample_B: index of each in its dataset.
        dataset: position of that in the mixture.
        subject_B: index of the subject of each; None where the batch does not say.
        metadata: what is known of each, nothing dropped.
        spacing_mm: distance of voxels.
    """

    images: Tensor
    sample_B: Tensor
    dataset: int
    subject_B: Tensor | None
    metadata: Metadata
    spacing_mm: Spacing


@dataclass(frozen=True)
class Partial:
    """What a network makes of images some patches of which it did not see.

    Attributes:
        embedding_BD: one vector per image.
        answers_BQD: what it expects at the tokens of the hidden patches.
        hidden_BQ: which tokens these are, in row-major order of ``grid``.
        grid: tokens of all patches; it may reach beyond the image.
    """

    embedding_BD: Tensor
    answers_BQD: Tensor
    hidden_BQ: Tensor
    grid: Grid


@dataclass
class Views:
    """The views of a batch that its objectives have asked for.

    Attributes:
        images: one tensor of normalised images per view of the whole size, ``B,C,H,W`` or ``B,C,D,H,W``, own rows
            only. A coarser view has fewer pixels than the others.
        metadata: one per view, since metadata dropout differs between views.
        rows: how many images of the global batch each rank holds.
        spacing_mm: one per view: distance of the voxels of its image, times how much coarser the view is; see
            :data:`~pretrain.backbone.position.Spacing`. The crop of a view changes its scale too, along each axis by
            another factor, and when it is rotated no spacing along its axes describes it: so that is not counted.
        keys: one array of keys per view, see :class:`View`.
        small: the small views of each kind.
        clean: the first view with its intensities as they are; None when no objective asks for it.
        source: what the views were made of.
        micro_batch: how many images' views go through a network at once; None for all. Objectives get the same.
    """

    images: tuple[Tensor, ...]
    metadata: tuple[Metadata, ...]
    rows: tuple[int, ...]
    spacing_mm: tuple[Spacing, ...]
    keys: tuple[Tensor, ...] = ()
    small: Mapping[SmallViews, tuple[View, ...]] = field(default_factory=dict)
    clean: View | None = None
    source: Source | None = None
    micro_batch: int | None = None
    _made: dict[Any, Any] = field(default_factory=dict, repr=False)

    @property
    def total_rows(self) -> int:
        """Images in the global batch."""
        return sum(self.rows)

    @cached_property
    def full(self) -> tuple[View, ...]:
        """The views of the whole size, each by itself."""
        none = (torch.zeros(len(images), dtype=torch.int64, device=images.device) for images in self.images)
        keys = self.keys or tuple(none)
        return tuple(View(*view) for view in zip(self.images, self.metadata, self.spacing_mm, keys, strict=True))

    @property
    def first(self) -> View:
        """The view that is looked at when a run is watched."""
        found = self.full[0] if self.full else self.clean
        assert found is not None, "every objective asks for a view"
        return found

    def embeddings(self, backbone: Backbone) -> tuple[Tensor, ...]:
        """The embedding ``B, D`` of each view of the whole size.

        Computed once per network, gradient mode and training mode, so that objectives that share views share the
        cost, and none gets what another has made without gradient or in evaluation.
        """
        return self._embeddings("full", backbone, self.full)

    def small_embeddings(self, backbone: Backbone, small: SmallViews) -> tuple[Tensor, ...]:
        """The embedding ``B, D`` of each of the small views that were asked for as ``small``; likewise only once."""
        if not small.count:
            return ()
        kind = kind_of(small)
        return self._embeddings(("small", kind), backbone, self.small[kind])[: small.count]

    def features(self, backbone: Backbone, view: View, *, dense: bool = False) -> Features:
        """What ``backbone`` makes of one view, of those here or of one that an objective has changed; only once."""

        def make(rows: slice) -> Features:
            part = view.part(rows)
            return backbone.features(part.images, part.metadata, part.spacing_mm, dense=dense)

        return self._once((view, dense), backbone, make, view.images)

    def partial(self, backbone: Backbone, view: View, share: float, cells: int) -> Partial:
        """What ``backbone`` makes of a view when it does not see a share of its patches; only once.

        Which patches are hidden is a function of the keys of the view.

        Args:
            backbone: the network.
            view: one of those here.
            share: of the patches that are hidden; one at least is hidden, and one seen.
            cells: tokens along each side of a patch.

        Raises:
            ValueError: the image is a single patch.
        """

        def make(rows: slice) -> Partial:
            return _partial(backbone, view.part(rows), share, cells)

        return self._once((view, share, cells), backbone, make, view.images)

    def by_rows(self, make: Make[T], like: Tensor) -> T:
        """What a head makes of own rows when it treats each by itself and needs much memory: as many as fit at once.

        Args:
            make: see :func:`~pretrain.objectives.chunks.in_chunks`.
            like: has own rows.
        """
        return in_chunks(make, like, self.micro_batch)

    def embedded(self, backbone: Backbone) -> tuple[Tensor, ...] | None:
        """What :meth:`embeddings` has given an objective that trains ``backbone``; None when none has asked."""
        return self._made.get(("full", backbone, True, True))

    def _embeddings(self, what: Any, backbone: Backbone, views: Sequence[View]) -> tuple[Tensor, ...]:
        def make(rows: slice) -> tuple[Tensor, ...]:
            return _embeddings(backbone, [view.part(rows) for view in views])

        return self._once(what, backbone, make, views[0].images)

    def _once(self, what: Any, backbone: Backbone, make: Make[T], like: Tensor) -> T:
        key = (what, backbone, torch.is_grad_enabled(), backbone.training)
        if key not in self._made:
            self._made[key] = in_chunks(make, like, self.micro_batch)
        found: T = self._made[key]
        return found


def _embeddings(backbone: Backbone, views: Sequence[View]) -> tuple[Tensor, ...]:
    if len({view.images.shape for view in views}) > 1:
        return tuple(backbone.features(view.images, view.metadata, view.spacing_mm).embedding_BD for view in views)
    metadata = Metadata(
        torch.cat([view.metadata.organ_B for view in views]),
        torch.cat([view.metadata.modality_B for view in views]),
        torch.cat([view.metadata.task_B for view in views]),
    )
    # Views of one shape are of one resolution, so they have the same spacing.
    spacing_mm = views[0].spacing_mm
    if isinstance(spacing_mm, Tensor):
        spacing_mm = spacing_mm.repeat(len(views), 1)
    images = torch.cat([view.images for view in views])
    found: tuple[Tensor, ...] = backbone.features(images, metadata, spacing_mm).embedding_BD.chunk(len(views))
    return found


def _partial(backbone: Backbone, view: View, share: float, cells: int) -> Partial:
    assert isinstance(backbone, Medformer), "objectives that hide patches refuse other networks"
    stem = backbone.adapter.stem
    size = tuple(view.images.shape[2:])
    count = math.prod(patch_grid(size, stem.stride * cells))
    if count < 2:
        raise ValueError(f"images of {size} voxels are a single patch of {stem.stride * cells}; none can be hidden")
    hidden = min(max(round(share * count), 1), count - 1)
    order_BP = uniforms(stream(view.keys_B, _HIDING), count).argsort(dim=1, stable=True)
    hidden_BP, seen_BP = (part.sort(dim=1).values for part in (order_BP[:, :hidden], order_BP[:, hidden:]))
    study = StudyImage(view.images, view.metadata.modality_B, view.spacing_mm)
    encoded = backbone.encode([study], view.metadata, visible=Visible(seen_BP, cells))
    grid = padded_grid(size, stem.stride, stem.offset, cells)
    hidden_BQ = cells_of(hidden_BP, grid, cells)
    places_BTD = backbone.place_queries(grid, view.metadata.modality_B, view.spacing_mm)
    asked_BQD = places_BTD.gather(1, hidden_BQ[..., None].expand(-1, -1, places_BTD.shape[-1]))
    embedding_BD, answers_BQD = backbone.answer(encoded, [asked_BQD.to(encoded.latents_BND.dtype)])
    return Partial(embedding_BD, answers_BQD, hidden_BQ, grid)
