"""What a training checkpoint and a model bundle take on disk."""

from __future__ import annotations

from cluster.plan.memory import Module

_MASTER = 4


def checkpoint_bytes(module: Module, stage: int) -> int:
    """Bytes of the tensors of one training checkpoint, of all ranks together; headers come to some 100 KiB.

    Args:
        module: what is trained.
        stage: of ZeRO: from 1 on the optimizer keeps weights of its own, in float32.
    """
    weights = module.weight_bytes * (module.trained + module.frozen) + module.buffer_bytes
    return weights + module.state_bytes + (_MASTER * module.trained if stage else 0)
