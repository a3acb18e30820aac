from __future__ import annotations

import pytest

from data_shards.support.errors import ConfigError
from finetune.heads.attention import AttentionHead
from finetune.strategies import backbone_groups, head_groups, strategy_named
from tests.finetune.samples import tiny_backbone


def test_every_parameter_is_in_exactly_one_group() -> None:
    backbone = tiny_backbone()
    found = [id(parameter) for group in backbone_groups(backbone, 1e-3, 0.05, 0.5) for parameter in group["params"]]
    assert sorted(found) == sorted(id(parameter) for parameter in backbone.parameters())
    head = AttentionHead(16, 2)
    found = [id(parameter) for group in head_groups(head, 1e-3, 0.05) for parameter in group["params"]]
    assert sorted(found) == sorted(id(parameter) for parameter in head.parameters())


def test_layers_near_the_input_learn_slower() -> None:
    backbone = tiny_backbone()
    rates = {}
    for group in backbone_groups(backbone, 1e-3, 0.05, 0.5):
        for parameter in group["params"]:
            rates[id(parameter)] = group["lr"]
    stem = rates[id(backbone.adapter.stem.first.weight)]
    block = rates[id(backbone.blocks[0].mlp.fc1.weight)]
    last = rates[id(backbone.decoder.attention.q.weight)]
    assert block == last == pytest.approx(1e-3)  # the decoder belongs to the last layer
    assert stem == pytest.approx(0.5e-3)


def test_vectors_latents_and_queries_do_not_decay() -> None:
    backbone = tiny_backbone()
    decays = {}
    for group in backbone_groups(backbone, 1e-3, 0.05, 1.0):
        assert group["lr"] == pytest.approx(1e-3)
        for parameter in group["params"]:
            decays[id(parameter)] = group["weight_decay"]
    assert decays[id(backbone.query)] == decays[id(backbone.latents.shared)] == decays[id(backbone.norm.weight)] == 0
    assert decays[id(backbone.blocks[0].mlp.fc1.weight)] == 0.05


def test_an_unknown_strategy_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'frozen'"):
        strategy_named("frosen")
