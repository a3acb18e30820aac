"""The pictures that a run leaves in ``out/figures``; nothing that is drawn changes what is learned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from data_shards.inspect.contact_sheet import COLUMNS, Line, draw_sheet
from data_shards.reading.reader import ShardedDataset
from pretrain.figures.scatter import draw_scatter
from pretrain.objectives import Views
from pretrain.probes.probe import Probe

FOLDER = "figures"


class RunFigures:
    """Draws on rank 0 alone: what the others see differs by chance only."""

    def __init__(self, out: Path, datasets: Sequence[ShardedDataset], rank: int) -> None:
        """Nothing is drawn yet.

        Args:
            out: the folder of the run.
            datasets: of the mixture, in its order.
            rank: of this worker.
        """
        self._folder, self._active = out / FOLDER, rank == 0
        self._titles = [dataset.card.title for dataset in datasets]

    def views(self, views: Views, dataset: int, step: int) -> None:
        """A sheet of the first images of a batch: as they are, and every view of them that objectives were given.

        Args:
            views: of rank 0, before or after the networks saw them.
            dataset: position in the mixture of that which the batch is from.
            step: the optimizer step.

        Raises:
            MedformerError: the file cannot be written.
        """
        if not self._active:
            return
        words = [f"what the network sees in step {step}: the first images of rank 0"]
        block = (self._titles[dataset], words, list(_lines(views)))
        draw_sheet([block], self._folder / "views" / _file(step))

    def embeddings(self, probe: Probe, score_MD: np.ndarray, step: int) -> None:
        """The embeddings of the images that a probe is scored on, along their two directions of largest variance.

        A point has the colour of its class; where an image may have several labels, that of its first one.

        Args:
            probe: which.
            score_MD: embeddings of ``probe.score``.
            step: the optimizer step.

        Raises:
            MedformerError: the file cannot be written.
        """
        if not self._active or len(score_MD) < 2 or not np.isfinite(score_MD).all():
            return
        pca = PCA(n_components=2, svd_solver="full").fit(score_MD)
        shares = ", ".join(f"{share:.0%}" for share in pca.explained_variance_ratio_)
        label_NL, classes = probe.score.label_NL, dict(probe.score.dataset.card.classes)
        if probe.exclusive:
            class_N, names = (
                label_NL[:, 0].astype(int),
                [classes.get(k, str(k)) for k in range(int(label_NL.max()) + 1)],
            )
        else:
            none = label_NL.shape[1]
            class_N = np.where(label_NL.any(axis=1), label_NL.argmax(axis=1), none)
            names = [*(classes.get(k, str(k)) for k in range(none)), "none"]
        title = f"{probe.name}, step {step}: PCA of {len(score_MD)} embeddings ({shares} of the variance)"
        draw_scatter(
            pca.transform(score_MD), class_N, names, title, self._folder / "embeddings" / probe.name / _file(step)
        )


def _file(step: int) -> str:
    return f"step-{step:08d}.png"


def _lines(views: Views) -> Iterator[Line]:
    if views.source is not None:
        yield "as they are", _pictures(views.source.images)
    for number, images in enumerate(views.images):
        yield f"view {number + 1}, {_size(images)}", _pictures(images)
    for kind, small in views.small.items():
        for number, view in enumerate(small):
            yield f"small view {number + 1} of {kind}, {_size(view.images)}", _pictures(view.images)
    if views.clean is not None:
        yield (
            f"cut as the first view, intensities as they are, {_size(views.clean.images)}",
            _pictures(views.clean.images),
        )


def _size(images: Tensor) -> str:
    return "x".join(map(str, images.shape[2:]))


def _pictures(images: Tensor) -> list[np.ndarray]:
    """Normalised images as 8-bit ones."""
    shown = images[:COLUMNS].detach().float().cpu()
    return list(((shown + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy())
