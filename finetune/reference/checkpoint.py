"""What a fit by the reference recipe goes on from when it was stopped: one file, whole or not there.

The order of the cases, dropout and the factors of shapes are functions of seed and epoch, so there is no random state
to keep, and a fit that was stopped ends with the bits of one that was not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from data_shards.support.errors import CheckpointError
from pretrain.changes import check_keys

State = Mapping[str, Tensor]
_NETWORK, _BEST, _ADAM = "network.", "best.", "adam."


@dataclass
class Run:
    """How far a fit is.

    Attributes:
        epoch: epochs that are done.
        best: the one with the best validation score so far; 0 for none.
        kept: the weights after it.
        curve: validation score after each epoch; empty without a validation split.
        losses: mean loss of training in each.
    """

    epoch: int = 0
    best: int = 0
    kept: State = field(default_factory=dict)
    curve: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


def save_run(path: Path, run: Run, network: nn.Module, optimizer: torch.optim.Optimizer, identity: str) -> None:
    """Write what :func:`load_run` reads.

    Args:
        path: a ``.safetensors`` file; replaced as a whole.
        run: how far it is.
        network: as it is now.
        optimizer: as it is now.
        identity: says which fit it is.
    """
    tensors = {_NETWORK + name: tensor for name, tensor in network.state_dict().items()}
    tensors |= {_BEST + name: tensor for name, tensor in run.kept.items()}
    for number, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"{_ADAM}{number}.{name}": tensor for name, tensor in moments.items()}
    numbers = {"epoch": run.epoch, "best": run.best, "curve": run.curve, "losses": run.losses}
    partial = path.with_suffix(".partial")
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(content, partial, {"run": json.dumps(numbers), "identity": identity})
    os.replace(partial, path)


def load_run(path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, identity: str) -> Run:
    """Bring network and optimizer to where they were; at the beginning where there is no file.

    Raises:
        CheckpointError: the file is damaged, or of another fit.
    """
    if not path.is_file():
        return Run()
    try:
        with safe_open(path, "pt") as file:
            told = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        check_keys(told, ("identity", "run"), str(path))
        if told["identity"] != identity:
            raise CheckpointError(f"{path}: of another fit: {told['identity']}; expected {identity}")
        numbers = json.loads(told["run"])
        check_keys(numbers, ("epoch", "best", "curve", "losses"), str(path))
        run = Run(**numbers, kept=_part(tensors, _BEST))
        network.load_state_dict(_part(tensors, _NETWORK))
        moments: dict[int, dict[str, Any]] = {}
        for name, tensor in _part(tensors, _ADAM).items():
            number, _, moment = name.partition(".")
            moments.setdefault(int(number), {})[moment] = tensor
        optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: not the state of a fit: {' '.join(str(error).split())[:200]}") from None
    return run


def _part(tensors: State, prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
