"""What the backbone cannot take is refused with one error that says what was found and what is expected."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import timm
import torch

from data_shards.support.errors import DataError
from data_shards.vocabulary import Modality, Organ, Task, word
from pretrain.backbone import Medformer, StudyImage
from pretrain.metadata import Metadata
from tests.pretrain.test_backbone import SMALL, images, known, small


@pytest.fixture(scope="module")
def model() -> Medformer:
    return small()


@pytest.mark.parametrize(
    "shape", [(), (3, 8, 8), (1, 1, 1, 4, 4, 4), (2, 3, 0, 8), (0, 3, 8, 8), (2, 0, 8, 8), (2, 1, 8, 0, 8)]
)
def test_a_wrong_rank_or_an_empty_axis_is_named(model: Medformer, shape: tuple[int, ...]) -> None:
    message = f"expected images B,C,H,W or B,C,D,H,W with no empty axis, found shape {shape}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        model(torch.zeros(shape))


@pytest.mark.parametrize("found", [images().numpy(), [[0.0]], None])
def test_images_that_are_no_tensor_are_refused(model: Medformer, found: Any) -> None:
    with pytest.raises(ValueError, match=f"expected a tensor of images, found {type(found).__name__}"):
        model(found)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_one_value_that_is_not_finite_is_found(model: Medformer, value: float) -> None:
    batch = images()
    batch[1, 2, 3, 4] = value
    for call in (model, model.forward_features, model.forward_intermediates):
        with pytest.raises(ValueError, match="values that are not finite"):
            call(batch)


def of(**changes: Any) -> Metadata:
    return Metadata(**{"organ_B": torch.ones(3).long(), "modality_B": None, "task_B": torch.ones(3).long(), **changes})


@pytest.mark.parametrize(
    "metadata, message",
    [
        (of(organ_B=torch.zeros(3)), r"organ has shape \(3,\) of torch.float32, int64 of shape \(B,\)"),
        (of(organ_B=torch.ones(3, dtype=torch.uint8)), "of torch.uint8, int64"),
        (of(task_B=torch.ones(3, dtype=torch.int16)), "of torch.int16, int64"),
        (of(organ_B=torch.zeros(3, 1).long()), r"organ has shape \(3, 1\)"),
        (of(organ_B=["chest"] * 3), "organ is a list, a tensor is expected"),
        (of(task_B=torch.zeros(2).long()), "task of 2 images, the batch has 3"),
        (of(task_B=torch.tensor([0, 0, len(Task)])), f"task id {len(Task)} is not in the vocabulary"),
        (of(modality_B=torch.tensor([0, -1, 0])), "modality id -1 is not in the vocabulary"),
        ({"organ": "chest"}, "expected Metadata of the images, found dict"),
    ],
)
def test_metadata_that_cannot_be_is_refused(model: Medformer, metadata: Any, message: str) -> None:
    for call in (model.features, model.forward_features):
        with pytest.raises(ValueError, match=message):
            call(images(), metadata)
    with pytest.raises(ValueError, match=message):
        model.forward_intermediates(images(), metadata=metadata)


@pytest.mark.parametrize("present", [torch.ones(3).long(), torch.ones(3)])
def test_presence_that_is_no_boolean_is_refused(model: Medformer, present: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="present_B has shape .* booleans"):
        model.study([StudyImage(images(), None, None, present)], known())


@pytest.mark.parametrize(
    "spacing, message",
    [
        ((1.0, 1.0, 1.0), "3 numbers, images of 2 axes need 2"),
        ((1.0, 0.0), "lengths above 0"),
        (1.0, "a length for each of the 2 axes"),
        (np.array([1.0, 1.0]), "a length for each of the 2 axes"),
        ((None, 1.0), "lengths above 0"),
        (("1", "1"), "lengths above 0"),
        (torch.ones(2, 2), r"shape \(2, 2\), the batch has 3 images"),
        (torch.ones(3, 3), r"shape \(3, 3\), images of 2 axes need B,2"),
        (-torch.ones(3, 2), "no length"),
        (torch.full((3, 2), torch.inf), "no length"),
    ],
)
def test_a_spacing_that_is_no_length_is_refused(model: Medformer, spacing: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.features(images(), known(), spacing)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"in_chans": 0}, "in_chans 0"),
        ({"num_classes": -1}, "num_classes -1"),
        ({"img_size": (28, 0)}, "img_size"),
        ({"img_size": (4, 4, 4, 4)}, "img_size"),
        ({"img_size": 2.5}, "img_size 2.5"),
        ({"embed_dim": 0}, "embed_dim 0"),
        ({"depth": -1}, "depth -1"),
        ({"num_heads": 0}, "0 heads"),
        ({"num_heads": 5}, "5 heads do not divide"),
        ({"latents": -1}, "-1 shared latents"),
        ({"latents": 0, "latents_per_entry": 0}, "0 of each entry"),
        ({"stem_width": 0}, "stem_width 0"),
        ({"global_pool": "max"}, "global_pool 'max'"),
        ({"drop_rate": 2.0}, "between 0 and 1"),
        ({"drop_path_rate": 1.5}, "drop_path_rate 1.5"),
        ({"embedding": "mean"}, "embedding 'mean' is none of latents"),
    ],
)
def test_a_network_that_cannot_be_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        timm.create_model("medformer_nano", **{**SMALL, **arguments})


@pytest.mark.parametrize("shape", [(4,), (3, 1), (3, 4)])
def test_points_that_are_nowhere_are_refused(model: Medformer, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="points_mm has shape"):
        model.adapter.at(torch.zeros(shape))


@pytest.mark.parametrize("enumeration, name", [(Organ, "lungs"), (Modality, "xrays"), (Task, "classify")])
def test_a_name_that_the_vocabulary_does_not_have_is_refused(enumeration: Callable[..., Any], name: str) -> None:
    with pytest.raises(DataError, match=f"unknown .* '{name}'; "):
        word(enumeration, name)


def test_images_of_another_precision_are_refused_unless_autocast_converts_them() -> None:
    model = small()
    for dtype in (torch.float64, torch.bfloat16):
        with pytest.raises(ValueError, match=f"images of {dtype}, weights of torch.float32: convert one of them"):
            model.features(torch.zeros(1, 3, 8, 8, dtype=dtype))
    with torch.autocast("cpu", torch.bfloat16):
        assert model.features(torch.zeros(1, 3, 8, 8, dtype=torch.bfloat16)).embedding_BD.isfinite().all()
    assert model.double().features(torch.zeros(1, 3, 8, 8, dtype=torch.float64)).embedding_BD.dtype == torch.float64
