"""Opening a backbone: from a bundle, from a module, or fresh by name."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_shards.support.errors import ConfigError, nearest
from data_shards.support.files import sha256_of
from finetune.random_state import seeded
from pretrain.backbone import Backbone
from pretrain.bundle import Bundle, load_bundle
from pretrain.foreign import TimmBackbone, is_network, own_networks, parse_network
from pretrain.intensity import TrainedOn
from pretrain.networks import create_network

CLASSIFIER_FILE = "classifier.json"
"""By it the folder of a fitted classifier is told from a model bundle."""


@dataclass(frozen=True)
class BundleReference:
    """A bundle by its weights: what a saved classifier keeps of the bundle it was adapted from.

    Attributes:
        folder: where the bundle was; or ``timm:NAME@FILE``, a network of timm with weights from a file.
        called: what the user called it, such as ``name@alias`` of the registry; the folder when that is left out.
        weights_sha256: of its ``model.safetensors``, or of the file; empty when any weights will do.
    """

    folder: str
    called: str = ""
    weights_sha256: str = ""

    def __str__(self) -> str:
        return self.called or self.folder


@dataclass(frozen=True)
class OpenedBackbone:
    """A backbone of one's own, free to be trained.

    Attributes:
        module: the network, without classifier.
        pretrained: whether its weights were learned before; false for a fresh one.
        origin: where it comes from, in words.
        source: what opens the same weights again: a reference to the bundle or the name of a fresh network; None for a
            module.
        architecture: name by which timm makes it; None for a module, of which that is not known.
        model_args: arguments it was made with.
        intensity: by which rules the images came that it was trained on; empty where that is not known.
        crop: voxels along D,H,W of the crops of volumes that it was trained on; None where it was shown whole images.
    """

    module: Backbone
    pretrained: bool
    origin: str
    source: BundleReference | str | None = None
    architecture: str | None = None
    model_args: dict[str, Any] = field(default_factory=dict)
    intensity: tuple[TrainedOn, ...] = ()
    crop: tuple[int, ...] | None = None


def open_backbone(backbone: str | Path | BundleReference | Backbone, seed: int) -> OpenedBackbone:
    """Open a backbone.

    Args:
        backbone: the folder of a bundle or a reference to one, the name of a network, fresh or with weights from a file
            (see :func:`~pretrain.foreign.reference.parse_network`), or a module, which is copied and counts as
            pretrained.
        seed: fixes the weights of a fresh network; the global random state is left alone.

    Raises:
        ConfigError: it is neither a folder nor the name of a network, the bundle is gone or has other weights than the
            reference says, or it is that of a classifier.
        CheckpointError: the bundle or the file of weights is damaged, or of another network.
    """
    if isinstance(backbone, Backbone):
        return OpenedBackbone(copy.deepcopy(backbone), True, f"module {type(backbone).__name__}")
    if isinstance(backbone, BundleReference):
        return _open_bundle(backbone)
    if Path(backbone).is_dir():
        return _open_bundle(BundleReference(str(backbone)))
    if not is_network(str(backbone)):
        known = nearest(str(backbone), own_networks())
        raise ConfigError(f"{backbone}: neither the folder of a model bundle nor the name of a network{known}")
    return _open_network(str(backbone), seed)


def told_of(opened: OpenedBackbone) -> list[str]:
    """What is to be known of a network before it is used, a line each."""
    said = []
    if not opened.pretrained:
        said.append(f"note: {opened.source} is a fresh network: its features are random, nothing was pretrained")
    if isinstance(opened.module, TimmBackbone):
        said.append(
            f"note: {opened.module.architecture} reads pixels alone: it is not told organ, modality, task or spacing"
        )
    return said


def refuse_classifier(folder: Path, called: str) -> None:
    """See that a folder is not that of a fitted classifier, without opening it.

    Args:
        folder: that should be a bundle.
        called: what the user calls it.

    Raises:
        ConfigError: it is a fitted classifier, or what ``finetune`` wrote.
    """
    if (folder / CLASSIFIER_FILE).is_file():
        raise ConfigError(
            f"{called}: a fitted classifier, not a model bundle; medformer predict applies it, and fitting starts from "
            "what it was adapted from"
        )
    if (folder / "classifier" / CLASSIFIER_FILE).is_file():
        raise ConfigError(
            f"{called}: what finetune wrote, not a model bundle; medformer predict applies its classifier"
        )


def load_pretrained(folder: Path, called: str = "") -> Bundle:
    """Read a bundle whose network has seen no labels.

    Args:
        folder: where it is.
        called: what the user calls it, for messages; the folder when left out.

    Raises:
        ConfigError: it is a fitted classifier or the backbone of one, which would be tried on labels it was fitted to.
        CheckpointError: the bundle is damaged.
    """
    called = called or str(folder)
    refuse_classifier(folder, called)
    with seeded(0):  # weights are drawn before those of the bundle take their place
        bundle = load_bundle(folder)
    fitted = bundle.provenance.get("fine_tuned")
    if fitted is not None:
        raise ConfigError(
            f"{called}: the network of a fitted classifier, which has seen labels; start from what it was adapted "
            f"from, {fitted.get('backbone')}, or to go on from here give the module, load_bundle(folder).backbone"
        )
    return bundle


def _open_network(name: str, seed: int) -> OpenedBackbone:
    """A network by name, with fresh weights or those of a file."""
    named = parse_network(name)
    with seeded(seed):
        module = create_network(named.name, named.model_args, named.weights)
    made = (module.architecture, module.model_args) if isinstance(module, TimmBackbone) else (named.name, {})
    if named.weights is None:
        return OpenedBackbone(module, False, f"fresh {name}", name, *made)
    place = name.partition("@")[0] + f"@{named.weights.absolute()}"
    source = BundleReference(place, name, sha256_of(named.weights))
    return OpenedBackbone(module, True, f"weights {name}", source, *made)


def _open_bundle(reference: BundleReference) -> OpenedBackbone:
    in_file = is_network(reference.folder)
    weights = Path(reference.folder.partition("@")[2]) if in_file else Path(reference.folder) / "model.safetensors"
    if reference.weights_sha256:
        other = None
        if not weights.is_file():
            other = "is not there"
        elif sha256_of(weights) != reference.weights_sha256:
            other = "has other weights"
        if other:
            raise ConfigError(
                f"{reference.folder}: the model {reference} that this classifier was adapted from {other}; to fit "
                "again, name its folder with set_params(backbone=...)"
            )
    if in_file:
        return _open_network(reference.folder, 0)
    bundle = load_pretrained(Path(reference.folder), str(reference))
    config = bundle.config
    return OpenedBackbone(
        bundle.backbone,
        True,
        f"bundle {reference}",
        BundleReference(str(Path(reference.folder).absolute()), str(reference), sha256_of(weights)),
        config["architecture"],
        dict(config.get("model_args", {})),
        bundle.intensity,
        bundle.crop,
    )


def fresh_twin(bundle: Bundle) -> Callable[[int], Backbone]:
    """Makes the network of a bundle with new weights from a seed."""
    config = bundle.config
    return _fresh(config["architecture"], config.get("model_args", {}), config.get("pretrained_cfg", {}))


def opened_twin(name: str) -> Callable[[int], Backbone]:
    """Makes a network that is called by name with new weights from a seed, whatever weights the name says."""
    named = parse_network(name)
    return _fresh(named.name, named.model_args)


def _fresh(name: str, model_args: Mapping[str, Any], cfg: Mapping[str, Any] | None = None) -> Callable[[int], Backbone]:
    def fresh(seed: int) -> Backbone:
        with seeded(seed):
            return create_network(name, model_args, cfg=cfg)

    return fresh
