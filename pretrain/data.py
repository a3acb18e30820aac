"""The datasets and the sample stream that a pretraining document describes."""

from __future__ import annotations

from collections.abc import Sequence

from data_shards.intensity import BYTES, Rule
from data_shards.order.mixture import Mixture, Stage
from data_shards.order.plan import temperature_weights
from data_shards.reading.cropped import CroppedDataset
from data_shards.reading.reader import ShardedDataset
from data_shards.storage import Cache
from data_shards.stream.sample_stream import SampleStream
from data_shards.support.errors import ConfigError
from data_shards.support.files import home_folder
from pretrain.backbone import Backbone
from pretrain.config import DataConfig, DatasetConfig, PretrainConfig, ReadingConfig
from pretrain.intensity import TrainedOn, dataset_rule, shown_shape
from pretrain.objectives import OBJECTIVES, check_parameters
from pretrain.objectives.base import requested
from pretrain.objectives.chunks import check_rows_apart
from pretrain.runtime import Runtime
from pretrain.views.policy import Ruled, under_policy

_GIB = 1 << 30


def open_datasets(config: PretrainConfig) -> list[ShardedDataset]:
    """The training split of every dataset; of volumes the crops, where the document asks for them.

    Raises:
        ConfigError: crops are asked for, and no dataset has volumes.
        DataError: a folder, split or image is not there, or volumes cannot be cropped as asked.
    """
    cache = node_cache(config.data.reading)
    found = [_opened(each, config, cache) for each in config.data.datasets]
    if config.data.crop is not None and not any(isinstance(each, CroppedDataset) for each in found):
        names = ", ".join(each.folder for each in found)
        raise ConfigError(f"data.crop: crops are of volumes, and there are planes alone: {names}; leave it out")
    return found


def _opened(section: DatasetConfig, config: PretrainConfig, cache: Cache) -> ShardedDataset:
    dataset = ShardedDataset(section.path, "train", image=section.image, cache=cache)
    crop = config.data.crop
    if crop is None or not dataset.volumetric:
        return dataset
    whole = config.data.reading.whole_shards
    if whole is None:
        whole = dataset.shard_bytes <= cache.limit_bytes
    return CroppedDataset(
        section.path,
        "train",
        crop,
        seed=config.seed,
        image=section.image,
        cache=cache,
        whole=whole,
        rule=section.intensity,
    )


def open_stream(config: PretrainConfig, datasets: Sequence[ShardedDataset], runtime: Runtime) -> SampleStream:
    """The stream of this worker.

    Raises:
        ConfigError: images that the engine cannot take, a dataset too small for the batch size and workers, or a full
            shuffle of remote shards that do not fit in the cache.
    """
    data, reading = config.data, config.data.reading
    for dataset in datasets:
        check_dataset(dataset, config, runtime.world_size)
    return SampleStream(
        datasets,
        batch_size=data.batch_size,
        seed=config.seed,
        rank=runtime.rank,
        world_size=runtime.world_size,
        weights=_weights(data, datasets),
        locality=data.locality,
        stages=stages_of(config, datasets),
        readers=reading.readers,
        reader_kind=reading.kind,
        prefetch=reading.prefetch,
        pin_memory=reading.pin_memory if reading.pin_memory is not None else runtime.device.type == "cuda",
        lookahead=reading.lookahead,
    )


def check_dataset(dataset: ShardedDataset, config: PretrainConfig, world_size: int) -> None:
    """See that the engine can train on a dataset.

    Raises:
        ConfigError: as for :func:`open_stream`.
    """
    shown_shape(dataset, BYTES)
    batch_size = config.data.batch_size
    smallest = len(dataset) // -(-len(dataset) // batch_size)
    if smallest < 2 * world_size:
        raise ConfigError(
            f"{dataset.folder}: {len(dataset)} images in batches of at most {batch_size} are too few "
            f"for {world_size} workers: each needs two images of every batch"
        )
    size, limit = dataset.shard_bytes, config.data.reading.cache_gib * _GIB
    if dataset.remote and not dataset.in_parts and config.data.locality is None and size > limit:
        raise ConfigError(
            f"{dataset.folder}: {size / _GIB:.1f} GiB of shards in a cache of {limit / _GIB:.1f} GiB: with a full "
            "shuffle they would be fetched again and again; give data.locality, or a larger data.reading.cache_gib"
        )


def rules_of(config: PretrainConfig, datasets: Sequence[ShardedDataset]) -> list[Rule]:
    """How the values of every dataset become the range of the network.

    Raises:
        ConfigError: a dataset has values that no rule is given for, or the rule is not for them.
    """
    sections = enumerate(config.data.datasets)
    return [
        dataset_rule(each, section.intensity, key=f"data.datasets.{number}.intensity")
        for each, (number, section) in zip(datasets, sections, strict=True)
    ]


