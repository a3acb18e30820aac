"""Whether a network can run where it is asked to."""

from __future__ import annotations

import torch

from data_shards.support.errors import ConfigError


def check_device(name: str) -> None:
    """See that a device is there, before images are read for it.

    Args:
        name: as torch knows it: ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    Raises:
        ConfigError: torch knows no such device, or this machine has none.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(
            f"device: unknown device {name!r}; expected cpu, cuda, or one of several such as cuda:1"
        ) from None
    if device.type == "meta":
        raise ConfigError("device: a network on 'meta' has no values; expected cpu or cuda")
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # without CUDA, of a torch built without it
        said = str(error).strip().partition("\n")[0].rstrip(".")[:200]
        raise ConfigError(f"device: {name!r} cannot be used on this machine: {said}") from None
