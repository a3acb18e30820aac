"""An embedding that reads the tokens of the input, and not the latents alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from timm.optim import param_groups_layer_decay

from data_shards.support.errors import ConfigError
from data_shards.vocabulary import Modality, Organ
from pretrain.backbone import Medformer, StudyImage
from pretrain.backbone.export import export_program
from pretrain.bundle import load_bundle, save_bundle
from pretrain.config import ModelConfig
from pretrain.metadata import Metadata
from pretrain.module import create_backbone
from tests.pretrain.test_backbone import SMALL, images, small
from tests.pretrain.test_volumes import trained_in_depth, volumes

KINDS = ("reads_tokens", "pooled_tokens")


def asking(kind: str) -> Medformer:
    torch.manual_seed(3)
    return trained_in_depth(small(embedding=kind))


@pytest.mark.parametrize("axes", [2, 3])
def test_it_is_one_cross_attention_of_the_answer_to_the_tokens(axes: int) -> None:
    model, given = asking("reads_tokens"), images() if axes == 2 else volumes()
    encoded = model.encode([StudyImage(given)])
    answer_B1D = model.decoder(model.query.expand(len(given), -1, -1), encoded.latents_BND)
    layer, tokens_BTD = model.reader, encoded.tokens[0]
    assert layer is not None
    weights_BHQK, values_BHKE = layer.attention.weights(layer.norm_queries(answer_B1D), layer.norm_context(tokens_BTD))
    read_B1D = layer.attention.proj((weights_BHQK @ values_BHKE).transpose(1, 2).flatten(2))
    read_B1D = answer_B1D + read_B1D
    expected = model.norm(read_B1D + layer.mlp(read_B1D))[:, 0]
    torch.testing.assert_close(model.features(given).embedding_BD, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("axes", [2, 3])
def test_it_is_mean_and_standard_deviation_of_the_tokens_through_a_linear_map(axes: int) -> None:
    model, given = asking("pooled_tokens"), images() if axes == 2 else volumes()
    encoded = model.encode([StudyImage(given)])
    answer_BD = model.decoder(model.query.expand(len(given), -1, -1), encoded.latents_BND)[:, 0]
    spread_BD, mean_BD = torch.std_mean(encoded.tokens[0], dim=1, correction=0)
    weight, bias = model.reader.proj.weight, model.reader.proj.bias
    expected = model.norm(answer_BD + torch.cat([mean_BD, spread_BD], dim=1) @ weight.T + bias)
    torch.testing.assert_close(model.features(given).embedding_BD, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_else_changes(kind: str) -> None:
    torch.manual_seed(3)
    default = trained_in_depth(small())
    model = asking(kind)
    assert not [name for name in default.state_dict() if name.startswith("reader.")]
    torch.testing.assert_close(
        {name: each for name, each in model.state_dict().items() if not name.startswith("reader.")},
        dict(default.state_dict()), atol=0, rtol=0,
    )  # fmt: skip
    found, expected = (each.features(images(), dense=True) for each in (model, default))
    assert torch.equal(found.tokens_BTD, expected.tokens_BTD)
    assert not torch.allclose(found.embedding_BD, expected.embedding_BD, atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_image_of_a_study_is_not_read(kind: str) -> None:
    model, planes, scans = asking(kind), images()[:2], volumes()
    there = torch.tensor([True, False])
    found = model.study([StudyImage(planes), StudyImage(scans, present_B=there)]).embedding_BD
    both = model.study([StudyImage(planes), StudyImage(scans)]).embedding_BD
    alone = model.study([StudyImage(planes)]).embedding_BD
    torch.testing.assert_close(found, torch.stack([both[0], alone[1]]), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(both[1], alone[1], atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_kept_trained_and_grouped(kind: str, tmp_path: Path) -> None:
    model = asking(kind).train()
    loss = model.features(images()).embedding_BD.square().mul(torch.arange(model.embed_dim)).sum()
    loss.backward()
    assert not [name for name, each in model.reader.named_parameters() if each.grad is None or not each.grad.any()]
    scale = {id(each): group["lr_scale"] for group in param_groups_layer_decay(model) for each in group["params"]}
    for parameter in model.reader.parameters():
        assert scale[id(parameter)] == scale[id(model.decoder.mlp.fc1.weight)]
    model.eval()
    save_bundle(tmp_path / "bundle", model, "medformer_nano", {**SMALL, "embedding": kind}, {}, {})
    again = load_bundle(tmp_path / "bundle").backbone
    assert torch.equal(again.features(images()).embedding_BD, model.features(images()).embedding_BD)


@pytest.mark.parametrize("kind", [pytest.param("reads_tokens", marks=pytest.mark.slow), "pooled_tokens"])
def test_it_is_exported(kind: str) -> None:
    model = asking(kind).eval()
    given = images()
    known = Metadata.uniform(len(given), Organ.chest, Modality.ct)
    program = export_program(model, channels=given.shape[1]).module()
    found = program(given, known.organ_B, known.modality_B, known.task_B)
    expected = model.features(given, known).embedding_BD
    torch.testing.assert_close(found[0], expected, atol=1e-5, rtol=1e-5)


def test_a_network_goes_on_from_a_bundle_that_makes_its_embedding_alike(tmp_path: Path) -> None:
    """Bundles of before do not say how, and are of the default."""
    for name, embedding in (("old", {}), ("pooled", {"embedding": "pooled_tokens"})):
        model = small(**embedding).eval()
        save_bundle(tmp_path / name, model, "medformer_nano", {**SMALL, **embedding}, {}, {})
    for kwargs in ({}, {"embedding": "latents"}, {"embedding": None}):
        begun = create_backbone(ModelConfig(kwargs={**SMALL, **kwargs}, init_from=tmp_path / "old"))
        assert torch.equal(begun.query, load_bundle(tmp_path / "old").backbone.query)
    for kwargs, start in (({}, "pooled"), ({"embedding": "pooled_tokens"}, "old")):
        with pytest.raises(ConfigError, match="'embedding': 'latents'.* they must agree"):
            create_backbone(ModelConfig(kwargs={**SMALL, **kwargs}, init_from=tmp_path / start))
