"""What an optimizer remembers of each parameter, by asking it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pretrain.config import OptimizerConfig
from pretrain.module import PretrainModule
from pretrain.optim import create_optimizer


def state_bytes(module: PretrainModule, config: OptimizerConfig, zero_stage: int = 0) -> int:
    """Bytes of the state after a step, of one process that has it all.

    The optimizer of the run takes a step on a parameter of each shape, with a gradient of zero; a state is a function
    of the shape alone.

    Args:
        module: the module, values are not needed.
        config: its optimizer.
        zero_stage: for the optimizers that a stage does not allow.

    Raises:
        ConfigError: the optimizer refuses its arguments, or the stage.
    """
    optimizer = create_optimizer(module, config, zero_stage)
    found = 0
    for group in list(optimizer.param_groups):
        counts: dict[tuple[int, ...], int] = {}
        for parameter in group["params"]:
            counts[tuple(parameter.shape)] = counts.get(tuple(parameter.shape), 0) + 1
        options = {name: value for name, value in group.items() if name != "params"}
        for shape, count in counts.items():
            found += count * _of_one(optimizer, options, shape)
    return found


def _of_one(optimizer: torch.optim.Optimizer, options: dict[str, object], shape: tuple[int, ...]) -> int:
    with torch.device("cpu"):
        parameter = nn.Parameter(torch.zeros(shape))
        parameter.grad = torch.zeros(shape)
    optimizer.state.clear()
    optimizer.param_groups[:] = [{**options, "params": [parameter]}]
    optimizer.step()
    state = optimizer.state[parameter]
    return sum(
        value.numel() * value.element_size() for value in state.values() if isinstance(value, Tensor) and value.ndim
    )
