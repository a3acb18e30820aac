"""What can be told of a run before anything is started for it: its data, its model and what it goes on from."""

from __future__ import annotations

from collections.abc import Sequence

from data_shards.intensity import BYTES
from pretrain.bundle import bundle_rules
from pretrain.config import PretrainConfig
from pretrain.data import check_dataset, check_objectives, node_cache, open_datasets, rules_of, stages_of
from pretrain.intensity import TrainedOn, difference, shown_shape
from pretrain.module import without_values
from pretrain.objectives import OBJECTIVES, check_parameters
from pretrain.optim import create_optimizer
from pretrain.probes.probe import open_probes
from pretrain.resumption import check_resumption, check_workers_may_change
from pretrain.saving.courier import check_copies
from pretrain.sharding import zero_stage


def check(config: PretrainConfig, world_size: int, *, resume: bool, least: int | None = None) -> None:
    """Do what every worker does first, as far as it takes a second and neither memory nor other processes.

    The workers do it again: their machines may see other files. What the document says by itself comes before its
    data, which may lie far away or not be there yet.

    Args:
        config: the run.
        world_size: how many workers there will be at most.
        resume: whether it goes on from what lies in ``config.out``.
        least: how few workers there may be; None when their number is fixed.

    Raises:
        ConfigError: the document does not fit the data, or the model, an objective or the optimizer cannot be made.
        DataError: shards are missing or cut off.
        CheckpointError: what lies in ``config.out`` is of another run; the changed keys are named.
    """
    stage = zero_stage(config)
    if least not in (None, world_size):
        check_workers_may_change(config)
    if resume:
        for workers in {least or world_size, world_size}:
            check_resumption(config, workers)
    check_copies(config.checkpoint, resume=resume)
    module = without_values(config)
    create_optimizer(module, config.optimizer, stage)
    datasets = open_datasets(config)
    for dataset in datasets:
        check_dataset(dataset, config, world_size)
    stages_of(config, datasets)
    open_probes(config.probes, node_cache(config.data.reading), config.data.crop)
    check_objectives(config, datasets, module.backbone)


def remarks(config: PretrainConfig) -> list[str]:
    """What does not stop a run and should be known before it: images that come by another rule than the weights know.

    Raises:
        MedformerError: as for :func:`check`, which comes first.
    """
    known: dict[str, Sequence[TrainedOn]] = {}
    if (start := config.model.init_from) is not None and start.is_dir():
        known["model.init_from"] = bundle_rules(start)
    for name, parameters in config.objectives.items():
        used = OBJECTIVES[name].uses(check_parameters(name, parameters))
        known |= {f"objectives.{name}.{key}": rules for key, rules in used.items()}
    if not known:
        return []
    datasets = open_datasets(config)
    shapes = [shown_shape(dataset, BYTES) for dataset in datasets]  # as they are stored
    said = [
        f"{key}: {each}"
        for key, rules in known.items()
        for dataset, shape, rule in zip(datasets, shapes, rules_of(config, datasets), strict=True)
        for modality in dataset.manifest.vocabulary.get("modality", ())
        if (each := difference(rules, modality, shape[0], rule))
    ]
    return list(dict.fromkeys(said))
