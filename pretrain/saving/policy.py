"""Which checkpoints stay: the newest, the best, and every so many steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol, TypeVar

from data_shards.support.errors import ConfigError, nearest
from pretrain.checkpoint import CheckpointStore
from pretrain.config import CheckpointConfig, KeepBest


class Numbered(Protocol):
    """A checkpoint, wherever it lies."""

    @property
    def step(self) -> int:
        """Optimizer steps that were taken."""

    @property
    def attempt(self) -> int:
        """Of the run that wrote it."""


N = TypeVar("N", bound=Numbered)


def retired(found: Collection[N], config: CheckpointConfig, metrics_of: Callable[[N], Mapping[str, float]]) -> list[N]:
    """The checkpoints that are no longer kept, oldest first.

    Args:
        found: every complete checkpoint.
        config: how many of the newest and of the best stay, and of which steps.
        metrics_of: what was logged at the step of a checkpoint; asked only where the best are kept.
    """
    ordered = sorted(found, key=lambda each: (each.step, each.attempt))
    kept = set(map(_key, ordered[-config.keep :]))
    if config.keep_every_steps is not None:
        kept |= {_key(each) for each in ordered if each.step % config.keep_every_steps == 0}
    if config.keep_best is not None:
        kept |= set(map(_key, _best(ordered, config.keep_best, metrics_of)))
    return [each for each in ordered if _key(each) not in kept]


def _best(ordered: Sequence[N], best: KeepBest, metrics_of: Callable[[N], Mapping[str, float]]) -> list[N]:
    """Those with the best values; of equal ones the newer. One without a finite value is not ranked."""
    sign = 1.0 if best.mode == "max" else -1.0
    ranked = []
    for place, each in enumerate(ordered):
        value = metrics_of(each).get(best.metric)
        if value is not None and math.isfinite(value):
            ranked.append((sign * value, place))
    return [ordered[place] for _, place in sorted(ranked, reverse=True)[: best.count]]


def _key(each: Numbered) -> tuple[int, int]:
    return each.step, each.attempt


def retire(store: CheckpointStore, config: CheckpointConfig) -> None:
    """Remove the checkpoints that are no longer kept.

    Raises:
        CheckpointError: what one of them says of itself is damaged.
        MedformerError: the disk refuses.
    """
    for old in retired(store.complete(), config, lambda each: each.state().get("metrics", {})):
        store.remove(old)


def check_metric(best: KeepBest | None, logged: Collection[str], probed: bool) -> None:
    """See that the metric by which the best checkpoints are chosen is one of those that are logged.

    Args:
        best: the choice; None asks for nothing.
        logged: names of what was logged.
        probed: whether the scores of probes are among them.

    Raises:
        ConfigError: it is not; the nearest one is named.
    """
    if best is None or best.metric in logged or (not probed and best.metric.startswith("probe/")):
        return
    raise ConfigError(
        f"checkpoint.keep_best.metric: nothing is logged as {best.metric!r}{nearest(best.metric, logged)}"
    )
