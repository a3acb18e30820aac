"""An embedding to which mean and spread of the tokens add: its formula, its gradients, and all else as it was."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from timm.models import group_parameters
from torch import Tensor

from data_shards.support.errors import CheckpointError
from data_shards.vocabulary import Modality, Organ, Task
from pretrain.backbone import Medformer, StudyImage
from pretrain.backbone.export import export_program
from pretrain.backbone.pooling import TokenPool, token_mean, token_spread
from pretrain.bundle import load_bundle, save_bundle
from pretrain.metadata import Metadata
from pretrain.objectives.views import View, Views
from tests.pretrain.test_backbone import SMALL, images, known, small
from tests.pretrain.test_volumes import trained_in_depth, volumes

BATCHES = {"planes": images(3, 1, 17, 28), "volumes": volumes(3)}
KINDS = list(BATCHES)


def pooled(**changes: object) -> Medformer:
    return trained_in_depth(small(embedding="pooled", **changes))


def layer_norm(model: Medformer, x: np.ndarray) -> np.ndarray:
    unit = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + model.norm.eps)
    return unit * model.norm.weight.detach().numpy() + model.norm.bias.detach().numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_the_embedding_is_the_answer_and_a_linear_map_of_mean_and_spread_of_the_tokens(kind: str) -> None:
    model = pooled().double()
    batch, metadata = BATCHES[kind].double(), known()
    with torch.no_grad():
        encoded = model.encode([StudyImage(batch, metadata.modality_B)], metadata)
        answer = model.decoder(model.query.expand(3, -1, -1), encoded.latents_BND)[:, 0].numpy()
        found = model.features(batch, metadata).embedding_BD.numpy()
    tokens = encoded.tokens[0].numpy()
    assert tokens.shape[1] == math.prod(math.ceil(length / 4) for length in batch.shape[2:])
    both = np.concatenate([tokens.mean(axis=1), tokens.std(axis=1)], axis=1)
    added = both @ model.pool.proj.weight.detach().numpy().T + model.pool.proj.bias.detach().numpy()
    np.testing.assert_allclose(found, layer_norm(model, answer + added), atol=1e-12)
    assert np.abs(added).mean() > 0.1  # it is no small thing


@pytest.mark.parametrize("kind", KINDS)
def test_all_else_is_what_it_is_without(kind: str) -> None:
    model, plain = pooled(), trained_in_depth(small())
    others = {name: value for name, value in model.state_dict().items() if not name.startswith("pool.")}
    assert others.keys() == plain.state_dict().keys()
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in others.items())
    found, expected = (each.features(BATCHES[kind], known(), dense=True) for each in (model, plain))
    assert torch.equal(found.tokens_BTD, expected.tokens_BTD) and found.grid == expected.grid
    assert found.embedding_BD.shape == expected.embedding_BD.shape
    assert not torch.allclose(found.embedding_BD, expected.embedding_BD, atol=0.1)
    torch.testing.assert_close(model.features(BATCHES[kind], known()).embedding_BD, found.embedding_BD)


@pytest.mark.parametrize("kind", KINDS)
def test_the_embedding_alone_gives_gradient_to_all_and_only_what_is_in_the_batch(kind: str) -> None:
    model = pooled()
    metadata = Metadata(torch.tensor([2, 2, 5]), torch.tensor([4, 0, 1]), torch.tensor([1, 1, 3]))
    embedding_BD = model.features(BATCHES[kind], metadata).embedding_BD
    (embedding_BD * torch.randn(32, generator=torch.Generator().manual_seed(2))).sum().backward()
    present = {
        "latents.collections.organ": {2, 5},
        "latents.collections.modality": {0, 1, 4},
        "latents.collections.task": {1, 3},
        "tags": {0, 1, 4},
    }
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        if name in present:
            assert set(torch.nonzero(parameter.grad.flatten(1).abs().sum(dim=1)).flatten().tolist()) == present[name]
        elif kind == "volumes" or not name.endswith("depth"):
            assert parameter.grad.any(), name


def test_spread_has_a_gradient_where_all_tokens_are_equal() -> None:
    tokens_BTD = torch.ones(2, 5, 3, requires_grad=True)
    spread_BD = token_spread(tokens_BTD)
    assert torch.equal(spread_BD, torch.zeros(2, 3))
    spread_BD.sum().backward()
    assert tokens_BTD.grad is not None and torch.equal(tokens_BTD.grad, torch.zeros(2, 5, 3))
    assert pooled().features(torch.zeros(1, 1, 4, 4)).embedding_BD.isfinite().all()  # a single token


def test_weights_are_those_of_repeated_tokens() -> None:
    tokens_BTD = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    counts = torch.tensor([1, 0, 3, 2])
    repeated = tokens_BTD.repeat_interleave(counts, dim=1)
    weight_BT = (counts / counts.sum()).expand(2, -1).double()
    torch.testing.assert_close(token_mean(tokens_BTD, weight_BT), repeated.mean(dim=1))
    torch.testing.assert_close(token_spread(tokens_BTD, weight_BT), repeated.std(dim=1, correction=0))


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


@pytest.mark.parametrize("kind", KINDS)
def test_timm_finds_what_it_expects(kind: str) -> None:
    batch = BATCHES[kind]
    model = pooled(depth=4, num_classes=5)
    final, maps = model.forward_intermediates(batch)
    torch.testing.assert_close(final[:, 0], model.features(batch).embedding_BD)
    assert len(maps) == 4
    torch.testing.assert_close(final, model.forward_features(batch))
    ((_, prefix),) = model.forward_intermediates(
        batch, 1, return_prefix_tokens=True, norm=True, intermediates_only=True
    )
    torch.testing.assert_close(prefix[:, 0], final[:, 0])
    torch.testing.assert_close(model(batch), model.head(final[:, 0]))
    groups = group_parameters(model, model.group_matcher())
    assert sorted(name for each in groups.values() for name in each) == sorted(dict(model.named_parameters()))
    for pool in ("avg", ""):  # where nothing reads the embedding
        model.reset_classifier(5, pool)
        model.zero_grad()
        model(batch).square().mean().backward()
        assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]


def test_what_is_hidden_adds_nothing() -> None:
    model = pooled()
    batch = images(3, 1)
    keys_B = torch.arange(3)

    def partial(shown: Tensor) -> Tensor:
        view = View(shown, known(), None, keys_B)
        return Views((), (), (3,), ()).partial(model, view, 0.5, 1).embedding_BD

    expected = partial(batch)
    view = View(batch, known(), None, keys_B)
    hidden_BQ = Views((), (), (3,), ()).partial(model, view, 0.5, 1).hidden_BQ
    other = batch.clone()
    for row, cells in enumerate(hidden_BQ.tolist()):
        for cell in cells:
            top, left = cell // 7 * 4, cell % 7 * 4
            other[row, :, top : top + 4, left : left + 4] = 1.0
    assert torch.equal(partial(other), expected)
    assert not torch.allclose(model.features(other).embedding_BD, model.features(batch).embedding_BD)


def test_a_bundle_says_how_its_embedding_is_made_and_one_that_does_not_opens_as_it_was(tmp_path: Path) -> None:
    model, plain = pooled(), small()
    for network, args in ((model, {**SMALL, "embedding": "pooled"}), (plain, SMALL)):
        folder = save_bundle(tmp_path / str(len(args)), network, "medformer_nano", args, {}, {})
        for loaded in (load_bundle(folder).backbone, timm.create_model(f"local-dir:{folder}", pretrained=True).eval()):
            assert torch.equal(loaded.features(images()).embedding_BD, network.features(images()).embedding_BD)
            assert isinstance(loaded.pool, TokenPool) == (network is model)
    file = {"file": str(tmp_path / str(len(SMALL)) / "model.safetensors")}
    with pytest.raises(CheckpointError, match=r"tensor pool\.proj\.weight is missing.*embedding='query'$"):
        timm.create_model("medformer_nano", pretrained=True, embedding="pooled", pretrained_cfg_overlay=file, **SMALL)
    file = {"file": str(tmp_path / str(len(SMALL) + 1) / "model.safetensors")}
    with pytest.raises(CheckpointError, match=r"tensor pool\.proj\.bias is not in the model.*embedding='pooled'$"):
        timm.create_model("medformer_nano", pretrained=True, pretrained_cfg_overlay=file, **SMALL)


def test_another_way_to_make_it_is_refused() -> None:
    with pytest.raises(ValueError, match="embedding 'mean' is neither 'query' nor 'pooled'"):
        small(embedding="mean")


def test_a_graph_of_it_takes_any_size() -> None:
    model = pooled(depth=1)
    program = export_program(model, axes=2, channels=1).module()
    for batch in (images(3, 1, 17, 28), images(2, 1, 32, 20)):
        metadata = Metadata.uniform(len(batch), Organ.chest, Modality.xray, Task.binary)
        (found,) = program(batch, metadata.organ_B, metadata.modality_B, metadata.task_B)
        expected = model.features(batch, metadata).embedding_BD
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
