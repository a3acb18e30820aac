"""What a plan has to know of the images of a run: from the manifests of its shards, or told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data_shards.order.plan import temperature_weights
from data_shards.support.errors import ConfigError, DataError
from pretrain.config import PretrainConfig
from pretrain.data import check_dataset, open_datasets, shapes_of_images, stages_of, views_of
from pretrain.views import ViewConfig
from pretrain.views.policy import under_policy


@dataclass(frozen=True)
class Images:
    """One dataset of the mixture.

    Attributes:
        name: of it.
        samples: how many images an epoch of it has; 0 when that was not told.
        shape: of each, ``C,H,W`` or ``C,D,H,W``.
        views: the augmentation that its images get.
    """

    name: str
    samples: int
    shape: tuple[int, ...]
    views: ViewConfig


@dataclass(frozen=True)
class Mixture:
    """The images of a run.

    Attributes:
        sets: the datasets.
        shares: of the steps that each has; their sum is 1.
        epoch_steps: steps of an epoch; None when the number of images was not told.
    """

    sets: tuple[Images, ...]
    shares: tuple[float, ...]
    epoch_steps: int | None


def read_mixture(config: PretrainConfig, ranks: int) -> Mixture:
    """The images as the manifests of the shards say; no pixel is read.

    Args:
        config: the run.
        ranks: workers it is to have.

    Raises:
        DataError: shards are missing; said is what may be told instead of them.
        ConfigError: the document does not fit them.
    """
    try:
        datasets = open_datasets(config)
    except DataError as error:
        raise DataError(f"{error}; without shards give --shape C,H,W or C,D,H,W, and --images") from None
    for dataset in datasets:
        check_dataset(dataset, config, ranks)
    stages_of(config, datasets)
    sets = []
    shapes = shapes_of_images(config, datasets)
    for dataset, ruled, shape in zip(datasets, views_of(config, datasets), shapes, strict=True):
        sets.append(Images(dataset.card.name, len(dataset), shape, ruled.views))
    return _mixture(config, sets)


def told_mixture(config: PretrainConfig, shapes: Sequence[tuple[int, ...]], samples: int | None) -> Mixture:
    """The images as told.

    Args:
        config: the run; what its shards hold is not looked at, its mixture counts for as much as can be known.
        shapes: of the images, one for all datasets or one for each.
        samples: how many images all datasets have together; None when that is not told.

    Raises:
        ConfigError: another number of shapes, or what is no shape.
    """
    given = config.data.datasets
    if len(shapes) not in (1, len(given)):
        raise ConfigError(f"--shape: {len(shapes)} shapes for {len(given)} datasets; give one, or one for each")
    for shape in shapes:
        if len(shape) not in (3, 4) or min(shape) < 1:
            raise ConfigError(f"--shape {','.join(map(str, shape))}: expected C,H,W or C,D,H,W, positive numbers")
    each = list(shapes) * (len(given) if len(shapes) == 1 else 1)
    count = (samples or 0) // len(given)
    if samples is not None and count < 2:
        raise ConfigError(f"--images {samples}: at least two for each of {len(given)} datasets are expected")
    sets = [
        Images(section.path, count, shape, under_policy(section.views or config.views, (), (), shape).views)
        for section, shape in zip(given, each, strict=True)
    ]
    return _mixture(config, sets)


def _mixture(config: PretrainConfig, sets: Sequence[Images]) -> Mixture:
    if not all(each.samples for each in sets):
        return Mixture(tuple(sets), (1 / len(sets),) * len(sets), None)
    turns = [-(-each.samples // config.data.batch_size) for each in sets]
    steps = _weights(config, sets) or turns
    return Mixture(tuple(sets), tuple(count / sum(steps) for count in steps), sum(turns))


def _weights(config: PretrainConfig, sets: Sequence[Images]) -> list[float] | None:
    """Shares of the steps, up to a factor; None when they follow from the sizes."""
    data = config.data
    if data.curriculum is not None:
        shares, begin = [0.0] * len(sets), 0.0
        for stage in data.curriculum:
            length, begin = stage.until - begin, stage.until
            for place, weight in enumerate(stage.weights):
                shares[place] += length * weight / sum(stage.weights)
        return shares
    if data.temperature is not None:
        return list(temperature_weights([each.samples for each in sets], data.temperature))
    return [each.weight for each in data.datasets if each.weight is not None] or None


def distinct(mixture: Mixture) -> Mapping[tuple[tuple[int, ...], str], Images]:
    """One dataset of each kind: those of a kind have images of one shape and the same augmentation."""
    return {(each.shape, each.views.model_dump_json()): each for each in reversed(mixture.sets)}
