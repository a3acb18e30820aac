"""What spawned ranks do in the tests of resuming on another number of workers; importable by them."""

from __future__ import annotations

from pathlib import Path

from pretrain.config import PretrainConfig
from pretrain.engine import run
from tests.pretrain.engine_ranks import zero_document
from tests.pretrain.runs import GroupRuntime

STAGES = (0, 1, 2)


def leg(rank: int, world_size: int, shards: Path, folder: Path, steps: int | None) -> list[int]:
    """A run at every stage, begun or gone on with, for so many steps; the steps of the checkpoints of the last one."""
    for stage in STAGES:
        config = PretrainConfig.model_validate(zero_document(shards, folder / f"stage-{stage}", stage))
        runtime = GroupRuntime(stop_after=steps)
        bundle = run(config, runtime, resume=True)
        assert (bundle is None) == (steps is not None)
    return [step for _, step in runtime.saved]
