"""Which views objectives ask for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from data_shards.support.documents import Document
from data_shards.support.errors import ConfigError
from pretrain.views.config import ViewConfig
from pretrain.views.transforms.crop import Areas


class SmallViews(Document):
    """Further views of a small part of each image, at fewer pixels (multi-crop; Caron et al., NeurIPS 2020).

    Attributes:
        count: how many; 0 for none.
        size: their side as a fraction of that of the image.
        scale: the smallest and the largest area of the crop, as a fraction of the image.
    """

    count: Annotated[int, Field(ge=0, le=32)] = 0
    size: Annotated[float, Field(ge=0.125, le=1)] = 0.5
    scale: Areas = (0.05, 0.25)


@dataclass(frozen=True)
class ViewRequest:
    """What one objective asks for.

    Attributes:
        full: augmented views of the whole size; 2 is the most.
        small: further small ones; None for none.
        clean: whether it also asks for a view that is cropped, turned and mirrored as the first one is, with its
            intensities as they are.
        differing: whether it learns nothing where its views of the whole size are the same and are all it has.
    """

    full: int = 2
    small: SmallViews | None = None
    clean: bool = False
    differing: bool = True

    def check_views(self, views: ViewConfig, shape: tuple[int, ...]) -> None:
        """Refuse augmentation that leaves two views the same where they must differ.

        Args:
            views: augmentation of the dataset.
            shape: of each image, ``C,H,W`` or ``C,D,H,W``.

        Raises:
            ConfigError: it does.
        """
        alone = self.small is None or not self.small.count
        if self.full > 1 and self.differing and alone and not views.differ(shape):
            raise ConfigError(
                f"views leave no transform that changes images of {shape}, and it needs two views that differ; "
                "switch one on"
            )


@dataclass(frozen=True)
class ViewPlan:
    """What is drawn for several objectives; where they ask for the same they get the same.

    Attributes:
        full: augmented views of the whole size.
        small: of each kind of small views, under size and scale, the largest number that is asked for.
        clean: whether the clean view is drawn.
    """

    full: int
    small: tuple[SmallViews, ...]
    clean: bool

    @classmethod
    def of(cls, requests: Iterable[ViewRequest]) -> ViewPlan:
        """All that is asked for, each thing once."""
        requests = list(requests)
        counts: dict[SmallViews, int] = {}
        for small in (request.small for request in requests if request.small is not None and request.small.count):
            counts[kind_of(small)] = max(counts.get(kind_of(small), 0), small.count)
        return cls(
            max((request.full for request in requests), default=0),
            tuple(kind.model_copy(update={"count": count}) for kind, count in counts.items()),
            any(request.clean for request in requests),
        )


def kind_of(small: SmallViews) -> SmallViews:
    """What small views of the same kind have in common: all but their number."""
    return small.model_copy(update={"count": 0})
