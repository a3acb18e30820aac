"""Signs that a run has gone wrong, and what they are called."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from data_shards.support.errors import TrainingError
from pretrain.backbone import Medformer
from pretrain.backbone.modes import evaluating
from pretrain.config import HealthConfig
from pretrain.objectives import Views


def watched_embedding(views: Views, backbone: Medformer) -> Tensor:
    """The embeddings ``B, D`` of the first view, looked at without leaving a trace in the run.

    Those that an objective has trained on, where there are any. Otherwise they are made in evaluation mode, and no
    buffer, random generator or gradient is touched: how often a run is looked at does not change what it learns.
    """
    trained_on = views.embedded(backbone)
    if trained_on is not None:
        return trained_on[0].detach()
    devices = {images.device for images in views.images if images.device.type == "cuda"}
    with evaluating(backbone), torch.random.fork_rng(devices), torch.no_grad():
        return views.embeddings(backbone)[0]


def embedding_spread(embedding_BD: Tensor) -> dict[str, float]:
    """How far a batch of embeddings spreads.

    Returns:
        ``embedding_std``: mean standard deviation per channel of the unit-length embeddings, times the root of their
        width: 1 when they cover the sphere evenly, 0 when they are all the same (Chen and He, CVPR 2021, section 4.1).
        ``effective_rank``: exponential of the entropy of the normalised singular values (Garrido et al., ICML 2023,
        RankMe). Both are NaN when the embeddings are not finite.
    """
    embedding_BD = embedding_BD.detach().float()
    if not embedding_BD.isfinite().all():
        return {"embedding_std": math.nan, "effective_rank": math.nan}
    unit_BD = torch.nn.functional.normalize(embedding_BD, dim=-1)
    spread = unit_BD.std(dim=0, correction=0).mean() * math.sqrt(embedding_BD.shape[1])
    centred_BD = embedding_BD - embedding_BD.mean(dim=0)
    values = torch.linalg.svdvals(centred_BD)
    share = values / values.sum().clamp_min(torch.finfo(values.dtype).tiny)
    entropy = torch.special.entr(share).sum()
    return {"embedding_std": float(spread), "effective_rank": float(entropy.exp())}


class HealthMonitor:
    """Looks at the metrics of each log line, which are the same on every rank, so that all ranks stop together.

    Args:
        config: the limits.
    """

    def __init__(self, config: HealthConfig) -> None:
        self._config = config
        self._collapsed = 0

    def check(self, metrics: Mapping[str, float], step: int) -> None:
        """Raise when the run should not go on.

        Raises:
            TrainingError: a loss is not finite, the gradient has exploded, or the embeddings have collapsed.
        """
        for name, value in sorted(metrics.items(), key=lambda item: "/" not in item[0]):  # The sum last.
            if name.rpartition("/")[2] == "loss" and not math.isfinite(value):
                raise TrainingError(f"step {step}: {name} is {value}; lower optimizer.lr or set optimizer.clip_norm")
        norm = metrics["grad_norm"]
        if not norm <= self._config.max_grad_norm:
            raise TrainingError(
                f"step {step}: gradients exploded: norm {norm:.3g} is above health.max_grad_norm "
                f"{self._config.max_grad_norm:.3g}; lower optimizer.lr"
            )
        collapsed = metrics["embedding_std"] < self._config.min_embedding_std
        self._collapsed = self._collapsed + 1 if collapsed else 0
        if self._collapsed >= self._config.patience:
            raise TrainingError(
                f"step {step}: representation collapsed: embedding_std {metrics['embedding_std']:.3g} has been below "
                f"health.min_embedding_std {self._config.min_embedding_std:.3g} for {self._collapsed} log lines; "
                "all images get nearly the same embedding"
            )
