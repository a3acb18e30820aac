"""Draws that are fixed by a seed and leave the global generators of torch where they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

CPU = torch.device("cpu")


@contextmanager
def seeded(seed: int, device: torch.device = CPU) -> Iterator[None]:
    """Within the block torch draws from ``seed``, on the CPU and on ``device``; afterwards as if nothing was drawn."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        reseed(seed, device)
        yield


def random_state(device: torch.device = CPU) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Where the generators of the CPU and of ``device`` are."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def return_to(state: tuple[torch.Tensor, torch.Tensor | None], device: torch.device = CPU) -> None:
    """Draw again what was drawn since :func:`random_state`."""
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)


def reseed(seed: int, device: torch.device = CPU) -> None:
    """Start again from a seed, within :func:`seeded`.

    Not by ``torch.manual_seed``, which reaches every GPU there is, also those whose state nobody keeps.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
