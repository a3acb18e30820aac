"""Training by the reference recipe: every weight, a fixed schedule, the epoch by the validation split."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data_shards.support.errors import DataError, TrainingError
from finetune.cases import Cases
from finetune.fit.encoding import encode, ranged
from finetune.fit.network import Network, Readout
from finetune.fit.room import studies_at_once
from finetune.heads import create_head
from finetune.progress import progress
from finetune.random_state import reseed, seeded
from finetune.reference.checkpoint import Run, State, load_run, save_run
from finetune.reference.recipe import SHAPE_FACTOR, ReferenceRecipe
from finetune.splits import shuffled
from finetune.targets import Target, create_target
from pretrain.backbone import Backbone

_SAVED = 5
"""So many epochs lie between two states that are kept."""
_EPOCHS = 1_000_003
"""Between the seeds of two fits."""

Say = Callable[[int, float, float], None]
"""Is told of each epoch: its number from 1, mean loss of training, deciding score of the validation split."""


@dataclass(frozen=True)
class ReferenceFit:
    """A network that was trained by the recipe.

    Attributes:
        network: with the weights of the chosen epoch, in evaluation mode.
        target: what it tells.
        recipe: how it was trained.
        epoch: the chosen one, from 1.
        curve: the deciding score of the validation split after each epoch; empty without one.
        losses: mean loss of training in each epoch.
        last: the weights of the last epoch.
    """

    network: Network
    target: Target
    recipe: ReferenceRecipe
    epoch: int
    curve: tuple[float, ...]
    losses: tuple[float, ...]
    last: State

    def probabilities(self, cases: Cases) -> np.ndarray:
        """Probabilities ``(N, C)``, two columns for a binary task; of numbers the numbers."""
        return said(self.network, self.target, cases, self.recipe)

    def at_last(self, cases: Cases) -> np.ndarray:
        """The same by the network as it was after the last epoch."""
        network = copy.deepcopy(self.network)
        network.load_state_dict(self.last)
        return said(network, self.target, cases, self.recipe)

    def selection(self, where: str) -> str:
        """How the epoch was chosen, in words.

        Args:
            where: what stood for the validation split.
        """
        if not self.curve:
            return "none: the last epoch, nothing was held out"
        if not np.isfinite(self.curve).any():
            return f"none: the last epoch, the score on {where} is undefined"
        return f"the epoch with the best {self.target.metrics[0].words} on {where}"


def fit_reference(
    backbone: Backbone,
    train: Cases,
    val: Cases | None,
    recipe: ReferenceRecipe,
    *,
    seed: int,
    device: str = "cpu",
    say: Say | None = None,
    checkpoint: Path | None = None,
) -> ReferenceFit:
    """Train a backbone and a linear layer on its embedding.

    One class of two, and one of several in an order, are told as one of several: by a softmax, as the recipe has it.
    The order of the cases in each epoch depends on the seed alone.

    Args:
        backbone: is not changed; a copy is trained.
        train: labelled cases.
        val: by which the epoch is chosen; None takes the last.
        recipe: the schedule.
        seed: of the linear layer, of dropout where the network has it, and of the order.
        device: where it runs.
        say: is told of each epoch.
        checkpoint: a file that the fit goes on from where it is there, and that is written every five epochs.

    Raises:
        CheckpointError: the file is damaged, or of another fit.
        TrainingError: the loss is not finite; the epoch is named.
        ConfigError: the backbone does not read such images.
        DataError: memory has no room for a batch.
    """
    target = scored_as(train.target).fitted_to(train.known_labels)
    place = torch.device(device)
    with seeded(seed, place), progress(recipe.epochs, "epochs", f"{train.name}: reference recipe") as shown:
        network = _network(backbone, target).to(place)
        _check_room(network.backbone, train, min(recipe.batch_size, len(train)))
        optimizer = torch.optim.Adam(network.parameters(), lr=recipe.rate)
        identity = _identity(train, val, recipe, seed)
        run = Run() if checkpoint is None else load_run(checkpoint, network, optimizer, identity)
        shown.advance(run.epoch)
        for epoch in range(run.epoch + 1, recipe.epochs + 1):
            reseed(_EPOCHS * seed + epoch, place)  # for dropout, where the network has it
            loss = _epoch(network, target, train, optimizer, recipe, seed, epoch)
            if not math.isfinite(loss):
                raise TrainingError(f"{train.name}: reference recipe: the loss of epoch {epoch} is {loss}")
            run.losses.append(loss)
            score = math.nan
            if val is not None:
                score = _score(target, val, said(network, target, val, recipe))
                run.curve.append(score)
                if not math.isnan(score) and (run.best == 0 or score > run.curve[run.best - 1]):
                    run.best, run.kept = epoch, _state(network)
            run.epoch = epoch
            if checkpoint is not None and (epoch % _SAVED == 0 or epoch == recipe.epochs):
                save_run(checkpoint, run, network, optimizer, identity)
            if say is not None:
                say(epoch, loss, score)
            shown.advance(1)
        last = _state(network)
        network.load_state_dict(run.kept if run.best else last)
    chosen = run.best or recipe.epochs
    return ReferenceFit(network.eval(), target, recipe, chosen, tuple(run.curve), tuple(run.losses), last)


def scored_as(target: Target) -> Target:
    """The target as the recipe trains for it: one class is one of several, by a softmax."""
    return create_target("multiclass", target.classes) if target.task.name in ("binary", "ordinal") else target


def said(network: Network, target: Target, cases: Cases, recipe: ReferenceRecipe) -> np.ndarray:
    """What a network in whatever mode says of cases in evaluation, ``(N, C)``."""
    network.eval()
    parts = []
    with torch.no_grad():
        for start in range(0, len(cases), recipe.batch_size):
            rows = np.arange(start, min(start + recipe.batch_size, len(cases)))
            factors = np.full(len(rows), SHAPE_FACTOR) if recipe.shapes else None
            parts.append(_logits(network, cases, rows, factors).double().cpu())
    return target.probabilities(target.log_scores(torch.cat(parts)).numpy())


def _network(backbone: Backbone, target: Target) -> Network:
    """A copy of the backbone under a linear layer as torch makes it."""
    head = create_head("linear", int(backbone.embed_dim), target.outputs, {"reads": "embedding"})
    for layer in head.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.reset_parameters()
    return Network(copy.deepcopy(backbone), Readout.of(head, target))


def _identity(train: Cases, val: Cases | None, recipe: ReferenceRecipe, seed: int) -> str:
    """What must be the same for a fit to go on, as text."""
    data = {"train": train.content_sha256(), "val": None if val is None else val.content_sha256()}
    return json.dumps({**data, "recipe": vars(recipe), "seed": seed}, sort_keys=True)


def _check_room(backbone: Backbone, train: Cases, batch_size: int) -> None:
    """Refuse images of which memory has no room for a batch, which batch normalisation sees as a whole.

    Raises:
        DataError: names a size that fits.
    """
    try:
        studies_at_once(backbone, train.studies_of(0)[0], dense=False, train=True, together=batch_size)
    except DataError as error:
        raise DataError(f"{train.name}: the reference recipe takes {batch_size} cases at once: {error}") from None


def _epoch(
    network: Network,
    target: Target,
    train: Cases,
    optimizer: torch.optim.Optimizer,
    recipe: ReferenceRecipe,
    seed: int,
    epoch: int,
) -> float:
    """One pass over the cases; the mean loss of a batch."""
    network.train()
    order = shuffled(len(train), seed, f"reference epoch {epoch}")
    values = target.values(train.known_labels)
    generator = np.random.default_rng([seed, epoch])
    for group in optimizer.param_groups:
        group["lr"] = recipe.rate_in(epoch)
    losses = []
    for start in range(0, len(order), recipe.batch_size):
        rows = order[start : start + recipe.batch_size]
        factors = generator.uniform(size=len(rows)) if recipe.shapes else None
        logits_BK = _logits(network, train, rows, factors)
        loss = target.loss(logits_BK, values[torch.from_numpy(rows)].to(logits_BK.device)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return float(np.mean(losses))


def _logits(network: Network, cases: Cases, rows: np.ndarray, factors: np.ndarray | None) -> Tensor:
    """Logits of the cases at ``rows``, intensities in [0, 1] multiplied by a factor for each of their studies."""
    studies = [cases.studies_of(int(row)) for row in rows]
    owners = np.repeat(np.arange(len(rows)), [len(each) for each in studies])

    def inputs(images: Tensor, numbers_B: np.ndarray, spacing_BA: Tensor | None) -> Tensor:
        del spacing_BA
        made = ranged(images)
        if factors is None:
            return made
        factor_B = torch.from_numpy(factors[owners[numbers_B]]).to(made)
        # The range of the network is [-1, 1]; the factor is of intensities in [0, 1].
        return factor_B.view(-1, *(1,) * (made.ndim - 1)) * (made + 1) - 1

    logits_BK: Tensor = network.readout(encode(network.backbone, studies, dense=False, inputs=inputs))
    return logits_BK


def _score(target: Target, cases: Cases, probabilities: np.ndarray) -> float:
    metric = target.metrics[0]
    return float(metric.score(cases.known_labels, probabilities, target.task, None))


def _state(network: Network) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
