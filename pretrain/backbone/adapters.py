"""The input adapter: from pixels to the tokens that the latents attend to."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.backbone.bare import Product
from pretrain.backbone.plain import is_plain, is_taken
from pretrain.backbone.position import REFERENCE_MM, FourierPosition, Grid, Spacing
from pretrain.backbone.stems import create_stem, with_gradient
from pretrain.backbone.visible import Visible, cells_of, cut_visible, padded_grid


class ImageAdapter(nn.Module):
    """Tokens of planes and volumes: what a stem makes, with Fourier features of where each token lies in mm.

    A plane lies at depth 0. What the depth adds to a volume is zero there, and zero everywhere in a new network, so a
    volume of one slice gives the tokens of its slice.

    Args:
        in_chans: canonical number of channels.
        dim: channels of the tokens.
        stride: pixels per token along each axis.
        stem: ``hmlp``, ``conv``, ``patch`` or ``pixel``.
        stem_width: channels of the first map of ``hmlp`` and ``conv``.
    """

    def __init__(self, in_chans: int, dim: int, stride: int, stem: str = "hmlp", stem_width: int | None = None) -> None:
        super().__init__()
        self.stem = create_stem(stem, in_chans, dim, stride, stem_width)
        self.position = FourierPosition(axes=2)
        self.depth = FourierPosition(axes=1)
        self.proj = nn.Linear(self.position.channels + (0 if self.stem.mapped else dim), dim)
        self.proj_depth = nn.Parameter(torch.zeros(dim, self.depth.channels))
        self.product = Product()

    def forward(
        self, images: Tensor, spacing_mm: Spacing = None, visible: Visible | None = None
    ) -> tuple[Tensor, Grid]:
        """Tokens ``B, T, dim`` in row-major order, and their grid.

        Args:
            images: normalised, ``B,C,H,W`` or ``B,C,D,H,W``, of any size of at least one pixel.
            spacing_mm: distance between slices, rows and columns; None when unknown.
            visible: the patches that are read; their tokens come patch by patch, and the grid is that of all patches.
                None reads the whole image.
        """
        if visible is not None:
            return self._visible(images, spacing_mm, visible)
        features = self.stem(images)
        grid = Grid(tuple(features.shape[2:]), tuple(images.shape[2:]), self.stem.stride, self.stem.offset)
        content_BTC = features.flatten(2).transpose(1, 2)
        return self._tokens(content_BTC, grid.coordinates(spacing_mm, images.device)), grid

    def _visible(self, images: Tensor, spacing_mm: Spacing, visible: Visible) -> tuple[Tensor, Grid]:
        stride = self.stem.stride
        features = self.stem(cut_visible(images, visible, stride))
        content_BTC = features.flatten(2).transpose(1, 2).reshape(len(images), -1, features.shape[1])
        grid = padded_grid(tuple(images.shape[2:]), stride, self.stem.offset, visible.cells)
        coordinates = grid.coordinates(spacing_mm, images.device)
        chosen_BT = cells_of(visible.patch_BP, grid, visible.cells)
        if coordinates.ndim == 2:
            coordinates = coordinates[chosen_BT]
        else:
            coordinates = coordinates.gather(1, chosen_BT[..., None].expand(-1, -1, coordinates.shape[-1]))
        return self._tokens(content_BTC, coordinates), grid

    def at(self, points_mm: Tensor) -> Tensor:
        """What tokens at these places would be without content: queries for anywhere.

        Args:
            points_mm: ``..., Q, A``, from the centre of the image, depth first when there are three axes.

        Returns:
            ``..., Q, dim``.

        Raises:
            ValueError: the last axis has neither two nor three coordinates.
        """
        if points_mm.ndim < 2 or points_mm.shape[-1] not in (2, 3):
            raise ValueError(f"points_mm has shape {tuple(points_mm.shape)}, ..., Q, 2 or ..., Q, 3 is expected")
        content = self.proj_depth.new_zeros(*points_mm.shape[:-1], len(self.proj_depth))
        return self._tokens(content, points_mm * (2 / REFERENCE_MM))

    def _tokens(self, content: Tensor, coordinates: Tensor) -> Tensor:
        """Tokens of content ``..., T, dim``: mapped together with its place, or the sum where the stem mapped it."""
        places = self.position(coordinates[..., -2:]).to(content.dtype)
        planar = coordinates.shape[-1] == 2
        taken = is_taken(self.product)  # by something that asks what each sample adds: nothing is shared between them
        depth = None if planar else self._depth(coordinates[..., :1], content, alone=taken)
        if self.stem.mapped:
            places = with_gradient(places, self.proj_depth) if planar else places
            each = taken or is_taken(self.proj)
            position = self.proj(places.expand(*content.shape[:-1], -1) if each else places)
            return content + (position if depth is None else position + depth)
        if taken or not is_plain(self.proj):
            places = with_gradient(places, self.proj_depth) if planar else places
            tokens: Tensor = self.proj(torch.cat([content, places.expand(*content.shape[:-1], -1)], dim=-1))
            return tokens if depth is None else tokens + depth
        # Places are the same for all images of a batch, or for all of a spacing: their part is computed once, and the
        # content need not be copied to stand beside them.
        of_content, of_places = self.proj.weight.split([content.shape[-1], places.shape[-1]], dim=1)
        bias = with_gradient(self.proj.bias, self.proj_depth) if planar else self.proj.bias
        position = F.linear(places, of_places, bias)
        return F.linear(content, of_content) + (position if depth is None else position + depth)

    def _depth(self, depth: Tensor, content: Tensor, *, alone: bool) -> Tensor:
        change = (self.depth(depth) - self.depth(torch.zeros_like(depth))).to(content.dtype)
        if alone:
            change = change.expand(*content.shape[:-1], -1)
        added: Tensor = self.product(change, self.proj_depth)
        return added
