"""A training step of one rank, followed without values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cluster.plan.images import Images
from cluster.plan.shapes import shapes_only
from cluster.plan.tracker import Tracker
from data_shards.stream.batch import Batch
from data_shards.support.errors import ConfigError
from pretrain.config import PretrainConfig
from pretrain.module import PretrainModule, without_values
from pretrain.objectives import Views
from pretrain.view_factory import ViewFactory
from pretrain.views.transforms import TRANSFORMS, Change


@dataclass(frozen=True)
class Step:
    """What a step costs one rank.

    Attributes:
        flops: operations of the forward and backward pass, with those that are computed again.
        forward_flops: those of the forward pass alone, of networks without gradient too.
        kept_bytes: what the forward pass leaves for the backward pass, images included.
        peak_bytes: the most that is there at once in either, images included, gradients of parameters not.
        peak_with_gradients: the same with the gradients of parameters that are there by then.
        gradient_bytes: all gradients of parameters.
    """

    flops: int
    forward_flops: int
    kept_bytes: int
    peak_bytes: int
    peak_with_gradients: int
    gradient_bytes: int = 0


def shapes_of(config: PretrainConfig) -> PretrainModule:
    """The module of a run without values; to be called anywhere.

    Raises:
        ConfigError: model or objectives cannot be made.
    """
    model = config.model.model_copy(update={"init_from": None})  # other values in the same shapes
    return without_values(config.model_copy(update={"model": model})).to("meta")


def follow(config: PretrainConfig, images: Images, *, rows: int, ranks: int, micro_batch: int | None = None) -> Step:
    """Follow a step on ``rows`` images of each rank.

    Args:
        config: the run.
        images: what is shown.
        rows: images of each rank.
        ranks: how many there are.
        micro_batch: images that go through the network at once; None for all.

    Raises:
        ConfigError: a part of the run needs values.
    """
    data = config.data.model_copy(update={"micro_batch_size": micro_batch, "batch_size": rows * ranks})
    config = config.model_copy(update={"data": data})
    module = shapes_of(config).train()
    try:
        with shapes_only(ranks=ranks, mixed=config.precision == "bf16"):
            return _followed(module, lambda: _views(config, images, rows, ranks))
    except (NotImplementedError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"objectives: a step of {', '.join(config.objectives)} cannot be followed without values: {reason}"
        ) from error


def _followed(module: nn.Module, make_views: Callable[[], Views]) -> Step:
    tracker = Tracker()
    for tensor in (*module.parameters(), *module.buffers()):
        tracker.exempt(tensor)
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda each: tracker.set_aside(_gradient(each)))
    with tracker:
        views = make_views()
        tracker.restart()  # images are made before, and by other means: see `_views`
        loss, parts = module(views, 0.0)
        del parts
        forward, kept = tracker.flops, tracker.live
        loss.backward()
    return Step(tracker.flops, forward, kept, tracker.peak, tracker.peak_with_aside, tracker.aside)


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _views(config: PretrainConfig, images: Images, rows: int, ranks: int) -> Views:
    """The views, of the sizes they have; what changes intensities is left out, as it needs values."""
    still = images.views.changed(
        **{name: None for name in images.views.transforms if issubclass(TRANSFORMS[name], Change)}
    )
    numbers = torch.zeros(rows, dtype=torch.int64)
    batch = Batch(
        images=torch.zeros(rows, *images.shape, dtype=torch.uint8),
        label_BL=torch.zeros(rows, 0),
        sample_B=numbers,
        organ_B=numbers,
        modality_B=numbers,
        task_B=numbers,
        spacing_mm_BA=None,  # type: ignore[arg-type]
        dataset=0,
        name=images.name,
        dataset_epoch=0,
        epoch=0,
        batch=0,
        rows=(rows,) * ranks,
    )
    return ViewFactory(config, torch.device("meta"), [still])(batch)
