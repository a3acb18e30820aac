"""Whether a run can go on from what lies in its folder."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain, combinations
from pathlib import Path
from typing import Any

from data_shards.support.documents import CONFIG_FILE
from data_shards.support.errors import CheckpointError, ConfigError
from pretrain.backbone.recorded import STEM_KEYS, as_recorded, before
from pretrain.bundle import FILES
from pretrain.changes import changes, check_keys
from pretrain.checkpoint import STATE, Checkpoint, CheckpointStore
from pretrain.config import PLACE_KEYS, PretrainConfig, run_content, run_digest

_NEEDED = ("step", "config_sha256", "world_size", "zero_stage")


def check_resumption(config: PretrainConfig, world_size: int) -> None:
    """See that the newest checkpoint in ``config.out``, if there is one, is of this run; its tensors are not read.

    Raises:
        CheckpointError: it was written with another document, whose differing keys are named with both values, or by
            a number of workers that has to stay.
    """
    if (checkpoint := CheckpointStore(config.out / "checkpoints").latest()) is not None:
        check_same_run(checkpoint, checkpoint.state(), config, world_size)


def check_same_run(checkpoint: Checkpoint, state: Mapping[str, Any], config: PretrainConfig, world_size: int) -> None:
    """See that a checkpoint is of this run.

    Args:
        checkpoint: the checkpoint.
        state: what it says beside the tensors.
        config: the document of today.
        world_size: number of workers of today.

    Raises:
        CheckpointError: as for :func:`check_resumption`.
    """
    check_keys(state, _NEEDED, str(checkpoint.folder / STATE))
    if state["config_sha256"] not in _digests(config, state):
        raise CheckpointError(
            f"{checkpoint.folder} was written by a run with another configuration"
            f"{changes(config.out, config.model_dump(mode='json'), run_content)}; a resumed run may "
            f"only change {', '.join(PLACE_KEYS)} (compare {config.out / CONFIG_FILE})"
        )
    if state["world_size"] != world_size and (reason := _workers_have_to_stay(config)):
        raise CheckpointError(
            f"{checkpoint.folder}: {reason}; go on with {state['world_size']} workers, not {world_size}"
        )


def check_stem(
    checkpoint: Checkpoint, state: Mapping[str, Any], config: PretrainConfig, stem_args: Mapping[str, Any]
) -> None:
    """See that the network has the stem that it had when the checkpoint was written.

    Args:
        checkpoint: the checkpoint.
        state: what it says beside the tensors; nothing of the stem in those from before its default changed.
        config: the document of today.
        stem_args: of the network of today.

    Raises:
        CheckpointError: it has another one; says what to set.
    """
    then = state.get("stem") or as_recorded(config.model.name, config.model.kwargs)
    if any(then[key] != value for key, value in stem_args.items()):
        words = " ".join(f"model.kwargs.{key}={then[key]}" for key in STEM_KEYS if key in then)
        raise CheckpointError(f"{checkpoint.folder}: the default stem was another one then; go on with {words}")


def _digests(config: PretrainConfig, state: Mapping[str, Any]) -> set[str]:
    """Of the document, and of what it may have been before it had to name the stem that was the default once."""
    found = {run_digest(config)}
    if "stem" in state:
        return found
    named = [key for key, value in before(config.model.name).items() if config.model.kwargs.get(key) == value]
    for left_out in chain.from_iterable(combinations(named, count) for count in range(1, len(named) + 1)):
        kwargs = {key: value for key, value in config.model.kwargs.items() if key not in left_out}
        model = config.model.model_copy(update={"kwargs": kwargs})
        found.add(run_digest(config.model_copy(update={"model": model})))
    return found


def check_workers_may_change(config: PretrainConfig) -> None:
    """See that a run can go on with another number of workers than it began with.

    Raises:
        ConfigError: it cannot; the key is named.
    """
    if reason := _workers_have_to_stay(config):
        raise ConfigError(f"cluster.workers: {config.cluster.workers}: {reason}; give one number of workers")


def _workers_have_to_stay(config: PretrainConfig) -> str | None:
    section = config.deepspeed.get("zero_optimization", {})
    stage = section.get("stage", 0) if isinstance(section, dict) else 0
    if stage in (1, 2) and section.get("round_robin_gradients"):
        return "deepspeed.zero_optimization.round_robin_gradients orders optimizer state by the number of workers"
    return None


def finished_bundle(config: PretrainConfig) -> Path | None:
    """The bundle of a run that has come to its end, or None: it appears complete, as the last thing a run does."""
    folder = config.out / "bundle"
    return folder if all((folder / name).is_file() for name in FILES) else None
