"""How views are augmented: parameters of every transform by its name."""

from __future__ import annotations

import functools
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import Field, SerializationInfo, create_model, model_serializer, model_validator

from data_shards.support.documents import Document
from data_shards.support.errors import ConfigError, nearest
from pretrain.views.transforms import TRANSFORMS, Change, Transform, TransformConfig

Factor = Annotated[float, Field(ge=1, le=8)]
C = TypeVar("C", bound=TransformConfig)


class ViewConfig(Document):
    """Parameters of the augmentation.

    In a document the parameters of a transform stand under its name, beside the keys below: ``{rotation: {degrees: 5},
    noise: null}``. One that is left out has its defaults, ``null`` or a strength of zero switches it off.

    Attributes:
        transforms: parameters of every transform by its name; None where it is switched off.
        padding: what lies outside the image: ``border`` repeats the edge, ``reflection`` mirrors.
        coarser: how many times as long as those of the image the pixels or voxels of the first and of the second view
            are. A coarser view is the average over its larger pixels, has fewer of them, and the network is told their
            spacing where that of the image is known.
        slices: whether the first and the second view of a volume is one slice of it, a plane, from the middle half of
            its depth (after rotation, tilt and crop). With one of each, a network that is given volumes alone is asked
            to read planes too.
        policy: what is allowed for images of an organ and a modality, see :mod:`pretrain.views.policy`; None asks none.
    """

    transforms: dict[str, TransformConfig | None] = Field(default_factory=dict, validate_default=True)
    padding: Literal["border", "reflection"] = "reflection"
    coarser: tuple[Factor, Factor] = (1.0, 1.0)
    slices: tuple[bool, bool] = (False, False)
    policy: Literal["medical"] | None = "medical"

    @classmethod
    def key_types(cls) -> dict[str, Any]:
        """Names of transforms, and the keys that stand beside them."""
        own = {name: field.annotation for name, field in cls.model_fields.items() if name != "transforms"}
        return {**{name: each.Config for name, each in TRANSFORMS.items()}, **own}

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        own = {name: value for name, value in content.items() if name in cls.model_fields and name != "transforms"}
        named = {name: value for name, value in content.items() if name not in own}
        for name in named:
            try:
                TRANSFORMS.named(name)
            except ConfigError:
                raise ValueError(f"unknown transform {name!r}{nearest(name, cls.key_types())}") from None
        parameters = _parameters(tuple(TRANSFORMS.items())).model_validate(named)
        return {**own, "transforms": dict(parameters)}

    @model_serializer(mode="plain")
    def _nested(self, info: SerializationInfo) -> dict[str, Any]:
        named = {
            name: None if each is None else each.model_dump(mode=info.mode) for name, each in self.transforms.items()
        }
        both = [list(pair) if info.mode == "json" else pair for pair in (self.coarser, self.slices)]
        return {**named, "padding": self.padding, "coarser": both[0], "slices": both[1], "policy": self.policy}

    def of(self, config: type[C]) -> C | None:
        """Parameters of the transform whose ``Config`` it is; None where it is switched off."""
        found = [each for each in self.transforms.values() if isinstance(each, config)]
        return found[0] if found else None

    def changed(self, **changes: Any) -> ViewConfig:
        """The same with other parameters of some transforms, or other values of the keys beside them."""
        return ViewConfig.model_validate({**self.model_dump(), **changes})

    def moved_only(self) -> ViewConfig:
        """The same place of the image, its intensities as they are."""
        return self.changed(**{name: None for name in self.transforms if issubclass(TRANSFORMS[name], Change)})

    def acting_on(self, shape: tuple[int, ...]) -> list[Transform]:
        """The transforms that change such images, in the order in which they are applied within their kinds.

        Args:
            shape: of each image, ``C,H,W`` or ``C,D,H,W``.
        """
        chosen = [
            TRANSFORMS[name](each) for name, each in self.transforms.items() if each is not None and each.acts_on(shape)
        ]
        return sorted(chosen, key=lambda each: (each.order, each.name))

    def check_data(self, shape: tuple[int, ...]) -> None:
        """Refuse images that a transform is not for.

        Args:
            shape: of each image, ``C,H,W`` or ``C,D,H,W``.

        Raises:
            ConfigError: the transform is named, and what it expects.
        """
        for each in self.acting_on(shape):
            try:
                each.check_data(each.config, shape)
            except ConfigError as error:
                raise ConfigError(f"views.{each.name}: {error}") from None

    def differ(self, shape: tuple[int, ...]) -> bool:
        """Whether the first and the second view of such images may differ."""
        unlike = self.coarser[0] != self.coarser[1] or (len(shape) == 4 and self.slices[0] != self.slices[1])
        return unlike or (len(shape) == 4 and all(self.slices)) or bool(self.acting_on(shape))


@functools.lru_cache(maxsize=8)
def _parameters(transforms: tuple[tuple[str, type[Transform]], ...]) -> type[Document]:
    """A model with a key for each transform."""
    fields: dict[str, Any] = {
        name: (each.Config | None, each.Config() if each.on else None) for name, each in transforms
    }
    return cast(type[Document], create_model("Transforms", __base__=Document, **fields))


IDENTITY = ViewConfig.model_validate(dict.fromkeys(TRANSFORMS))
"""No augmentation at all."""
