"""Optimizer and learning rate schedule, both timm's."""

from __future__ import annotations

from typing import Any

import torch
from timm.optim import create_optimizer_v2, get_optimizer_class, param_groups_weight_decay
from timm.scheduler import CosineLRScheduler
from torch import Tensor

from data_shards.support.errors import ConfigError, nearest
from pretrain.arguments import said_of
from pretrain.config import OptimizerConfig, ScheduleConfig
from pretrain.module import PretrainModule

_SET_ELSEWHERE = ("params", "lr", "weight_decay")
"""Arguments of an optimizer that are keys of their own, or the tensors."""

_ELEMENTWISE = """
    adabelief adadelta adagrad adam adamax adamc adamw adamwlegacy adan adanw adopt adoptw laprop lion madgrad madgradw
    momentum nadam nadamc nadamlegacy nadamw nesterov nesterovw radabelief radam radamlegacy radamw rmsprop rmsproptf
    sgd sgdw bnbadam bnbadamw bnblion bnbsgd fusedadam fusedadamw fusedsgd
"""
ELEMENTWISE = frozenset(_ELEMENTWISE.split())
"""Optimizers that treat every number of a tensor alone, so that ZeRO may hand them flattened slices of tensors."""


def create_optimizer(module: PretrainModule, config: OptimizerConfig, zero_stage: int) -> torch.optim.Optimizer:
    """The optimizer over the trainable parameters; biases, norms, latents and queries are not decayed.

    Raises:
        ConfigError: the optimizer needs each tensor whole but ZeRO would hand it slices, or refuses an argument.
    """
    if zero_stage > 0 and config.name not in ELEMENTWISE:
        raise ConfigError(
            f"optimizer.name: {config.name} looks at whole tensors, but ZeRO stage {zero_stage} gives it flattened "
            f"slices; use stage 0 or an elementwise optimizer{nearest(config.name, ELEMENTWISE)}"
        )
    groups = param_groups_weight_decay(module, config.weight_decay, no_weight_decay_list=module.no_weight_decay())
    apart = module.param_groups()
    taken = {id(parameter) for group in apart for parameter in group["params"]}
    for group in groups:
        group["params"] = [parameter for parameter in group["params"] if id(parameter) not in taken]
    groups = [group for group in [*groups, *apart] if group["params"]]
    arguments: dict[str, Any] = dict(config.kwargs)
    if config.betas is not None:
        arguments["betas"] = config.betas
    try:
        return create_optimizer_v2(groups, opt=config.name, lr=config.lr, weight_decay=config.weight_decay, **arguments)
    except (TypeError, ValueError) as error:
        said = said_of(error, get_optimizer_class(config.name, bind_defaults=False), _SET_ELSEWHERE)
        raise ConfigError(f"optimizer.kwargs: {config.name} refuses its arguments: {said}") from None


def grow_state(optimizer: torch.optim.Optimizer) -> None:
    """Fit a state that was just loaded to parameters that have gained rows since, as the vocabulary grew.

    What the optimizer remembers of the new rows is zero, as it is of an entry that was in no batch yet.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if not isinstance(value, Tensor) or value.ndim != parameter.ndim or not value.ndim:
                continue
            missing = len(parameter) - len(value)
            if missing > 0 and value.shape[1:] == parameter.shape[1:]:
                state[name] = torch.cat([value, value.new_zeros(missing, *value.shape[1:])])


def create_schedule(optimizer: torch.optim.Optimizer, config: ScheduleConfig, total_steps: int) -> CosineLRScheduler:
    """Learning rate as a function of the step alone, so there is nothing to save and restore."""
    return CosineLRScheduler(
        optimizer,
        t_initial=total_steps,
        lr_min=float(optimizer.param_groups[0]["lr"]) * config.final_fraction,
        warmup_t=round(total_steps * config.warmup_fraction),
        warmup_lr_init=0.0,
        warmup_prefix=False,
        t_in_epochs=False,
    )
