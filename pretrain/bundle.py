"""The model bundle: what the registry stores and users pull. A plain folder, no pickle in it.

``model.safetensors`` and ``config.json`` follow the Hugging Face layout that timm reads
(``timm.create_model("local-dir:FOLDER")``); beside them lie ``provenance.json``, ``metrics.json`` and a model card.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from data_shards.support.errors import CheckpointError, ConfigError
from data_shards.support.files import new_folder, read_json, write_atomic, write_json
from pretrain.backbone import Backbone, Medformer
from pretrain.backbone.loading import fitted
from pretrain.backbone.recorded import as_recorded
from pretrain.foreign import NetworkReference, TimmBackbone
from pretrain.intensity import trained
from pretrain.intensity.trained import TrainedOn
from pretrain.misfit import misfit
from pretrain.networks import create_network

FILES = ("model.safetensors", "config.json", "provenance.json", "metrics.json", "README.md")
FORMAT_VERSION = 2
"""Of ``config.json``. A higher number says that the bundle cannot be read as here; without one it is the first.

Since 2 the arguments of a network of ours name its stem and stride, and the file says by which rules images came, where
these were not all 8 bits.
"""
_PREPROCESSING = ("mean", "std", "interpolation", "crop_pct", "first_conv", "classifier")


@dataclass(frozen=True)
class Bundle:
    """A model bundle read from disk.

    Attributes:
        backbone: the network with its weights, in evaluation mode, without a classifier.
        config: architecture and its arguments.
        provenance: data manifests' digests, resolved configuration and its hash, code version, seed.
        metrics: what was measured of the model.
        intensity: by which rules the images came that it was trained on.
    """

    backbone: Backbone
    config: dict[str, Any]
    provenance: dict[str, Any]
    metrics: dict[str, Any]
    intensity: tuple[TrainedOn, ...] = ()

    @property
    def crop(self) -> tuple[int, ...] | None:
        """Voxels along D,H,W of the crops of volumes that it was trained on; None where it was shown whole images."""
        crop = ((self.provenance.get("config") or {}).get("data") or {}).get("crop")
        if not crop:
            return None
        size = tuple(int(side) for side in crop["size"])
        return size * 3 if len(size) == 1 else size


def save_bundle(
    folder: Path,
    backbone: Backbone,
    architecture: str,
    model_args: Mapping[str, Any],
    provenance: Mapping[str, Any],
    metrics: Mapping[str, Any],
    intensity: Sequence[TrainedOn] = (),
) -> Path:
    """Write a bundle; it appears complete, and replaces one that stands there.

    Tensors that share storage are written in full under each of their names, so that a strict load finds them all. A
    classifier is left out: it belongs to a task, not to the backbone.

    Args:
        folder: where the bundle is to appear.
        backbone: its weights and buffers are saved.
        architecture: name by which timm makes it; a foreign network knows its own.
        model_args: arguments it was made with, likewise; ``num_classes`` among them is not kept.
        provenance: what the model comes from.
        metrics: what was measured.
        intensity: by which rules the images came that it was trained on; 8 bits where nothing is said.

    Returns:
        ``folder``.

    Raises:
        MedformerError: the disk refuses; nothing is left behind.
    """
    if isinstance(backbone, TimmBackbone):
        architecture, model_args = backbone.architecture, backbone.model_args
    # A foreign network has no classifier, and perhaps norms in what it calls its head.
    tensors = {
        name: tensor.detach().cpu().clone().contiguous()
        for name, tensor in backbone.network.state_dict().items()
        if not name.startswith("head.") or isinstance(backbone, TimmBackbone)
    }
    # It may have been set since; a network that reads images as they are does not name it.
    read_at = {} if backbone.voxel_mm == model_args.get("voxel_mm") else {"voxel_mm": backbone.voxel_mm}
    kept = {name: value for name, value in model_args.items() if name != "num_classes"}
    config = {
        "format_version": FORMAT_VERSION,
        "architecture": architecture,
        "num_classes": 0,
        "num_features": backbone.embed_dim,
        "model_args": kept | backbone.stem_args | read_at,
        "pretrained_cfg": {"num_classes": 0, "custom_load": False, **_preprocessing(backbone)},
        **trained.written(intensity),
    }
    with new_folder(folder, overwrite=True) as partial:
        write_atomic(partial / "model.safetensors", save(tensors, metadata={"format": "pt"}))
        write_json(partial / "config.json", config)
        write_json(partial / "provenance.json", dict(provenance))
        write_json(partial / "metrics.json", dict(metrics))
        write_atomic(partial / "README.md", _model_card(config, provenance))
    return folder


def load_bundle(folder: Path) -> Bundle:
    """Read a bundle.

    Raises:
        CheckpointError: a file is missing or damaged, or the weights are not those of the architecture named.
    """
    config = bundle_document(folder)
    provenance, metrics = (read_json(folder / name, CheckpointError) for name in FILES[2:4])
    architecture = config.get("architecture")
    if not isinstance(architecture, str) or not timm.is_model(architecture):
        raise CheckpointError(f"{folder / 'config.json'}: unknown architecture {architecture!r}")
    model_args = config.get("model_args", {})
    # Only what the network itself takes: timm's own arguments could name another file, and a pickle, to load.
    ours = not NetworkReference(architecture).foreign
    known = set(inspect.signature(Medformer).parameters)
    if not isinstance(model_args, dict) or (ours and not set(model_args) < known):
        raise CheckpointError(f"{folder / 'config.json'}: model_args {model_args!r} are not arguments of a backbone")
    try:
        backbone = create_network(architecture, model_args, cfg=config.get("pretrained_cfg"))
    except ConfigError as error:
        raise CheckpointError(f"{folder / 'config.json'}: {error}") from None
    load_weights(backbone, folder / "model.safetensors")
    return Bundle(backbone.eval(), config, provenance, metrics, bundle_rules(folder, config))


def bundle_rules(folder: Path, config: Mapping[str, Any] | None = None) -> tuple[TrainedOn, ...]:
    """By which rules the images came that the network of a bundle was trained on.

    Args:
        folder: of the bundle.
        config: its ``config.json``, where that has been read.

    Raises:
        CheckpointError: it is not readable.
    """
    return trained.read(bundle_document(folder) if config is None else config, str(folder / "config.json"))


def bundle_document(folder: Path) -> dict[str, Any]:
    """``config.json`` of a bundle whose files are all there; it should hold ``architecture`` and ``model_args``.

    The arguments name the stem, also where they did not when there was one only.

    Raises:
        CheckpointError: a file is missing, or this one is no document.
    """
    for name in FILES[:-1]:
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder}: not a model bundle: {name} is missing")
    config: dict[str, Any] = read_json(folder / "config.json", CheckpointError)
    written = config.get("format_version", 1)
    if not isinstance(written, int) or written > FORMAT_VERSION:
        raise CheckpointError(
            f"{folder}: a bundle of format version {written}, made by a newer Medformer; this one reads up to "
            f"{FORMAT_VERSION}; update medformer"
        )
    architecture = str(config.get("architecture"))
    if isinstance(args := config.get("model_args", {}), dict) and not NetworkReference(architecture).foreign:
        config["model_args"] = as_recorded(architecture, args)
    return config


def load_weights(backbone: Backbone, path: Path) -> None:
    """Load a safetensors file into a network.

    Strictly but, for our own, for what :func:`~pretrain.backbone.loading.fitted` adapts.

    Raises:
        CheckpointError: the file is damaged, or a tensor is missing, unknown or of another shape; the first is named.
    """
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file: {error}") from None
    if isinstance(backbone, Medformer):
        tensors = fitted(tensors, backbone, str(path))
    try:
        backbone.network.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        fault = misfit(tensors, backbone.network.state_dict()) or " ".join(str(error).split())[:300]
        raise CheckpointError(f"{path}: {fault}") from None


def _preprocessing(backbone: Backbone) -> dict[str, Any]:
    cfg: dict[str, Any] = getattr(backbone, "pretrained_cfg", {})
    kept: dict[str, Any] = {key: cfg[key] for key in _PREPROCESSING if key in cfg}
    for key in ("mean", "std"):
        if len(set(kept.get(key, ()))) == 1:  # timm expects one for each channel
            kept[key] = [kept[key][0]] * backbone.in_chans
    return {"input_size": [backbone.in_chans, *backbone.img_size], **kept}


def _kind(architecture: str) -> str:
    ours = not NetworkReference(architecture).foreign
    return "A Perceiver IO backbone" if ours else f"The network {architecture} of timm's registry"


def _model_card(config: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    datasets = provenance.get("datasets", [])
    lines = [
        "---",
        "library_name: timm",
        "tags: [image-feature-extraction, medical-imaging, self-supervised]",
        "---",
        f"# {config['architecture']}",
        "",
        f"{_kind(config['architecture'])}, pretrained without labels by Medformer. Not for clinical use.",
        "",
        "## Pretraining data",
        "",
        *(
            f"- {entry['title']}: {entry['samples']} images, licence {entry['licence']}"
            + ("" if entry["official"] else f" (not official: {entry['note']})")
            for entry in datasets
        ),
        "",
        "## How it was made",
        "",
        *(f"- values: {TrainedOn.model_validate(each).rule.words}" for each in config.get("intensity", ())),
        f"- objectives: {', '.join(provenance.get('objectives', []))}",
        f"- optimizer steps: {provenance.get('steps')}, seed {provenance.get('seed')}",
        f"- configuration hash: {provenance.get('config_sha256')}",
        f"- code version: {provenance.get('code_version')}",
        "",
        "## Use",
        "",
        "```python",
        "import medformer",
        "",
        'backbone = medformer.load_bundle("FOLDER").backbone',
        "```",
        "",
    ]
    return "\n".join(lines)