def shapes_of_images(config: PretrainConfig, datasets: Sequence[ShardedDataset]) -> list[tuple[int, ...]]:
    """Shape of the images of every dataset as views and the network see it.

    Raises:
        ConfigError: as for :func:`rules_of`, or images are of several sizes or dtypes.
    """
    pairs = zip(datasets, rules_of(config, datasets), strict=True)
    return [shown_shape(dataset, rule) for dataset, rule in pairs]


def trained_on(config: PretrainConfig, datasets: Sequence[ShardedDataset]) -> list[TrainedOn]:
    """What the bundle says of how values were read; what several datasets have in common once."""
    found: list[TrainedOn] = []
    for dataset, rule, shape in zip(
        datasets, rules_of(config, datasets), shapes_of_images(config, datasets), strict=True
    ):
        modality = tuple(sorted(dataset.manifest.vocabulary.get("modality", ())))
        each = TrainedOn(modality=modality, channels=shape[0], rule=rule)
        found += [each] if each not in found else []
    return found


def views_of(config: PretrainConfig, datasets: Sequence[ShardedDataset]) -> list[Ruled]:
    """The augmentation of every dataset, as its policy allows it.

    Raises:
        ConfigError: as for :func:`shapes_of_images`; or the document asks for what a policy forbids; the dataset is
            named.
    """
    found = []
    shapes = shapes_of_images(config, datasets)
    for dataset, section, shape in zip(datasets, config.data.datasets, shapes, strict=True):
        words = dataset.manifest.vocabulary
        try:
            found.append(
                under_policy(section.views or config.views, words.get("organ", ()), words.get("modality", ()), shape)
            )
        except ConfigError as error:
            raise ConfigError(f"{dataset.folder}: {error}") from None
    return found


def check_objectives(config: PretrainConfig, datasets: Sequence[ShardedDataset], backbone: Backbone) -> None:
    """See that every objective can be trained on every dataset.

    Raises:
        ConfigError: one cannot; objective and dataset are named. Or the network cannot be trained in micro-batches.
    """
    if config.data.micro_batch_size is not None:
        check_rows_apart(backbone)
    shapes = shapes_of_images(config, datasets)
    for dataset, ruled, shape in zip(datasets, views_of(config, datasets), shapes, strict=True):
        views = ruled.views
        try:
            views.check_data(shape)
        except ConfigError as error:
            raise ConfigError(f"{dataset.folder}: {error}") from None
        for name, parameters in config.objectives.items():
            try:
                requested(name, parameters).check_views(views, shape)
                OBJECTIVES[name].check_data(check_parameters(name, parameters), shape, views, backbone)
            except ConfigError as error:
                raise ConfigError(f"objectives.{name}: {dataset.folder}: {error}") from None


def stages_of(config: PretrainConfig, datasets: Sequence[ShardedDataset]) -> list[Stage] | None:
    """The curriculum in steps; None without one.

    Raises:
        ConfigError: a stage is shorter than a step, or a weight too small for a batch.
    """
    if config.data.curriculum is None:
        return None
    turns = [-(-len(dataset) // config.data.batch_size) for dataset in datasets]
    total = run_steps(config, sum(turns))
    stages, first = [], 0
    for number, stage in enumerate(config.data.curriculum, start=1):
        last = round(stage.until * total)
        if last <= first:
            raise ConfigError(f"data.curriculum: stage {number} has none of the {total} steps of the run")
        stages.append(Stage(first, tuple(stage.weights)))
        first = last
    Mixture([dataset.card.name for dataset in datasets], turns, config.seed, stages)
    return stages


def run_steps(config: PretrainConfig, batches_per_epoch: int) -> int:
    """Optimizer steps of the whole run."""
    total = config.schedule.epochs * batches_per_epoch
    return min(total, config.schedule.max_steps or total)


def _weights(data: DataConfig, datasets: Sequence[ShardedDataset]) -> list[float] | None:
    if data.temperature is not None:
        return temperature_weights([len(dataset) for dataset in datasets], data.temperature)
    weights = [dataset.weight for dataset in data.datasets if dataset.weight is not None]
    return weights or None


def at_once(config: PretrainConfig, world_size: int) -> int:
    """How many images a worker puts through the network at once."""
    rows = -(-config.data.batch_size // world_size)
    return min(rows, config.data.micro_batch_size or rows)


def node_cache(reading: ReadingConfig) -> Cache:
    """Where remote shards are kept."""
    folder = reading.cache if reading.cache is not None else home_folder() / "cache"
    return Cache(folder, int(reading.cache_gib * _GIB))
