"""The baseline of MedMNIST on any dataset: its network for planes or for volumes, from random weights."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from data_shards.support.errors import ConfigError
from finetune.cases import Cases
from finetune.random_state import seeded
from finetune.reference.recipe import PLANES, VOLUMES
from pretrain.backbone import Backbone
from pretrain.networks import create_network

_UNIT = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def reference_network(cases: Cases) -> Callable[[int], Backbone]:
    """Makes the network that the recipe has for such images, with new weights from a seed.

    It has as many channels as the images, and the initial weights that torch gives to layers. Planes are read in
    [-1, 1] and volumes in [0, 1], where the zeros that convolutions put around a volume are its background.

    Raises:
        ConfigError: cases have images of different dimensions or channels, or several each.
    """
    first = cases.studies_of(0)[0]
    shapes = {(pixels.shape[0], pixels.ndim - 1) for pixels in (each.pixels for each in first.images.values())}
    if len(first.images) > 1 or len(shapes) > 1:
        raise ConfigError(f"{cases.name}: the reference recipe reads one image per case, found {len(first.images)}")
    channels, axes = shapes.pop()
    name = PLANES if axes == 2 else VOLUMES

    def fresh(seed: int) -> Backbone:
        with seeded(seed):
            network = create_network(name, {"in_chans": channels}, cfg=_UNIT if axes == 3 else None)
            for layer in network.modules():
                if isinstance(layer, nn.modules.conv._ConvNd | nn.modules.batchnorm._BatchNorm):
                    layer.reset_parameters()
        return network

    return fresh
