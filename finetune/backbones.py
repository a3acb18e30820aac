"""Opening a backbone: from a bundle, from a module, or fresh by name."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch

from data_shards.support.errors import ConfigError, nearest
from pretrain.backbone import Medformer
from pretrain.bundle import Bundle, load_bundle

FAMILY = "medformer_*"


@dataclass(frozen=True)
class OpenedBackbone:
    """A backbone of one's own, free to be trained.

    Attributes:
        module: the network, without classifier.
        pretrained: whether its weights were learned before; false for a fresh one.
        origin: where it comes from, in words.
        architecture: name by which timm makes it; None for a module, of which that is not known.
        model_args: arguments it was made with.
    """

    module: Medformer
    pretrained: bool
    origin: str
    architecture: str | None = None
    model_args: dict[str, Any] = field(default_factory=dict)


def network_names() -> list[str]:
    """The names of networks that can be made with fresh weights."""
    return list(timm.list_models(FAMILY))


def open_backbone(backbone: str | Path | Medformer, seed: int) -> OpenedBackbone:
    """Open a backbone.

    Args:
        backbone: the folder of a bundle, a registered name for a fresh network, or a module, which is copied and
            counts as pretrained.
        seed: fixes the weights of a fresh network; the global random state is left alone.

    Raises:
        ConfigError: it is neither a folder nor a registered name.
        CheckpointError: the bundle is damaged.
    """
    if isinstance(backbone, Medformer):
        return OpenedBackbone(copy.deepcopy(backbone), True, f"module {type(backbone).__name__}")
    if Path(backbone).is_dir():
        bundle = load_bundle(Path(backbone))
        config = bundle.config
        return OpenedBackbone(
            bundle.backbone, True, f"bundle {backbone}", config["architecture"], dict(config.get("model_args", {}))
        )
    names = network_names()
    if str(backbone) not in names:
        known = nearest(str(backbone), names)
        raise ConfigError(f"{backbone}: neither the folder of a model bundle nor the name of a network{known}")
    module = _create(str(backbone), {}, seed)
    return OpenedBackbone(module, False, f"fresh {backbone}", str(backbone))


def fresh_twin(bundle: Bundle) -> Callable[[int], Medformer]:
    """Makes the network of a bundle with new weights from a seed."""

    def fresh(seed: int) -> Medformer:
        return _create(bundle.config["architecture"], bundle.config.get("model_args", {}), seed)

    return fresh


def _create(architecture: str, model_args: Mapping[str, Any], seed: int) -> Medformer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: Medformer = timm.create_model(architecture, num_classes=0, **model_args)
    return network
