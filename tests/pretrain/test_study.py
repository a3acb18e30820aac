"""Several images of one subject as one set of tokens."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from data_shards.vocabulary import Modality, Organ, Task
from pretrain.backbone import StudyFeatures, StudyImage
from pretrain.metadata import Metadata
from tests.pretrain.test_backbone import images, known, small
from tests.pretrain.test_volumes import trained_in_depth, volumes

ROWS = 3


def model_in_use(stem: str = "hmlp") -> torch.nn.Module:
    model = trained_in_depth(small(stem=stem)).double()
    model.tags.data.copy_(torch.randn(model.tags.shape, generator=torch.Generator().manual_seed(1)))
    return model


def modality(entry: Modality) -> Tensor:
    return torch.full((ROWS,), int(entry))


def parts() -> list[StudyImage]:
    present = torch.tensor([True, False, True])
    return [
        StudyImage(volumes(ROWS).double(), modality(Modality.mri), (2.0, 1.0, 1.0)),
        StudyImage(volumes(ROWS, 1, 4, 5, 6).double(), modality(Modality.pet), None, present),
        StudyImage(images(ROWS, 3, 9, 9).double(), modality(Modality.xray), (1.0, 1.0)),
    ]


def equal(first: Tensor, second: Tensor) -> None:
    torch.testing.assert_close(first, second, atol=1e-10, rtol=0)


def test_one_image_is_a_study_of_one() -> None:
    model = model_in_use()
    batch = images(ROWS).double()
    metadata = known(ROWS)
    alone = model.features(batch, metadata, (1.0, 2.0), dense=True)
    study = model.study([StudyImage(batch, metadata.modality_B, (1.0, 2.0))], metadata, dense=True)
    assert torch.equal(alone.embedding_BD, study.embedding_BD) and torch.equal(alone.tokens_BTD, study.tokens[0])
    there = StudyImage(batch, metadata.modality_B, (1.0, 2.0), torch.ones(ROWS, dtype=torch.bool))
    equal(model.study([there], metadata).embedding_BD, alone.embedding_BD)


def test_the_order_of_the_images_does_not_matter() -> None:
    model = model_in_use()
    study = parts()
    expected = model.study(study, known(ROWS), dense=True)
    for order in itertools.permutations(range(3)):
        found = model.study([study[place] for place in order], known(ROWS), dense=True)
        equal(found.embedding_BD, expected.embedding_BD)
        for place, tokens, grid in zip(order, found.tokens, found.grids, strict=True):
            equal(tokens, expected.tokens[place])
            assert grid == expected.grids[place]


def test_an_image_that_is_missing_is_as_one_that_was_never_given() -> None:
    model = model_in_use()
    study = parts()
    together = model.study(study, known(ROWS))
    for row, given in ((0, [0, 1, 2]), (1, [0, 2]), (2, [0, 1, 2])):
        alone = model.study([_row(study[place], row) for place in given], _metadata_row(row))
        equal(alone.embedding_BD[0], together.embedding_BD[row])
    noise = StudyImage(torch.randn_like(study[1].images) * 1e3, study[1].modality_B, None, study[1].present_B)
    other = model.study([study[0], noise, study[2]], known(ROWS))
    equal(other.embedding_BD[1], together.embedding_BD[1])
    assert not torch.allclose(other.embedding_BD[0], together.embedding_BD[0])


def _row(image: StudyImage, row: int) -> StudyImage:
    return StudyImage(image.images[row : row + 1], image.modality_B[row : row + 1], image.spacing_mm)


def _metadata_row(row: int) -> Metadata:
    metadata = known(ROWS)
    return Metadata(*(ids[row : row + 1] for ids in (metadata.organ_B, metadata.modality_B, metadata.task_B)))


def test_a_subject_without_any_image_has_the_embedding_of_its_metadata_and_finite_gradients() -> None:
    model = model_in_use().train()
    present = torch.tensor([True, False, False])
    study = [StudyImage(images(ROWS).double(), modality(Modality.mri), None, present)]
    metadata = Metadata(torch.tensor([1, 1, 2]), modality(Modality.mri), modality(Task.unknown))
    found = model.study(study, metadata)
    assert found.embedding_BD.isfinite().all()
    other = model.study([StudyImage(-study[0].images, study[0].modality_B, None, present)], metadata)
    equal(found.embedding_BD[1:], other.embedding_BD[1:])
    assert not torch.allclose(found.embedding_BD[1], found.embedding_BD[2])
    found.embedding_BD.square().mul(torch.arange(32.0)).sum().backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())


def test_tags_tell_two_modalities_with_equal_images_apart() -> None:
    model = model_in_use()
    batch = images(ROWS).double()
    mri, pet = (StudyImage(batch, modality(entry)) for entry in (Modality.mri, Modality.pet))
    other = StudyImage(-batch, modality(Modality.pet))
    swapped = StudyImage(-batch, modality(Modality.mri))
    straight = model.study([mri, other]).embedding_BD
    crossed = model.study([pet, swapped]).embedding_BD
    assert not torch.allclose(straight, crossed, atol=1e-3)


def test_masked_tokens_get_no_gradient_and_present_ones_do() -> None:
    model = model_in_use()
    batch = images(ROWS).double().requires_grad_()
    present = torch.tensor([True, False, True])
    study = [StudyImage(volumes(ROWS).double()), StudyImage(batch, None, None, present)]
    model.study(study).embedding_BD.square().mul(torch.arange(32.0)).sum().backward()
    assert (batch.grad.flatten(1).abs().sum(dim=1) > 0).tolist() == present.tolist()


@pytest.mark.parametrize("stem", ["hmlp", "conv"])
def test_any_queries_can_be_asked(stem: str) -> None:
    model = model_in_use(stem=stem)
    encoded = model.encode([StudyImage(images(ROWS).double(), None, (2.0, 2.0))])
    answers = model.decode(encoded.latents_BND, model.query.expand(ROWS, -1, -1))
    equal(answers[:, 0], model.features(images(ROWS).double(), None, (2.0, 2.0)).embedding_BD)
    points = torch.tensor([[0.0, 0.0], [10.0, -4.0]]).double()
    queries = model.adapter.at(points).expand(ROWS, -1, -1)
    assert model.decode(encoded.latents_BND, queries).shape == (ROWS, 2, 32)
    (tokens,), (grid,) = encoded.tokens, encoded.grids
    there = grid.coordinates((2.0, 2.0)).double() * 100.0
    content = tokens - model.tags[0] - model.adapter.at(there)
    blank = model.adapter.stem(images(ROWS).double()).flatten(2).transpose(1, 2)
    if stem == "conv":  # whose features are mapped together with their places
        blank = blank @ model.adapter.proj.weight[:, :32].T
    torch.testing.assert_close(content, blank, atol=1e-5, rtol=0)


@pytest.mark.parametrize("cross_attends", [2, 4])
def test_latents_can_read_the_tokens_again(cross_attends: int) -> None:
    model = small(depth=4, cross_attends=cross_attends)
    assert list(model.encoders_again) == [str(n * 4 // cross_attends) for n in range(1, cross_attends)]
    calls: list[int] = []
    for number, layer in enumerate([model.encoder, *model.encoders_again.values(), *model.blocks]):
        layer.register_forward_hook(lambda module, inputs, output, number=number: calls.append(number))
    model.features(images())
    blocks = list(range(cross_attends, cross_attends + 4))
    expected = [0]
    for place, block in enumerate(blocks):
        if place and place % (4 // cross_attends) == 0:
            expected.append(place // (4 // cross_attends))
        expected.append(block)
    assert calls == expected


@pytest.mark.parametrize(
    "study, message",
    [
        ([], "no images"),
        ([StudyImage(torch.zeros(3, 1, 8, 8, dtype=torch.uint8))], "normalised images of floats, found torch.uint8"),
        ([StudyImage(torch.full((3, 1, 8, 8), torch.nan))], "not finite"),
        ([StudyImage(torch.full((3, 1, 8, 8), torch.inf))], "not finite"),
        ([StudyImage(torch.zeros(3, 1, 8, 8), torch.zeros(2, dtype=torch.int64))], "modality_B of 2 images"),
        ([StudyImage(torch.zeros(3, 1, 8, 8), torch.full((3,), 99))], "modality id 99 is not in the vocabulary"),
        ([StudyImage(torch.zeros(3, 1, 8, 8), torch.full((3,), -1))], "modality id -1 is not in the vocabulary"),
        ([StudyImage(torch.zeros(3, 1, 8, 8), None, None, torch.ones(4) > 0)], "present_B of 4 images"),
        ([StudyImage(torch.zeros(3, 1, 8, 8)), StudyImage(torch.zeros(2, 1, 8, 8))], "metadata of 3 images, the batch"),
    ],
)
def test_a_study_that_cannot_be_is_refused_with_one_clear_error(study: list[StudyImage], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small().study(study)


def test_metadata_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="metadata of 2 images, the batch has 3"):
        small().features(images(), known(2))
    organ = torch.tensor([0, 0, len(Organ)])
    with pytest.raises(ValueError, match=f"organ id {len(Organ)} is not in the vocabulary, whose ids are 0 to"):
        small().features(images(), Metadata(organ, modality(Modality.mri), modality(Task.unknown)))


def test_features_of_a_study_have_the_grids_of_its_images() -> None:
    found: StudyFeatures = model_in_use().study(parts(), dense=True)
    assert found.grids == ((3, 3, 3), (1, 2, 2), (3, 3))
    assert [tokens.shape[1] for tokens in found.tokens] == [27, 4, 9]
    assert not model_in_use().study(parts()).tokens
