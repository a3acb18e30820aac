"""The generator on disk: a plain folder, no pickle in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from data_shards.support.documents import parse
from data_shards.support.errors import CheckpointError, MedformerError
from data_shards.support.files import new_folder, read_json, write_atomic, write_json
from pretrain.brainfuse.generator import Generator, GeneratorConfig
from pretrain.intensity import trained
from pretrain.intensity.trained import TrainedOn
from pretrain.misfit import misfit

FORMAT = "medformer-brainfuse-generator"
VERSION = 1


def save_generator(
    folder: Path,
    generator: Generator,
    provenance: Mapping[str, Any],
    metrics: Mapping[str, Any],
    intensity: Sequence[TrainedOn] = (),
) -> Path:
    """Write a generator; it appears complete, and replaces one that stands there.

    Args:
        folder: where.
        generator: itself.
        provenance: what it comes from.
        metrics: what was measured of it.
        intensity: by which rules the images came that it was trained on; 8 bits where nothing is said.

    Raises:
        MedformerError: the disk refuses; nothing is left behind.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in generator.state_dict().items()}
    document = {"format": FORMAT, "version": VERSION, "generator": generator.config.model_dump(mode="json")}
    document |= trained.written(intensity)
    with new_folder(folder, overwrite=True) as partial:
        write_atomic(partial / "generator.safetensors", save(tensors))
        write_json(partial / "config.json", document)
        write_json(partial / "provenance.json", dict(provenance))
        write_json(partial / "metrics.json", dict(metrics))
    return folder


def load_generator(folder: Path) -> Generator:
    """Read a generator, in evaluation mode.

    Raises:
        CheckpointError: a file is missing or damaged, or it is no generator.
    """
    document = _document(folder)
    path = folder / "generator.safetensors"
    try:
        with torch.device("cpu"):  # Whoever asks may be making modules without values.
            generator = Generator(parse(GeneratorConfig, document["generator"], str(folder / "config.json")))
        tensors = load_file(path)
        if fault := misfit(tensors, generator.state_dict()):
            raise CheckpointError(fault)
        generator.load_state_dict(tensors, strict=True)
    except (OSError, SafetensorError, RuntimeError, KeyError, TypeError, MedformerError) as error:
        raise CheckpointError(f"{path}: not the weights of this generator: {' '.join(str(error).split())}") from None
    return generator.eval()


def generator_rules(folder: Path) -> tuple[TrainedOn, ...]:
    """By which rules the images came that a generator was trained on.

    Raises:
        CheckpointError: it is no generator, or its document is damaged.
    """
    return trained.read(_document(folder), str(folder / "config.json"))


def _document(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = read_json(folder / "config.json", CheckpointError)
    if document.get("format") != FORMAT or document.get("version") != VERSION:
        raise CheckpointError(f"{folder}: not a generator of BrainFuse of version {VERSION}")
    return document
