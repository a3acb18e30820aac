"""How good a fine-tuning is by its labels alone: what a search for hyper-parameters may look at."""

from __future__ import annotations

from pathlib import Path

from data_shards.support.errors import ConfigError, DataError
from data_shards.vocabulary import Task
from finetune.backbones import BundleReference, open_backbone
from finetune.classifier.estimate import REPEATS, cross_validated, scored_on
from finetune.classifier.estimator import FewLabelClassifier, FewLabelRegressor
from finetune.classifier.unlabelled import check_unlabelled
from finetune.config import FinetuneConfig
from finetune.heads import check_head
from finetune.runs import read
from finetune.strategies import create_strategy
from finetune.subsets import Budget, draw
from finetune.windows import window_of_fit


def check(config: FinetuneConfig) -> None:
    """See that a fine-tuning can be judged within its labels.

    Raises:
        ConfigError: it asks for no estimate, or for unlabelled images, which are not read here.
        MedformerError: its head or strategy cannot be used.
    """
    check_head(config.head, config.head_options, Task[config.task])
    create_strategy(config.strategy, config.strategy_options)
    check_unlabelled(config.stepper, given=config.unlabelled is not None)
    if config.unlabelled is not None:
        raise ConfigError("unlabelled: a search does not read unlabelled images; leave the key and its stepper out")
    if not config.folds:
        raise ConfigError("folds: 0 leaves out the estimate that trials are judged by")


def estimated(config: FinetuneConfig, backbone: str | Path) -> dict[str, float]:
    """The scores of a fine-tuning on its validation split, or by cross-validation within its training split.

    A test split is not looked at: what is chosen by it says nothing of new subjects any more.

    Args:
        config: what to do.
        backbone: ``config.model`` as a local folder, or the name of a fresh network.

    Returns:
        The score of each metric by its name.

    Raises:
        MedformerError: the data or the model cannot be used.
    """
    splits = read(config.data, config)
    if "train" not in splits or splits["train"].labels is None:
        raise DataError(f"{config.data}: no labels in a train split")
    given = splits["train"].shared()
    if config.per_class is not None or config.fraction is not None:
        given = given[draw(given, Budget(per_class=config.per_class, fraction=config.fraction), config.seed).positions]
    source = BundleReference(str(backbone), called=config.model) if Path(backbone).is_dir() else backbone
    kind = FewLabelClassifier if given.target.classifies else FewLabelRegressor
    model = kind(
        source,
        organ=given.organ.name,
        modality=given.modality.name,
        seed=config.seed,
        device=config.device,
        **config.params | {"window": window_of_fit(config, open_backbone(source, config.seed), given)},
    )
    if "val" in splits:
        model.fit(given)
        found = scored_on(model, splits["val"], seed=config.seed, name="val")
    else:
        trains = create_strategy(config.strategy, config.strategy_options).trains_backbone
        repeats = config.repeats or (1 if trains else REPEATS)
        found = cross_validated(model, given, folds=config.folds, repeats=repeats, seed=config.seed)
    scores = found.scores
    return {each.name: scores.metric(each.name).estimate for each in scores.kinds}
