"""Signs that a run has gone wrong, and what they are called."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from data_shards.support.errors import TrainingError
from pretrain.backbone import Backbone
from pretrain.backbone.modes import evaluating
from pretrain.config import HealthConfig
from pretrain.objectives import Views
from pretrain.partitions import whole
from pretrain.threads import one_thread


def watched_embeddings(views: Views, backbone: Backbone) -> tuple[Tensor, ...]:
    """The embeddings ``B, D`` of each view of the whole size, looked at without leaving a trace in the run.

    Those that an objective has trained on, where there are any. Otherwise that of the first view is made in evaluation
    mode, and no buffer, random generator or gradient is touched: how often a run is looked at does not change what it
    learns.
    """
    trained_on = views.embedded(backbone)
    if trained_on is not None:
        return tuple(each.detach() for each in trained_on)
    first = views.first
    devices = {first.images.device} if first.images.device.type == "cuda" else set()
    with whole(backbone), evaluating(backbone), torch.random.fork_rng(devices), torch.no_grad():
        return (views.features(backbone, first).embedding_BD,)


def embedding_spread(views: Sequence[Tensor]) -> dict[str, float]:
    """How far the embeddings of a global batch spread, and how near those of two views of an image are.

    Args:
        views: embeddings ``B, D`` of one view, or of two with their rows in the same order.

    Returns:
        ``embedding_std``: mean standard deviation per channel of the unit-length embeddings, times the root of their
        width: 1 when they cover the sphere evenly, 0 when they are all the same (Chen and He, CVPR 2021, section 4.1).
        ``effective_rank``: exponential of the entropy of the normalised singular values (Garrido et al., ICML 2023,
        RankMe). ``uniformity``: logarithm of the mean of ``exp(-2 d^2)`` over the distances of pairs of unit-length
        embeddings, 0 when they are all the same; of two views ``alignment``: mean squared distance of the two of an
        image (Wang and Isola, ICML 2020, section 4.1). All but the last are of the first view, and all are NaN when
        the embeddings are not finite.
    """
    views = [each.detach().float() for each in views]
    names = ("embedding_std", "effective_rank", "uniformity", *(("alignment",) if len(views) > 1 else ()))
    if not all(each.isfinite().all() for each in views):
        return dict.fromkeys(names, math.nan)
    embedding_BD = views[0]
    unit_BD, *others = (torch.nn.functional.normalize(each, dim=-1) for each in views)
    spread = unit_BD.std(dim=0, correction=0).mean() * math.sqrt(embedding_BD.shape[1])
    centred_BD = embedding_BD - embedding_BD.mean(dim=0)
    with one_thread():
        values = torch.linalg.svdvals(centred_BD)
    share = values / values.sum().clamp_min(torch.finfo(values.dtype).tiny)
    entropy = torch.special.entr(share).sum()
    pairs = len(unit_BD) * (len(unit_BD) - 1) // 2
    closeness = torch.logsumexp(-2 * torch.pdist(unit_BD).square(), dim=0) - math.log(pairs) if pairs else math.nan
    found = {"embedding_std": float(spread), "effective_rank": float(entropy.exp()), "uniformity": float(closeness)}
    if others:
        found["alignment"] = float((unit_BD - others[0]).square().sum(dim=-1).mean())
    return found


class HealthMonitor:
    """Looks at the metrics of each log line, which are the same on every rank, so that all ranks stop together.

    Args:
        config: the limits.
        can_collapse: whether an objective may be served by a collapse. Where none is, embeddings that are near each
            other are those of a young network.
    """

    def __init__(self, config: HealthConfig, can_collapse: bool = True) -> None:
        self._config = config
        self._can_collapse = can_collapse
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
        collapsed = self._can_collapse and metrics["embedding_std"] < self._config.min_embedding_std
        self._collapsed = self._collapsed + 1 if collapsed else 0
        if self._collapsed >= self._config.patience:
            raise TrainingError(
                f"step {step}: representation collapsed: embedding_std {metrics['embedding_std']:.3g} has been below "
                f"health.min_embedding_std {self._config.min_embedding_std:.3g} for {self._collapsed} log lines; "
                "all images get nearly the same embedding"
            )
