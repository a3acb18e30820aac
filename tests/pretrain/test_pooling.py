"""Mean and spread of tokens, and an embedding made in another way, wherever a network is asked for one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from data_shards.vocabulary import Modality
from pretrain.backbone import Medformer, StudyImage
from pretrain.backbone.pooling import token_mean, token_spread
from pretrain.objectives.views import View, Views
from tests.pretrain.test_backbone import images, known, small
from tests.pretrain.test_volumes import trained_in_depth, volumes

BATCHES = {"planes": images(3, 1, 17, 28), "volumes": volumes(3)}
KINDS = list(BATCHES)


def pooled(**changes: object) -> Medformer:
    torch.manual_seed(0)
    return trained_in_depth(small(embedding="pooled_tokens", **changes)).eval()


def test_spread_has_a_gradient_where_all_tokens_are_equal() -> None:
    tokens_BTD = torch.ones(2, 5, 3, requires_grad=True)
    spread_BD = token_spread(tokens_BTD)
    assert torch.equal(spread_BD, torch.zeros(2, 3))
    spread_BD.sum().backward()
    assert tokens_BTD.grad is not None and torch.equal(tokens_BTD.grad, torch.zeros(2, 5, 3))


def test_weights_are_those_of_repeated_tokens() -> None:
    tokens_BTD = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    counts = torch.tensor([1, 0, 3, 2])
    repeated = tokens_BTD.repeat_interleave(counts, dim=1)
    weight_BT = (counts / counts.sum()).expand(2, -1).double()
    torch.testing.assert_close(token_mean(tokens_BTD, weight_BT), repeated.mean(dim=1))
    torch.testing.assert_close(token_spread(tokens_BTD, weight_BT), repeated.std(dim=1, correction=0))


@pytest.mark.parametrize("kind", KINDS)
def test_what_adds_to_the_embedding_does_so_before_its_norm(kind: str) -> None:
    model = pooled().double()
    batch, metadata = BATCHES[kind].double(), known()
    with torch.no_grad():
        encoded = model.encode([StudyImage(batch, metadata.modality_B)], metadata)
        answer = model.decoder(model.query.expand(3, -1, -1), encoded.latents_BND)[:, 0].numpy()
        found = model.features(batch, metadata).embedding_BD.numpy()
    tokens = encoded.tokens[0].numpy()
    both = np.concatenate([tokens.mean(axis=1), tokens.std(axis=1)], axis=1)
    x = answer + both @ model.reader.proj.weight.detach().numpy().T
    unit = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + model.norm.eps)
    np.testing.assert_allclose(found, unit, atol=1e-12)  # norm and map are new: ones and zeros


@pytest.mark.parametrize("kind", KINDS)
def test_intermediates_and_classifiers_have_the_same_embedding(kind: str) -> None:
    batch = BATCHES[kind]
    model = pooled(depth=4, num_classes=5)
    embedding_BD = model.features(batch).embedding_BD
    final, maps = model.forward_intermediates(batch, return_prefix_tokens=True, norm=True)
    for found in (final[:, 0], maps[-1][1][:, 0], model.forward_features(batch)[:, 0]):
        torch.testing.assert_close(found, embedding_BD)
    torch.testing.assert_close(model(batch), model.head(embedding_BD))


def test_a_missing_image_adds_nothing_and_the_order_of_images_does_not_matter() -> None:
    model = pooled().double()
    present = torch.tensor([True, False, True])
    mri = StudyImage(volumes(3).double(), torch.full((3,), int(Modality.mri)), (2.0, 1.0, 1.0))
    pet = StudyImage(volumes(3, 1, 4, 5, 6).double(), torch.full((3,), int(Modality.pet)), None, present)
    together = model.study([mri, pet], known()).embedding_BD
    torch.testing.assert_close(model.study([pet, mri], known()).embedding_BD, together, atol=1e-10, rtol=0)
    alone = model.study([mri], known()).embedding_BD
    torch.testing.assert_close(together[1], alone[1], atol=1e-10, rtol=0)
    assert not torch.allclose(together[0], alone[0])


def test_what_is_hidden_adds_nothing() -> None:
    model = pooled()
    batch, keys_B = images(3, 1), torch.arange(3)
    views = Views((), (), (3,), ())

    def embedded(shown: Tensor) -> Tensor:
        return views.partial(model, View(shown, known(), None, keys_B), 0.5, 1).embedding_BD

    hidden_BQ = views.partial(model, View(batch, known(), None, keys_B), 0.5, 1).hidden_BQ
    other = batch.clone()
    for row, cells in enumerate(hidden_BQ.tolist()):
        for cell in cells:
            top, left = cell // 7 * 4, cell % 7 * 4
            other[row, :, top : top + 4, left : left + 4] = 1.0
    assert torch.equal(embedded(other), embedded(batch))
    assert not torch.allclose(model.features(other).embedding_BD, model.features(batch).embedding_BD)
