"""What a transform is, and how one is found by its name.

Images are planes ``B,C,H,W`` or volumes ``B,C,D,H,W`` of float32 in [0, 1]. Coordinates are those of
:func:`torch.nn.functional.grid_sample`: x, y and z along width, height and depth, from -1 to 1 at the outer edges.

Transforms come in three kinds: a :class:`Move` gives an affine map of coordinates, a :class:`Warp` displaces them, and
a :class:`Change` changes values where they are. All moves and warps together are one resampling; changes follow it.
Within a kind the ``order`` of the classes counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import Tensor

from data_shards.support.documents import Document
from data_shards.support.registry import Registry

Probability = Annotated[float, Field(ge=0, le=1)]


class TransformConfig(Document):
    """Parameters of a transform."""

    def acts_on(self, shape: tuple[int, ...]) -> bool:
        """Whether it changes anything.

        Args:
            shape: of each image, ``C,H,W`` or ``C,D,H,W``.
        """
        return True


class SometimesConfig(TransformConfig):
    """Parameters of a transform that is applied to some images only.

    Attributes:
        probability: of applying it, for each image by itself.
    """

    probability: Probability = 0.8


@dataclass(frozen=True)
class Draws:
    """The random numbers of a transform for the images of a batch: functions of its name and of the key of each.

    Attributes:
        u_BK: numbers in [0, 1), as many for each image as the transform says in ``draws``; float64.
        keys_B: keys of a further stream, for numbers beyond those: fields, noise. See :mod:`pretrain.views.random`.
    """

    u_BK: Tensor
    keys_B: Tensor


@dataclass(frozen=True)
class Frame:
    """What maps of coordinates refer to.

    Attributes:
        size: pixels along x, y and, of volumes, z.
        extent_BA: how long each image is along these axes: in mm where its spacing is known, else in pixels; float64.
    """

    size: tuple[int, ...]
    extent_BA: Tensor

    @property
    def axes(self) -> int:
        """2 or 3."""
        return len(self.size)


class Transform:
    """One way to change images, each by its own random numbers.

    A subclass is a :class:`Move`, a :class:`Warp` or a :class:`Change`, names its parameters in ``Config`` and
    registers itself with :func:`transform`. It works on the device of the images, waits for none of its values, and
    gives an image the same values in whatever batch it is.

    Args:
        config: its parameters.
    """

    Config: ClassVar[type[TransformConfig]] = TransformConfig
    name: ClassVar[str]
    order: ClassVar[int]
    """Transforms of a kind are applied in the order of these numbers, and of their names where they are equal."""
    draws: ClassVar[int] = 0
    """How many uniform numbers it needs for each image."""
    on: ClassVar[bool] = False
    """Whether it is applied, with the defaults of its parameters, where a document does not name it."""

    def __init__(self, config: TransformConfig) -> None:
        self.config = config

    @classmethod
    def check_data(cls, config: Any, shape: tuple[int, ...]) -> None:
        """Refuse images that it is not for; called before training, for every dataset.

        Args:
            config: its parameters.
            shape: of each image, ``C,H,W`` or ``C,D,H,W``.

        Raises:
            ConfigError: what was found and what is expected.
        """


class Move(Transform):
    """A transform that is an affine map of coordinates, from those of the view to those of the image."""

    def maps(self, draws: Draws, frame: Frame) -> Tensor:
        """The map of each image, ``B, A, A + 1`` float64, as :func:`torch.nn.functional.affine_grid` reads it."""
        raise NotImplementedError


class Warp(Transform):
    """A transform that moves each place of the view by a little, before the moves."""

    def displacement(self, draws: Draws, frame: Frame) -> Tensor:
        """How far along x, y and z, ``B, A, H, W`` or ``B, A, D, H, W`` float32."""
        raise NotImplementedError


class Change(Transform):
    """A transform of the values of images that have been resampled."""

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """The changed images; those that are given may be overwritten.

        Values may leave [0, 1]: one that needs the range clamps, and so does the end.
        """
        raise NotImplementedError


TRANSFORMS: Registry[Transform] = Registry("transform", plugins="medformer.transforms")
transform = TRANSFORMS.register
