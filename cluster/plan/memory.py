"""Memory of one rank by the stage of ZeRO, as DeepSpeed lays it out (Rajbhandari et al., SC 2020, section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cluster.plan.step import Step

STAGES = (0, 1, 2, 3)
_MASTER = 4
_BUCKET = 500_000_000
"""Numbers in a bucket of gradients that are reduced together; DeepSpeed's default of ``reduce_bucket_size``."""
_LIVE = 1_000_000_000
"""Parameters that stage 3 keeps gathered at most; DeepSpeed's default of ``stage3_max_live_parameters``."""


@dataclass(frozen=True)
class Module:
    """What of a module decides its memory.

    Attributes:
        trained: parameters that the optimizer moves.
        frozen: further parameters, such as those of a teacher.
        buffer_bytes: bytes of its buffers.
        state_bytes: bytes that the optimizer remembers of all trained parameters.
        weight_bytes: of a parameter and of its gradient: 4, or 2 where DeepSpeed keeps the network in 16 bits, which
            bf16 by autocast does not.
    """

    trained: int
    frozen: int
    buffer_bytes: int
    state_bytes: int
    weight_bytes: int = 4


@dataclass(frozen=True)
class Memory:
    """Bytes of a rank.

    Attributes:
        stage: of ZeRO.
        weights: parameters and buffers; at stage 3 the own part, and what is gathered of the others at most.
        optimizer: what it remembers, and its own copy of the weights in float32.
        gradients: of parameters, once all are there.
        buckets: in which gradients are reduced.
        activations: images, and what the forward pass leaves for the backward pass; the most at once.
        backward: all that is there at the worst moment of the backward pass.
        update: all that is there at the worst moment of the optimizer's step.
    """

    stage: int
    weights: int
    optimizer: int
    gradients: int
    buckets: int
    activations: int
    backward: int
    update: int

    @property
    def peak(self) -> int:
        """The most at once."""
        return max(self.backward, self.update)


def memory(module: Module, step: Step, *, stage: int, ranks: int, zero: Mapping[str, Any]) -> Memory:
    """The memory of a rank in a step.

    Args:
        module: what is trained.
        step: a step of this rank.
        stage: of ZeRO.
        ranks: over which it is split.
        zero: the section ``zero_optimization`` of the DeepSpeed document.
    """
    size, parts = module.weight_bytes, ranks if stage else 1
    gradients = size * module.trained
    own = gradients // parts if stage >= 2 else gradients
    # At stage 0 the optimizer works on the weights themselves, unless these have only 16 bits.
    master = _MASTER * module.trained if stage or size < _MASTER else 0
    optimizer = (master + module.state_bytes) // parts
    weights = size * (module.trained + module.frozen) + module.buffer_bytes
    if stage == 3:
        live = min(module.trained + module.frozen, int(zero.get("stage3_max_live_parameters", _LIVE)))
        weights = size * ((module.trained + module.frozen) // parts + live) + module.buffer_bytes
    buckets = _buckets(module, stage, ranks, zero)
    fixed = weights + optimizer
    # A bucket of ZeRO is there in the backward pass; the copy of stage 0, all gradients end to end, comes after it.
    backward = fixed + (step.peak_with_gradients if stage < 2 else own + step.peak_bytes) + (buckets if stage else 0)
    # The optimizer gets the gradients of its part end to end in float32, or makes as much on the way.
    flat = _MASTER * module.trained // parts
    update = fixed + own + max(flat, 0 if stage else buckets)
    return Memory(stage, weights, optimizer, own, buckets, step.peak_bytes, backward, update)


def _buckets(module: Module, stage: int, ranks: int, zero: Mapping[str, Any]) -> int:
    if stage == 0:
        return module.weight_bytes * min(module.trained, _BUCKET) if ranks > 1 else 0
    size = int(zero.get("reduce_bucket_size", _BUCKET))
    if not zero.get("contiguous_gradients", True):
        return module.weight_bytes * min(module.trained, size)
    overlap = zero.get("overlap_comm")
    double = stage < 3 and bool(overlap)
    return module.weight_bytes * size * (2 if double else 1)
