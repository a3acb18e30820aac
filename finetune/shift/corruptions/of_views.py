"""Corruptions by the operators that augment views in pretraining, each at the far end of what it draws."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from finetune.shift.base import Corruption, register_corruption
from pretrain.views.random import uniforms
from pretrain.views.transforms import TRANSFORMS, Change, Draws


class OfViews(Corruption):
    """A transform of views at a fixed strength.

    Attributes:
        transform: its name.
        parameter: the one that the amount is.
        end: which end of what it draws is taken: 1 for the upper one, 0 for the lower one.
    """

    transform: ClassVar[str]
    parameter: ClassVar[str]
    end: ClassVar[float] = 1.0

    def changed(self, images: Tensor, keys_B: Tensor, amount: float) -> Tensor:
        """The transform, applied to every image; what it draws beside its strength follows from the key."""
        kind = TRANSFORMS[self.transform]
        transform = kind(kind.Config(**{"probability": 1.0, self.parameter: amount}))
        assert isinstance(transform, Change)
        return transform(images, Draws(self.drawn(keys_B, max(kind.draws, 1)), keys_B))

    def drawn(self, keys_B: Tensor, count: int) -> Tensor:
        """Uniform numbers of each image, float64 ``(B, count)``: it is changed, and by as much as can be."""
        u_BK = uniforms(keys_B, max(count, 2))
        u_BK[:, 0], u_BK[:, 1] = 0.0, self.end
        return u_BK[:, :count]


@register_corruption("noise")
class Noise(OfViews):
    """Gaussian noise: less dose, a shorter exposure."""

    words = "Gaussian noise, as of less dose or a shorter exposure"
    unit = "standard deviation, share of the range"
    amounts = (0.02, 0.05, 0.1, 0.15, 0.25)
    transform, parameter = "noise", "strength"


@register_corruption("rician")
class Rician(OfViews):
    """Rician noise: magnitude images of a weaker field."""

    words = "Rician noise of magnitude images, as of a weaker field"
    unit = "standard deviation of either part, share of the range"
    amounts = (0.02, 0.05, 0.1, 0.15, 0.25)
    transform, parameter = "rician", "strength"


@register_corruption("bias_field")
class BiasField(OfViews):
    """Uneven sensitivity of a coil, uneven illumination."""

    words = "a smooth factor, as of uneven coil sensitivity or illumination"
    unit = "largest logarithm of the factor"
    amounts = (0.2, 0.4, 0.6, 0.8, 1.2)
    transform, parameter = "bias_field", "strength"


@register_corruption("blur")
class Blur(OfViews):
    """Gaussian blur: a softer kernel, a larger focal spot, motion."""

    words = "Gaussian blur, as of a soft kernel or a large focal spot"
    unit = "standard deviation, pixels or voxels"
    amounts = (0.5, 0.75, 1.0, 1.5, 2.0)
    transform, parameter = "blur", "sigma_px"


@register_corruption("contrast")
class Contrast(OfViews):
    """Less contrast around the mean of the image."""

    words = "less contrast, as of a wider window or scatter"
    unit = "share that is lost"
    amounts = (0.2, 0.35, 0.5, 0.65, 0.8)
    transform, parameter, end = "contrast", "strength", 0.0


@register_corruption("gamma")
class Gamma(OfViews):
    """Another curve from signal to intensity."""

    words = "another curve of intensities, which darkens"
    unit = "exponent less 1"
    amounts = (0.2, 0.4, 0.8, 1.4, 2.2)
    transform, parameter = "gamma", "strength"


@register_corruption("brightness")
class Brightness(OfViews):
    """All intensities are raised."""

    words = "all intensities raised, as of over-exposure"
    unit = "share of the range"
    amounts = (0.05, 0.1, 0.2, 0.3, 0.45)
    transform, parameter = "brightness", "strength"


@register_corruption("thick_slices")
class ThickSlices(OfViews):
    """Lower resolution across slices; of planes across rows."""

    words = "thicker slices, interpolated back; of planes lower resolution across rows"
    unit = "thickness, voxels"
    amounts = (1.5, 2.0, 3.0, 4.0, 6.0)
    transform, parameter = "anisotropy", "factor"

    def drawn(self, keys_B: Tensor, count: int) -> Tensor:
        """The third says along which axis: the first, whatever the key says."""
        u_BK = super().drawn(keys_B, count)
        u_BK[:, 2] = 0.0
        return u_BK
