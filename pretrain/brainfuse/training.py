"""Training the generator of BrainFuse, from a document to a bundle; no label is read, and the training split alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from data_shards.format.manifest import read_manifest
from data_shards.intensity import IntensityRule
from data_shards.support.allocator import keep_freed_memory
from data_shards.support.documents import Document, digest, recorded, resolved, write_resolved
from data_shards.support.errors import CheckpointError, ConfigError, TrainingError
from data_shards.support.files import refuse_existing
from data_shards.support.progress import Progress
from pretrain.brainfuse.bundle import save_generator
from pretrain.brainfuse.generator import Between, Generator, GeneratorConfig
from pretrain.brainfuse.losses import photometric, registration, smoothness
from pretrain.brainfuse.triples import pairs, slices_at, triples
from pretrain.brainfuse.volumes import Volumes
from pretrain.changes import changes, check_keys
from pretrain.devices import check_device


class Weights(Document):
    """Of the terms of the loss beside that of the image."""

    occlusion: float = Field(0.5, ge=0, description="of the better of the two moved images at each pixel")
    smoothness: float = Field(0.01, ge=0, description="of the displacements")
    registration: float = Field(0.1, ge=0, description="between subjects; 0 leaves pairs of subjects out")
    edges: float = Field(1.0, ge=0, description="how much more edges count")


class GeneratorRun(Document):
    """One training of a generator."""

    out: Path = Field(description="folder that appears")
    shards: Path = Field(description="volumes; their split train is learned from, val is measured on where it is there")
    image: str | None = Field(None, description="name of the image, where a sample has several")
    intensity: IntensityRule | None = Field(
        None, description="how stored values become the range of the network; none takes the rule of the manifest"
    )
    axis: int = Field(0, ge=0, le=2, description="across which axis of D,H,W slices lie")
    generator: GeneratorConfig = Field(GeneratorConfig(), description="the network")
    slab: int = Field(8, ge=2, description="slices of a slab, for a generator of three axes")
    gaps: tuple[int, ...] = Field((1, 2, 3), min_length=1, description="slices from the middle to either neighbour")
    steps: int = Field(1000, ge=1, description="optimizer steps")
    batch_size: int = Field(16, ge=1, description="triples of a step")
    pairs: int = Field(8, ge=1, description="pairs of subjects of a step")
    pairs_every: int = Field(4, ge=1, description="steps from one with pairs to the next")
    lr: float = Field(1e-3, gt=0, description="peak rate of AdamW")
    weight_decay: float = Field(1e-3, ge=0, description="of AdamW")
    weights: Weights = Field(Weights(), description="of the terms of the loss")
    checkpoint_every: int = Field(250, ge=1, description="steps")
    seed: int = Field(0, ge=0, description="of weights and draws")
    device: Literal["cpu", "cuda"] = Field("cpu", description="where it runs")
    threads: int | None = Field(None, ge=1, description="CPU threads")

    @model_validator(mode="after")
    def _context_is_of_slices(self) -> GeneratorRun:
        if self.generator.axes == 3 and self.generator.context:
            raise ValueError("context is of slices; a generator of three axes sees slabs")
        if min(self.gaps) < 1:
            raise ValueError("gaps are of one slice at least")
        return self


def train_generator(config: GeneratorRun, *, resume: bool = False) -> Path:
    """Train a generator.

    A run that was ended at any time goes on from its last checkpoint to the same weights.

    Args:
        config: the run.
        resume: go on from the checkpoint in ``config.out`` when there is one; otherwise the folder must not exist.

    Returns:
        The folder of the bundle.

    Raises:
        ConfigError: the folder exists, there are too few subjects, or the volumes have other channels than the
            generator or values that no rule is given for.
        DataError: the shards cannot be read, or hold no volumes.
        CheckpointError: the checkpoint is of another run.
        TrainingError: the loss is not a number any more; the last checkpoint is kept.
    """
    if config.out.exists() and not resume:
        raise ConfigError(f"{config.out} exists already; choose another out, or pass --resume to go on")
    refuse_existing(config.out, overwrite=resume)
    check_device(config.device)
    keep_freed_memory()
    if config.threads:
        torch.set_num_threads(config.threads)
    volumes = Volumes(config.shards, "train", config.axis, config.image, config.intensity)
    if (channels := volumes.trained_on.channels) != config.generator.channels:
        raise ConfigError(
            f"{config.shards}: volumes of {channels} channels by the rule {volumes.trained_on.rule.words}; "
            f"generator.channels is {config.generator.channels}"
        )
    across = config.weights.registration > 0
    if across and len(np.unique(volumes.subjects)) < 2:
        raise ConfigError(f"{config.shards}: one subject; weights.registration needs two (0 leaves it out)")
    torch.manual_seed(config.seed)
    generator = Generator(config.generator).to(config.device)
    optimizer = torch.optim.AdamW(generator.parameters(), config.lr, weight_decay=config.weight_decay)
    checkpoint, step = config.out / "checkpoint.pt", 0
    if resume and checkpoint.is_file():
        step = _restore(checkpoint, config, generator, optimizer)
    config.out.mkdir(parents=True, exist_ok=True)
    write_resolved(config, config.out)
    slab = config.slab if config.generator.axes == 3 else None
    with Progress(config.steps, "steps", "generator", initial=step) as shown:
        while step < config.steps:
            # Numbers of a step depend on seed and step alone, so a run that was interrupted draws the same.
            drawing = torch.Generator().manual_seed(
                int(np.random.SeedSequence([config.seed, step]).generate_state(1)[0])
            )
            for group in optimizer.param_groups:
                group["lr"] = config.lr * _share(step, config.steps)
            given = triples(volumes, config.batch_size, config.gaps, drawing, config.generator.context, slab)
            a, b, target, t = (each.to(config.device) for each in (given.a, given.b, given.target, given.t))
            found = generator(a, b, t)
            parts = photometric(found, target, edges=config.weights.edges)
            loss = parts["image"] + config.weights.occlusion * parts["occlusion"]
            loss = loss + config.weights.smoothness * _roughness(found, target, target)
            if across and step % config.pairs_every == 0:
                first, second = pairs(
                    volumes, volumes.subjects, config.pairs, drawing, config.generator.context, slab
                )  # fmt: skip
                between = generator(first.to(config.device), second.to(config.device), 0.5)
                loss = loss + config.weights.registration * registration(between)
                loss = loss + 2 * config.weights.smoothness * _roughness(between, between.moved_a, between.moved_b)
            if not bool(loss.isfinite()):
                raise TrainingError(f"generator: the loss of step {step + 1} is {loss.item()}; lower the rate")
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(generator.parameters(), 1.0)
            optimizer.step()
            step += 1
            shown.advance(1, loss=float(loss.detach()))
            if step % config.checkpoint_every == 0 or step == config.steps:
                _save(checkpoint, config, generator, optimizer, step)
    metrics = {}
    if "val" in _splits(config.shards):
        held_out = Volumes(config.shards, "val", config.axis, config.image, config.intensity)
        if slab is None:
            metrics = {f"gap {gap}": gain_db(generator, held_out, gap) for gap in config.gaps}
    provenance: dict[str, Any] = {
        "config": recorded(config), "config_sha256": digest(config), "volumes": len(volumes),
        "subjects": len(np.unique(volumes.subjects)), "split": "train",
    }  # fmt: skip
    told = {"psnr gain over the mean, dB": metrics}
    return save_generator(config.out / "bundle", generator, provenance, told, [volumes.trained_on])


@torch.no_grad()
def gain_db(generator: Generator, volumes: Volumes | list[Tensor], gap: int) -> float:
    """How much higher the PSNR of the slice halfway is than that of the mean of its neighbours, the mean over volumes.

    Args:
        generator: of slices.
        volumes: it has not learned from; those too short for the gap, or without an error to compare, are left out.
        gap: slices to either neighbour.
    """
    device = next(generator.parameters()).device
    found = []
    for volume in volumes:
        places = torch.arange(gap, volume.shape[1] - gap)
        if not len(places):
            continue
        rows, context = torch.zeros_like(places), generator.config.context
        a, b = (slices_at([volume], rows, places + step, context).to(device) for step in (-gap, gap))
        target = slices_at([volume], rows, places).to(device)
        plain = (slices_at([volume], rows, places - gap) + slices_at([volume], rows, places + gap)).to(device) / 2
        error, of_mean = ((image - target).square().mean() for image in (generator(a, b, 0.5).image, plain))
        if error > 0 and of_mean > 0:
            found.append(10 * math.log10(float(of_mean / error)))
    return float(np.mean(found)) if found else float("nan")


def _roughness(found: Between, image_a: Tensor, image_b: Tensor) -> Tensor:
    return smoothness(found.flow_a, image_a) + smoothness(found.flow_b, image_b)


def _share(step: int, steps: int) -> float:
    """Of the peak rate: a short warm-up, then a cosine to zero."""
    warm = max(1, steps // 20)
    if step < warm:
        return (step + 1) / warm
    return (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))) / 2


def _splits(shards: Path) -> set[str]:
    return {name for name, split in read_manifest(shards).splits.items() if split.samples}


def _save(path: Path, config: GeneratorRun, generator: Generator, optimizer: torch.optim.Optimizer, step: int) -> None:
    partial = path.with_suffix(".partial")
    state = {
        "config_sha256": digest(config), "step": step,
        "generator": generator.state_dict(), "optimizer": optimizer.state_dict(),
    }  # fmt: skip
    torch.save(state, partial)
    partial.rename(path)


_NEEDED = ("config_sha256", "step", "generator", "optimizer")


def _restore(path: Path, config: GeneratorRun, generator: Generator, optimizer: torch.optim.Optimizer) -> int:
    try:
        state = torch.load(path, map_location=config.device, weights_only=True)
        check_keys(state, _NEEDED, str(path))
        if state["config_sha256"] != digest(config):
            raise CheckpointError(
                f"{path} is of another configuration{changes(config.out, resolved(config))}; go on with the document "
                "and the version of Medformer that it is of, or start anew in another out"
            )
        generator.load_state_dict(state["generator"])
        optimizer.load_state_dict(state["optimizer"])
        return int(state["step"])
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"{path} cannot be loaded: {' '.join(str(error).split())[:300]}") from None
