"""Low-rank changes of the weights of any network, convolutions included.

For networks whose layers we did not write: some of them use a weight without calling its layer, so the change is made
to the weight itself, as a parametrization of torch. A convolution ``O, I, *k`` is taken as the matrix ``O, I k`` (as
LoRA's own library does, Hu et al., ICLR 2022); one in groups stays as it is.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from data_shards.support.errors import ConfigError

_ATTENTION = ("attention", "attn")
_MLP = ("mlp", "swiglu")


class LowRankChange(nn.Module):
    """``W`` to ``W + (alpha / rank) B A``, with ``A`` drawn and ``B`` zero.

    Args:
        weight: which is changed, ``O, ...``.
        rank: of the change; 0 for none.
        alpha: see above.
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        self.scale = alpha / rank if rank else 0.0
        self.down_RI = nn.Parameter(weight.new_empty(rank, weight[0].numel()))
        self.up_OR = nn.Parameter(weight.new_zeros(len(weight), rank))
        if rank:
            nn.init.kaiming_uniform_(self.down_RI, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """The changed weight."""
        return weight + (self.scale * (self.up_OR @ self.down_RI)).view_as(weight)


def change_weights(network: nn.Module, which: str, rank: int, alpha: float | None, dropout: float) -> None:
    """Give every weight of a kind a change, which is zero as yet.

    Args:
        network: any.
        which: ``attention``, ``mlp``, by the names of the classes of the layers above; or ``all``, also convolutions.
        rank: of each change.
        alpha: its strength; None for twice the rank.
        dropout: must be 0, as a change of a weight sees no inputs.

    Raises:
        ConfigError: the rank is larger than a matrix can have, dropout is asked for, or there is no such layer.
    """
    if dropout:
        raise ConfigError(f"strategy low_rank: dropout {dropout}; it is for the networks medformer_*, 0 is expected")
    layers = _layers(network, which)
    if not layers:
        raise ConfigError(f"strategy low_rank: {type(network).__name__} has no layers of kind {which!r}; use 'all'")
    for layer in layers:
        weight = layer.weight
        assert isinstance(weight, Tensor)
        if rank > (most := min(len(weight), weight[0].numel())):
            raise ConfigError(
                f"strategy low_rank: rank {rank}; a weight {tuple(weight.shape)} of the backbone has rank {most} at "
                "most"
            )
        change = LowRankChange(weight, rank, 2.0 * rank if alpha is None else alpha)
        parametrize.register_parametrization(layer, "weight", change)


@torch.no_grad()
def merge_changes(network: nn.Module) -> None:
    """Add the changes to the weights; the layers are what they were."""
    for layer in list(network.modules()):
        if parametrize.is_parametrized(layer, "weight"):
            changes: nn.ModuleDict = layer.parametrizations  # type: ignore[assignment]
            if any(isinstance(each, LowRankChange) for each in changes["weight"].children()):
                parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
                if "bias" in layer._parameters:  # behind the weight, where it was
                    layer._parameters["bias"] = layer._parameters.pop("bias")


def _layers(network: nn.Module, which: str) -> list[nn.Module]:
    """Linear layers and convolutions without groups, of the kind that is asked for, each once."""
    found: dict[int, nn.Module] = {}
    for module in network.modules():
        name = type(module).__name__.lower()
        kind = {"attention": name.endswith(_ATTENTION), "mlp": name.endswith(_MLP), "all": True}[which]
        for layer in module.children() if kind else ():
            whole = isinstance(layer, nn.Linear) or (
                isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) and layer.groups == 1
            )
            if whole and not parametrize.is_parametrized(layer):
                found[id(layer)] = layer
    return list(found.values())
