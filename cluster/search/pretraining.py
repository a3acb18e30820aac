"""A pretraining as a trial: one process with the whole batch, which learns what several with a share of it would."""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import timm
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore

from cluster.plan.images import read_mixture
from cluster.search.kinds import Report
from data_shards.support.documents import parse
from data_shards.support.errors import ConfigError, nearest
from pretrain import preflight
from pretrain.backbone import Medformer
from pretrain.config import PretrainConfig
from pretrain.data import run_steps
from pretrain.engine import run


class Pretraining:
    """The kind of run that ``medformer pretrain`` starts.

    Args:
        located: gives a document with the models that it calls by name as folders of the machine that asks.
    """

    def __init__(self, located: Callable[[PretrainConfig], PretrainConfig]) -> None:
        self._located = located

    def check(self, content: dict[str, Any], origin: str) -> None:
        """See :meth:`cluster.search.kinds.Kind.check`."""
        config = parse(PretrainConfig, content, origin)
        arguments = set(inspect.signature(Medformer).parameters)
        ours = config.model.name in timm.list_models("medformer_*")  # the arguments of others are timm's to judge
        for name in config.model.kwargs if ours else ():
            if name not in arguments:
                raise ConfigError(f"{origin}: unknown key 'model.kwargs.{name}'{nearest(name, arguments)}")
        try:
            preflight.check(self._located(config), 1, resume=False)
        except ConfigError as error:
            raise ConfigError(f"{origin}: {error}") from None

    def steps(self, content: dict[str, Any]) -> int:
        """See :meth:`cluster.search.kinds.Kind.steps`."""
        config = parse(PretrainConfig, content, "trial")
        epoch = read_mixture(config, 1).epoch_steps
        assert epoch is not None, "manifests say how many images there are"
        return run_steps(config, epoch)

    def run(self, content: dict[str, Any], out: Path, report: Report) -> None:
        """See :meth:`cluster.search.kinds.Kind.run`."""
        config = self._located(parse(PretrainConfig, content, "trial")).model_copy(update={"out": out})
        with _alone(report) as runtime:
            run(config, runtime, resume=True)


class _Alone:
    """The surroundings of the only worker of a run, in a thread of a process of Ray."""

    def __init__(self, report: Report) -> None:
        self.rank = self.local_rank = self.attempt = 0
        self.world_size = 1
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._report = report

    def report(self, metrics: Mapping[str, float], step: int) -> None:
        """Hand the metrics on."""
        self._report(metrics, step)

    def checkpoint_saved(self, folder: Path, step: int) -> None:
        """Nothing: the folder is the record."""

    def stop_requested(self) -> bool:
        """Never: a trial is ended with its process."""
        return False


@contextlib.contextmanager
def _alone(report: Report) -> Iterator[_Alone]:
    """A process group of one, without a port that another trial could want."""
    runtime = _Alone(report)
    if runtime.device.type == "cuda":
        torch.cuda.set_device(runtime.device)
    # DeepSpeed asks the environment, not the group.
    os.environ.update({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"})
    backend = "nccl" if runtime.device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
    try:
        yield runtime
    finally:
        dist.destroy_process_group()
