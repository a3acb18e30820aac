"""Starting DeepSpeed on whatever accelerator there is."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

import torch

from data_shards.support.errors import ConfigError
from pretrain.config import PretrainConfig
from pretrain.foreign import parse_network
from pretrain.module import PretrainModule
from pretrain.optim import create_optimizer
from pretrain.partitions import register_apart
from pretrain.runtime import Runtime
from pretrain.saving.snapshot import SnapshotEngine


def zero_stage(config: PretrainConfig) -> int:
    """The ZeRO stage that the configuration asks for.

    Raises:
        ConfigError: it is none of 0, 1, 2 and 3, or 3 for a network that is not ours.
    """
    section = config.deepspeed.get("zero_optimization", {})
    stage = section.get("stage", 0) if isinstance(section, dict) else section
    if not isinstance(section, dict) or stage not in (0, 1, 2, 3):
        raise ConfigError(f"deepspeed.zero_optimization.stage: {stage!r} is not supported; expected 0, 1, 2 or 3")
    if stage == 3 and parse_network(config.model.name).foreign:
        # Its methods use weights outside the call of their owner, which DeepSpeed does not gather.
        raise ConfigError(
            f"deepspeed.zero_optimization.stage: 3 splits the weights of the networks medformer_* alone; use 0, 1 or 2 "
            f"with {config.model.name}"
        )
    return int(stage)


def initialise(module: PretrainModule, config: PretrainConfig, runtime: Runtime) -> tuple[Any, torch.optim.Optimizer]:
    """The DeepSpeed engine around ``module``, and the optimizer inside it.

    Raises:
        ConfigError: DeepSpeed is not installed, or refuses its configuration.
    """
    if runtime.device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    # DeepSpeed looks for the ninja of this environment on PATH, where it is only when the environment is activated.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    try:
        import deepspeed
    except ImportError:
        raise ConfigError("pretraining needs DeepSpeed; install medformer[pretrain]") from None
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    stage = zero_stage(config)
    optimizer = create_optimizer(module, config.optimizer, stage)
    document: dict[str, Any] = {
        # DeepSpeed only books these numbers; the stream decides how many images a rank gets.
        "train_micro_batch_size_per_gpu": max(1, config.data.batch_size // runtime.world_size),
        "gradient_clipping": config.optimizer.clip_norm,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        **config.deepspeed,
    }
    if stage == 1 and runtime.device.type == "cpu":
        # Every gradient would be copied into one buffer first, which spares a GPU fragmentation and costs a CPU 5 %.
        document["zero_optimization"] = {"contiguous_gradients": False, **config.deepspeed["zero_optimization"]}
    # DeepSpeed would compile a shared-memory all-reduce for inference here: a minute, a C++ compiler, and no use to us.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if config.precision == "bf16":
        # DeepSpeed would average the gradients of the modules that it takes for safe in bfloat16, too: all convolutions
        # and linear maps. With none of them every gradient is averaged in its own precision, float32.
        autocast = {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}
        document.setdefault("torch_autocast", autocast)
    deepspeed.init_distributed(
        dist_backend="nccl" if runtime.device.type == "cuda" else "gloo", verbose=False, dist_init_required=False
    )
    try:
        engine, _, _, _ = deepspeed.initialize(
            model=module, optimizer=optimizer, config=document, dist_init_required=False
        )
    except (ValueError, TypeError, deepspeed.DeepSpeedConfigError) as error:
        raise ConfigError(f"deepspeed: refuses its configuration: {error}") from error
    if stage == 3:
        register_apart(module)
    engine.checkpoint_engine = SnapshotEngine()
    engine._copy_recovery_script = _nothing  # Programs have no place in a checkpoint; weights leave it as a bundle.
    return engine, optimizer


def _nothing(path: str) -> None:
    """Copy no script."""


def gradient_norm(module: PretrainModule) -> float:
    """Norm of the gradient of the global batch at ZeRO stage 0, after ``backward`` has reduced it and before ``step``.

    The other stages compute it themselves, see ``engine.get_global_grad_norm()``.
    """
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients))
