"""Making views and drawing for objectives: nothing waits for the device, and a few numbers per image go to it."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pretrain.config import PretrainConfig
from pretrain.module import PretrainModule, create_backbone
from pretrain.view_factory import ViewFactory
from pretrain.views import ViewConfig, augment
from tests.pretrain.objective_views import batch_of, document_of
from tests.pretrain.view_samples import STRONG, keys, noise_images

ROWS = 6
NUMBERS = 16
"""How many numbers per image may be computed on the host or sent to the device in one piece."""
OBJECTIVES: dict[str, dict[str, Any]] = {
    "simclr": {},
    "dino": {"ibot": 1.0, "cells": 1, "small": {"count": 2}},
    "masked": {"cells": 1},
    "restore": {"task": "artefacts"},
    "rotation": {},
    "jigsaw": {},
}
SHAPES = [(3, 16, 16), (1, 16, 16, 16)]


class FewNumbersFromTheHost(TorchDispatchMode):
    """Fails where a value is asked of the device, or more than a few numbers per image are handled on the host.

    Tensors of the meta device have no values: whatever asks for one fails by itself, NumPy's functions as well. The
    images of the batch are sent once.
    """

    def __init__(self, images: Tensor | None = None) -> None:
        super().__init__()
        self.images = images
        self.sent: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        given, made = (
            [each for each in tree_leaves(part) if isinstance(each, Tensor)] for part in ([args, kwargs], [found])
        )
        if self.images is not None and any(each is self.images for each in given):
            sent = func is torch.ops.aten._to_copy.default and found.device.type == "meta"
            assert sent, f"{func} of the images on the host"
            self.images = None
            return found
        on_host = [each for each in [*given, *made] if each.device.type == "cpu"]
        for each in on_host:
            assert each.numel() <= ROWS * NUMBERS, f"{func} of {tuple(each.shape)} on the host"
        if func is torch.ops.aten._to_copy.default and {each.device.type for each in [*given, *made]} > {"cpu"}:
            self.sent.append(made[0].numel())
        return found


def configured(shape: tuple[int, ...]) -> PretrainConfig:
    views = STRONG.changed(stain={}) if shape[0] == 3 else STRONG
    return document_of(OBJECTIVES, views=views.model_dump())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("known", [pytest.param(False, marks=pytest.mark.slow), True])
def test_views_of_every_kind_are_made_where_the_images_are(shape: tuple[int, ...], known: bool) -> None:
    config, images = configured(shape), noise_images(ROWS, *shape)
    factory = ViewFactory(config, torch.device("meta"))
    batch = batch_of(images, slice(0, ROWS), (ROWS,))
    if known:
        batch = dataclasses.replace(batch, spacing_mm_BA=torch.rand(ROWS, len(shape) - 1) + 0.5)
    for _ in range(2):
        mode = FewNumbersFromTheHost(batch.images)
        with mode:
            views = factory(batch)
        assert mode.images is None, "the images were sent"
        for view in (*views.full, *[each for kind in views.small.values() for each in kind], views.clean):
            assert view.images.device.type == view.keys_B.device.type == view.metadata.organ_B.device.type == "meta"
    # Sample numbers, three ids, spacings of the images and of each view; once more the words of streams at first.
    assert len(mode.sent) <= 5 + 2 + 3 + 2 and sum(mode.sent) <= ROWS * 40


@pytest.mark.parametrize("shape", SHAPES)
def test_objectives_draw_where_the_images_are(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    # Autocast knows no meta device.
    monkeypatch.setattr("torch.autocast", lambda *_, **__: contextlib.nullcontext())
    config, images = configured(shape), noise_images(ROWS, *shape)
    with torch.device("meta"):
        module = PretrainModule(create_backbone(config.model), config.objectives)
    views = ViewFactory(config, torch.device("meta"))(batch_of(images, slice(0, ROWS), (ROWS,)))
    mode = FewNumbersFromTheHost()
    with mode:
        loss, _ = module(views)
        loss.backward()
    assert sum(mode.sent) <= ROWS * NUMBERS


def test_what_is_done_on_the_host_or_waited_for_is_found() -> None:
    images = noise_images(ROWS, 1, 16, 16)
    there = images.to("meta")
    with FewNumbersFromTheHost(), pytest.raises(RuntimeError, match="meta"):
        there.sum().item()
    with FewNumbersFromTheHost(), pytest.raises(NotImplementedError, match="meta"):
        there[there > 0]
    with FewNumbersFromTheHost(), pytest.raises((TypeError, RuntimeError)):
        np.asarray(there)
    with FewNumbersFromTheHost(), pytest.raises(AssertionError, match="on the host"):
        there + torch.from_numpy(np.zeros((ROWS, 1, 16, 16), np.float32)).to("meta")
    with FewNumbersFromTheHost(images), pytest.raises(AssertionError, match="of the images on the host"):
        images.float()


def test_what_takes_the_way_of_a_gpu_gives_the_bits_of_the_way_of_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chosen images alone are computed on a CPU, all of them elsewhere; nothing else differs."""

    def elsewhere(images: Tensor, chosen_B: Tensor, change: Any, *values: Tensor) -> Tensor:
        column = chosen_B.view(-1, *[1] * (images.ndim - 1))
        return torch.where(column, change(images, *values), images)

    for shape in ((3, 20, 14), (1, 9, 12, 10)):
        images, own = noise_images(9, *shape), keys(9)
        expected = augment(images, own, STRONG)
        with monkeypatch.context() as patch:
            for module in ("blur", "anisotropy"):
                patch.setattr(f"pretrain.views.transforms.{module}.where_chosen", elsewhere)
            assert torch.equal(augment(images, own, STRONG), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 32, 32, 32)])
def test_a_gpu_never_waits_and_gives_what_a_cpu_gives(shape: tuple[int, ...]) -> None:
    config, images = configured(shape), noise_images(ROWS, *shape)
    batch = batch_of(images, slice(0, ROWS), (ROWS,)).pin_memory()
    factory = ViewFactory(config, torch.device("cuda"))
    factory(batch)  # libraries that start up may wait
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        there = factory(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    here = ViewFactory(config, torch.device("cpu"))(batch)
    for one, other in zip(there.full, here.full, strict=True):
        assert torch.equal(one.keys_B.cpu(), other.keys_B)
        assert torch.equal(one.metadata.organ_B.cpu(), other.metadata.organ_B)
        distance = (one.images.cpu() - other.images).abs()
        # Solarisation turns a rounding at its threshold into a jump.
        assert distance.flatten().quantile(0.999) < 1e-3
    default = ViewConfig()
    both = [augment(images.to(device), keys(ROWS).to(device), default).cpu() for device in ("cuda", "cpu")]
    torch.testing.assert_close(*both, atol=2e-4, rtol=0)
