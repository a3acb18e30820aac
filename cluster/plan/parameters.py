"""How many parameters a run has, and whose they are."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from pretrain.module import PretrainModule


@dataclass(frozen=True)
class Counts:
    """Numbers of one part of the module.

    Attributes:
        part: ``backbone``, or an objective by its name.
        trained: parameters that the optimizer moves.
        frozen: parameters that follow by a moving average, or stay as they are.
        buffer_bytes: bytes of what belongs to the module besides.
    """

    part: str
    trained: int
    frozen: int
    buffer_bytes: int


def counted(module: PretrainModule) -> tuple[Counts, ...]:
    """The backbone, and what each objective has of its own: heads, teachers, centres."""
    parts: list[tuple[str, nn.Module]] = [("backbone", module.backbone), *module.objectives.items()]
    return tuple(_counts(name, part) for name, part in parts)


def total(counts: tuple[Counts, ...]) -> Counts:
    """All parts together."""
    return Counts(
        "all",
        sum(each.trained for each in counts),
        sum(each.frozen for each in counts),
        sum(each.buffer_bytes for each in counts),
    )


def _counts(name: str, part: nn.Module) -> Counts:
    numbers = {True: 0, False: 0}
    for parameter in part.parameters():  # a shared one comes once
        numbers[parameter.requires_grad] += parameter.numel()
    return Counts(
        name, numbers[True], numbers[False], sum(each.numel() * each.element_size() for each in part.buffers())
    )
