"""What the families of objectives are made of, against closed forms and independent computation."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from data_shards.support.errors import ConfigError, TrainingError
from pretrain.backbone import StudyImage
from pretrain.backbone.position import Grid
from pretrain.backbone.visible import Visible, cells_of, cut, padded_grid, within
from pretrain.data import check_objectives
from pretrain.metadata import Metadata
from pretrain.module import PretrainModule, create_backbone
from pretrain.objectives.damage import artefacts, coarse, grey, noisy
from pretrain.objectives.jigsaw import shuffled
from pretrain.objectives.prototypes import sinkhorn
from pretrain.objectives.rotation import turned, turned_spacing
from pretrain.view_factory import ViewFactory
from pretrain.views.random import sample_keys, uniforms
from tests.pretrain.objective_views import batch_of, document_of, drifting_images, views_of

TINY = {"hidden": 8, "out": 4}


def keys(count: int) -> torch.Tensor:
    return sample_keys(0, 0, 0, torch.arange(count), 0)


def test_sinkhorn_equals_lightlys_and_uses_all_prototypes_alike() -> None:
    from lightly.loss.swav_loss import sinkhorn as theirs

    generator = torch.Generator().manual_seed(0)
    cosines = F.normalize(torch.randn(24, 7, generator=generator, dtype=torch.float64), dim=1)
    found = sinkhorn(cosines, 0.05, 3, 24)
    torch.testing.assert_close(found, theirs(cosines, iterations=3, epsilon=0.05, gather_distributed=False))
    many = sinkhorn(cosines, 0.05, 500, 24)
    torch.testing.assert_close(many.sum(dim=0), torch.full((7,), 24 / 7, dtype=torch.float64), rtol=1e-6, atol=1e-6)


def test_swav_equals_lightlys_loss() -> None:
    from lightly.loss import SwaVLoss

    config = document_of({"swav": {**TINY, "prototypes": 6, "small": {"count": 2}}})
    torch.manual_seed(0)
    module = PretrainModule(create_backbone(config.model), config.objectives).double()
    views, swav = views_of(config, drifting_images(12, (1, 16, 16))), module.objectives["swav"]
    whole = views.embeddings(module.backbone)
    small = views.small_embeddings(module.backbone, swav.config.small)
    scores = [swav.prototypes(swav.projector.project(each, 12)) for each in (*whole, *small)]
    truth = SwaVLoss(temperature=0.1, sinkhorn_epsilon=0.05)(scores[:2], scores[2:]).squeeze()
    torch.testing.assert_close(module(views)[0], truth)


def test_dino_equals_lightlys_loss_and_centre() -> None:
    from lightly.loss import DINOLoss

    config = document_of({"dino": {**TINY, "prototypes": 6, "small": {"count": 1}, "warmup": 0.0, "tau": 1.0}})
    torch.manual_seed(0)
    module = PretrainModule(create_backbone(config.model), config.objectives).double()
    views, dino = views_of(config, drifting_images(12, (1, 16, 16))), module.objectives["dino"]
    whole = views.embeddings(module.backbone)
    students = [dino.head(each, 12) for each in (*whole, *views.small_embeddings(module.backbone, dino.config.small))]
    teachers = [dino.teacher_head(each, 12) for each in views.embeddings(dino.teacher)]
    theirs = DINOLoss(output_dim=6, teacher_temp=0.04, warmup_teacher_temp=0.04, student_temp=0.1).double()
    for _ in range(2):  # The second time with a centre that is not zero.
        torch.testing.assert_close(module(views)[0], theirs(teachers, students), check_dtype=False)
        module.after_step(0.5)
        torch.testing.assert_close(dino.centre_K, theirs.center.flatten(), check_dtype=False)


@pytest.mark.parametrize("axes", [2, 3])
def test_hidden_pixels_are_not_seen_and_seen_ones_are(axes: int) -> None:
    config = document_of({"masked": {"cells": 1}})
    torch.manual_seed(0)
    backbone = create_backbone(config.model).double()
    images = torch.randn(2, 1, *[9] * axes, dtype=torch.float64)  # 3 patches along each axis, the last continued
    metadata = Metadata.uniform(2)
    patch_BP = torch.tensor([[0, 3, 4], [1, 2, 7]])
    visible = Visible(patch_BP, 1)

    def latents(of: torch.Tensor) -> torch.Tensor:
        return backbone.encode([StudyImage(of)], metadata, visible=visible).latents_BND

    owner = cells_of(patch_BP, padded_grid((9,) * axes, 4, 0.0, 1), 1)
    assert torch.equal(owner, patch_BP)
    seen = torch.zeros_like(images, dtype=torch.bool)
    for row in range(2):
        for patch in patch_BP[row].tolist():
            place = np.unravel_index(patch, (3,) * axes)
            seen[(row, slice(None), *[slice(4 * at, 4 * at + 4) for at in place])] = True
    before = latents(images)
    assert torch.equal(latents(torch.where(seen, images, torch.randn_like(images))), before)
    assert not torch.allclose(latents(torch.where(seen, -images, images)), before)


def test_a_patch_stem_gives_visible_tokens_what_it_gives_the_whole_image() -> None:
    config = document_of({"masked": {}}, model={"kwargs": {"embed_dim": 8, "num_heads": 2, "stem": "patch"}})
    backbone = create_backbone(config.model).double()
    images = torch.randn(2, 1, 16, 16, dtype=torch.float64)
    whole, grid = backbone.adapter(images)
    visible = Visible(torch.tensor([[0, 3], [1, 2]]), 2)  # patches do not overlap, so nothing is lost at their edges
    found, padded = backbone.adapter(images, None, visible)
    assert padded.cells == grid.cells == (4, 4)
    chosen = cells_of(visible.patch_BP, padded, 2)
    torch.testing.assert_close(found, whole.gather(1, chosen[..., None].expand(-1, -1, 8)))


def test_patches_are_cut_in_row_major_order_and_continued() -> None:
    image = torch.arange(12.0).view(1, 1, 3, 4)
    patches = cut(image, 2)
    assert patches.shape == (1, 4, 1, 2, 2)
    assert patches[0, :, 0].tolist() == [[[0, 1], [4, 5]], [[2, 3], [6, 7]], [[8, 9], [8, 9]], [[10, 11], [10, 11]]]


def test_cells_outside_of_the_image_are_told_apart() -> None:
    padded = Grid((4, 2), (13, 8), 4, 0.0)
    number, inside = within(torch.tensor([[0, 3, 7]]), padded, (3, 2))
    assert number.tolist() == [[0, 3, 5]] and inside.tolist() == [[True, True, False]]


@pytest.mark.parametrize("axes", [2, 3])
def test_tiles_in_their_places_give_the_image_and_others_change_places(axes: int) -> None:
    images = torch.randn(3, 2, *[8] * axes)
    count = 2**axes
    order, still = torch.arange(count).repeat(3, 1), torch.zeros(3, count, axes)
    assert torch.equal(shuffled(images, order, still, 2, 0.0), images)
    moved = shuffled(images, order.flip(1), still, 2, 0.0)
    assert torch.equal(moved[(slice(None), slice(None), *[slice(4)] * axes)], images[..., *[slice(4, 8)] * axes])
    assert shuffled(images, order, still, 2, 0.3).shape[2:] == (4,) * axes


def test_turns_are_those_of_rot90_and_spacings_change_places() -> None:
    images, turns = torch.randn(4, 1, 3, 5, 5), torch.arange(4)
    assert all(torch.equal(turned(images, turns)[row], images[row].rot90(row, (-2, -1))) for row in range(4))
    assert turned_spacing((3.0, 1.0, 1.0), turns) == (3.0, 1.0, 1.0)
    found = turned_spacing((3.0, 2.0, 1.0), turns)
    assert found.tolist() == [[3, 2, 1], [3, 1, 2], [3, 2, 1], [3, 1, 2]]


@pytest.mark.parametrize("shape", [(3, 16, 16), (3, 8, 8, 8)])
def test_damage_depends_on_the_image_and_its_key_alone(shape: tuple[int, ...]) -> None:
    images = torch.rand(5, *shape) * 2 - 1
    for damage in (lambda x, k: noisy(x, k, 0.5), lambda x, k: artefacts(x, k, 0.3)):
        found = damage(images, keys(5))
        assert found.isfinite().all() and not torch.allclose(found, images)
        torch.testing.assert_close(damage(images[2:4], keys(5)[2:4]), found[2:4])
    blocks = torch.ones(1, *shape) * 0.3
    torch.testing.assert_close(coarse(blocks, 2.0), blocks)
    torch.testing.assert_close(grey(images)[:, 0], 0.299 * images[:, 0] + 0.587 * images[:, 1] + 0.114 * images[:, 2])
    flat = noisy(torch.zeros(4000, 1, 8, 8), keys(4000), 1.0)
    assert float(flat.std()) == pytest.approx(1 / math.sqrt(3), rel=0.05)  # the strength is even between 0 and 1


def test_views_are_shared_where_objectives_ask_for_the_same() -> None:
    crops = {"count": 2, "size": 0.5}
    images, cpu = drifting_images(6, (1, 32, 32)), torch.device("cpu")
    batch = batch_of(images, slice(0, 6), (6,))
    both = document_of({"swav": {"small": crops}, "dino": {"small": {**crops, "count": 3}}, "masked": {}})
    views = ViewFactory(both, cpu)(batch)
    assert len(views.images) == 2 and views.clean is not None
    (small,) = views.small.values()
    assert len(small) == 3 and {tuple(view.images.shape) for view in small} == {(6, 1, 16, 16)}
    alone = ViewFactory(document_of({"masked": {}}), cpu)(batch)
    assert not alone.images and not alone.small and torch.equal(alone.clean.images, views.clean.images)
    three = ViewFactory(document_of({"simclr": {}}), cpu)(batch)
    assert three.clean is None and all(map(torch.equal, three.images, views.images))
    assert torch.equal(three.source.images, images / 127.5 - 1) and three.source.sample_B.tolist() == list(range(6))
    assert len({view.images.numpy().tobytes() for view in small}) == 3


def test_what_is_hidden_is_a_share_and_differs_between_images() -> None:
    config = document_of({"masked": {}})
    backbone = create_backbone(config.model).double()
    views = views_of(config, drifting_images(6, (1, 32, 32)))
    found = views.partial(backbone, views.clean, 0.75, 2)
    assert found.hidden_BQ.shape == (6, 12 * 4) and found.answers_BQD.shape == (6, 48, 8)
    assert len({tuple(row) for row in found.hidden_BQ.tolist()}) == 6
    assert views.partial(backbone, views.clean, 0.75, 2) is found
    assert uniforms(views.clean.keys_B, 3).shape == (6, 3)


@pytest.mark.parametrize("name", ["simclr", "swav"])
def test_a_batch_of_one_is_refused_where_images_are_told_apart(name: str) -> None:
    config = document_of({name: TINY})
    module = PretrainModule(create_backbone(config.model), config.objectives).double()
    with pytest.raises(TrainingError, match=f"{name}: a batch of one image"):
        module.objectives[name].eval()(module.backbone, views_of(config, drifting_images(1, (1, 16, 16))), 0.0)


class Pretended:
    folder, split = "somewhere", "train"
    intensity, layout = None, SimpleNamespace(dtype="uint8")

    def __init__(self, *shape: int) -> None:
        self.image_shape = shape
        self.manifest = SimpleNamespace(vocabulary={})  # nothing is known of what they show


@pytest.mark.parametrize(
    ("objectives", "shape", "changes", "message"),
    [
        ({"restore": {"task": "colour"}}, (1, 28, 28), {}, "task colour needs images of 3 channels, these have 1"),
        ({"restore": {}}, (5, 28, 28), {}, "images of 5 channels, of 3 at most"),
        ({"masked": {"cells": 8}}, (1, 28, 28), {}, "a single patch of 32; at least two are needed, lower cells"),
        ({"rotation": {}}, (1, 28, 20), {}, "images of 28 x 20 cannot be turned"),
        ({"rotation": {}}, (1, 28, 28), {"views": {"rotation": {"degrees": 90}}}, "hides what is to be told"),
        ({"rotation": {}}, (1, 28, 28), {"views": {"flip": {"vertical": 0.5}}}, "half a turn"),
        ({"jigsaw": {"tiles": 3}}, (1, 5, 28, 28), {}, "cannot be cut into 3 tiles"),
        ({"dino": {"ibot": 1.0, "cells": 8}}, (1, 28, 28), {}, "a single patch"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_training(
    objectives: dict[str, Any], shape: tuple[int, ...], changes: dict[str, Any], message: str
) -> None:
    config = document_of(objectives, **changes)
    backbone = create_backbone(config.model)
    with pytest.raises(ConfigError, match=rf"^objectives\.{next(iter(objectives))}: somewhere: .*{message}"):
        check_objectives(config, [Pretended(*shape)], backbone)  # type: ignore[list-item]
