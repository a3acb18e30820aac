"""What spawned ranks do under ZeRO 3; importable by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pretrain.config import PretrainConfig
from pretrain.engine import run
from tests.pretrain.runs import GroupRuntime, document

STEPS, STOP = 4, 2


def zero3_document(shards: Path, out: Path, stage: int) -> dict[str, Any]:
    """A run whose weights are all split at stage 3: by default DeepSpeed keeps those below 100,000 numbers whole."""
    section = {"stage": stage, **({"stage3_param_persistence_threshold": 0} if stage == 3 else {})}
    return document(
        shards,
        out,
        schedule={"max_steps": STEPS},
        deepspeed={"zero_optimization": section},
        checkpoint={"every_steps": STOP, "keep": 10},
        objectives={"byol": {"hidden": 16, "out": 8}, "barlow_twins": {"hidden": 16, "out": 16, "weight": 0.1}},
    )


def whole_and_split(rank: int, world_size: int, shards: Path, folder: Path) -> None:
    """The same run at stages 0 and 3, at 3 with a stop and a resumption, and with small weights kept whole."""
    for stage in (0, 3):
        config = PretrainConfig.model_validate(zero3_document(shards, folder / f"stage-{stage}", stage))
        assert run(config, GroupRuntime())
    config = PretrainConfig.model_validate(zero3_document(shards, folder / "stopped", 3))
    assert run(config, GroupRuntime(stop_after=STOP)) is None
    assert run(config, GroupRuntime(), resume=True)
    content = zero3_document(shards, folder / "default", 3)
    del content["deepspeed"]["zero_optimization"]["stage3_param_persistence_threshold"]
    config = PretrainConfig.model_validate(content)
    assert run(config, GroupRuntime(stop_after=STOP)) is None
    assert run(config, GroupRuntime(), resume=True)
