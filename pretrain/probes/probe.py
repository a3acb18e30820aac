"""Probing a network in the middle of its training, without leaving a trace in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data_shards.order.plan import part
from data_shards.reading.cropped import Crop
from data_shards.storage import Cache
from data_shards.support.errors import ConfigError
from data_shards.vocabulary import Task
from pretrain.backbone import Backbone
from pretrain.backbone.modes import evaluating
from pretrain.intensity import in_range
from pretrain.metadata import Metadata
from pretrain.objectives.collectives import all_gather_rows
from pretrain.partitions import whole
from pretrain.probes.config import ProbesConfig
from pretrain.probes.images import Labelled, labelled_images
from pretrain.probes.scores import probe_scores
from pretrain.runtime import Runtime, on_rank_zero
from pretrain.spacing import as_spacing, on_device
from pretrain.tiling import SlidingWindows, window_of_crops


@dataclass(frozen=True)
class Probe:
    """The images of one dataset, and how they are probed.

    Attributes:
        name: of the dataset, under which the scores are logged.
        fit: images that the probes are fitted on.
        score: images of other subjects.
        neighbours: of the nearest-neighbour probe.
    """

    name: str
    fit: Labelled
    score: Labelled
    neighbours: int

    @property
    def exclusive(self) -> bool:
        """Whether an image is of one class."""
        return self.fit.dataset.card.task != Task.multilabel.name

    def classes_of(self, images: Labelled) -> np.ndarray:
        """``N, K``: 1 where an image is of a class of those that are fitted on."""
        if not self.exclusive:
            return images.label_NL
        return (images.label_NL == np.unique(self.fit.label_NL)).astype(np.int64)


def open_probes(config: ProbesConfig, cache: Cache, crop: Crop | None = None) -> list[Probe]:
    """The probes of a run.

    Args:
        config: what is probed.
        cache: for shards on a server.
        crop: what the network is shown of volumes: those that are larger are read in windows of that size.

    Raises:
        DataError: a folder or a split is not there.
        ConfigError: images that cannot be probed on, or two datasets of one name.
    """
    found = []
    for each in config.datasets:
        fit, score = labelled_images(each, config.most_images, cache, crop)
        name = fit.dataset.card.name if each.image is None else f"{fit.dataset.card.name}-{each.image}"
        found.append(Probe(name, fit, score, config.neighbours))
    names = [probe.name for probe in found]
    if len(set(names)) < len(names):
        raise ConfigError(f"probes: two datasets are called alike: {', '.join(names)}")
    return found


def probe_all(
    probes: Sequence[Probe],
    backbone: Backbone,
    runtime: Runtime,
    at_once: int,
    show: Callable[[Probe, np.ndarray], None] | None = None,
) -> dict[str, float]:
    """The scores of every probe, the same on every rank.

    The ranks embed the images together; rank 0 fits and scores, and the others wait for it. The network is in
    evaluation mode for as long, and no random generator, buffer or gradient is touched.

    Args:
        probes: what is probed.
        backbone: the network, as it is.
        runtime: the surroundings; every rank calls this.
        at_once: images of a rank that go through the network at once.
        show: is given, on rank 0, the embeddings ``M, D`` of the images that each probe is scored on.

    Returns:
        ``probe/NAME/knn_auc`` and so on, and ``probe/seconds``, what it took.
    """
    began_s = time.perf_counter()
    devices = {runtime.device} if runtime.device.type == "cuda" else set()
    with whole(backbone), evaluating(backbone), torch.random.fork_rng(devices), torch.no_grad():
        embedded = [[_embedded(part, backbone, runtime, at_once) for part in (each.fit, each.score)] for each in probes]

    def scores() -> dict[str, float]:
        found: dict[str, float] = {}
        for each, (fit_ND, score_MD) in zip(probes, embedded, strict=True):
            truth = (each.classes_of(each.fit), each.classes_of(each.score))
            told = probe_scores(fit_ND, truth[0], score_MD, truth[1], each.neighbours, each.exclusive)
            found |= {f"probe/{each.name}/{name}": value for name, value in told.items()}
            if show is not None:
                show(each, score_MD)
        return found

    found = on_rank_zero(runtime, scores)
    return found | {"probe/seconds": on_rank_zero(runtime, lambda: time.perf_counter() - began_s)}


def _embedded(images: Labelled, backbone: Backbone, runtime: Runtime, at_once: int) -> np.ndarray:
    """Embeddings ``N, D`` of all images, on every rank."""
    bounds = [part(len(images.index_N), rank, runtime.world_size) for rank in range(runtime.world_size)]
    first, last = bounds[runtime.rank]
    made = [torch.zeros(0, backbone.embed_dim, device=runtime.device)]
    if images.window is not None:
        backbone, at_once = SlidingWindows(backbone, window_of_crops(images.window, int(backbone.stride))), 1
    for start in range(first, last, at_once):
        made.append(_features(images, images.index_N[start : min(start + at_once, last)], backbone, runtime.device))
    rows = tuple(end - begin for begin, end in bounds)
    found: np.ndarray = all_gather_rows(torch.cat(made), rows).cpu().numpy()
    return found


def _features(images: Labelled, index_B: np.ndarray, backbone: Backbone, device: torch.device) -> Tensor:
    records = images.dataset.read(index_B)
    task_B = np.full_like(records.organ_B, int(Task.self_supervised))
    metadata = Metadata(*(torch.from_numpy(ids_B) for ids_B in (records.organ_B, records.modality_B, task_B)))
    spacing_mm = on_device(as_spacing(torch.from_numpy(records.spacing_mm_BA)), device)
    stored = records.stacked if images.window is None else records.images[0][None]
    pixels = in_range(torch.from_numpy(stored).to(device), images.rule)
    return backbone.features(pixels, metadata.to(device), spacing_mm).embedding_BD.float()
