"""Strategies: which weights move, how fast, and that all others keep their bits."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from data_shards.support.errors import ConfigError
from data_shards.vocabulary import Modality
from finetune import strategies
from finetune.classifier.estimator import FewLabelClassifier
from finetune.fit.encoding import encode
from finetune.heads import create_head
from finetune.images import Study
from finetune.strategies import Rates, create_strategy
from finetune.strategies.groups import backbone_groups, layers_of
from finetune.strategies.low_rank import LowRankLinear
from pretrain.backbone import Medformer
from tests.finetune.samples import blobs, plane, studies_of, tiny_backbone

RATES = Rates(1e-3, 1e-4, 0.5, 0.05)
QUICK = {"max_steps": 4, "learning_rate": 1e-2, "backbone_rate": 1e-2, "batch_size": 8, "calibrate": False}


def deep_backbone() -> Medformer:
    import timm

    from tests.finetune.samples import TINY

    torch.manual_seed(0)
    return timm.create_model("medformer_nano", **{**TINY, "depth": 3})


def said_by(backbone: Medformer, *, dense: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """Embedding and tokens of planes, in float64."""
    studies = [[Study({"image": plane(image, Modality.xray)})] for image in blobs(3, seed=4).images]
    with torch.no_grad():
        found = encode(backbone.double().eval(), studies, dense=dense, inputs=_doubles)
    return found.embedding_BD, found.tokens


def _doubles(images: torch.Tensor, numbers: np.ndarray, spacing: object) -> torch.Tensor:
    return images.double() / 127.5 - 1


def test_every_parameter_is_in_exactly_one_group() -> None:
    backbone = tiny_backbone()
    found = [id(parameter) for group in backbone_groups(backbone, 1e-3, 0.05, 0.5) for parameter in group["params"]]
    assert sorted(found) == sorted(id(parameter) for parameter in backbone.parameters())


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


def test_strategies_are_found_by_name() -> None:
    assert {"frozen", "full", "low_rank", "selective", "two_stage"} <= set(strategies.STRATEGIES)
    with pytest.raises(ConfigError, match="did you mean 'frozen'"):
        create_strategy("frosen")
    with pytest.raises(ConfigError, match="strategy low_rank: .*rnak.*did you mean 'rank'"):
        create_strategy("low_rank", {"rnak": 3})


def test_layers_are_counted_from_the_input_and_hold_everything() -> None:
    backbone = deep_backbone()
    layers = layers_of(backbone)
    assert len(layers) == 4
    assert sorted(name for names in layers for name in names) == sorted(dict(backbone.named_parameters()))
    assert all(name.startswith(("adapter", "latents", "tags", "encoder.")) for name in layers[0])
    assert [{name.split(".")[1] for name in names if name.startswith("blocks.")} for names in layers[1:]] == [
        {"0"},
        {"1"},
        {"2"},
    ]
    assert {"query", "norm.weight"} <= set(layers[3]) and not {"query", "norm.weight"} & set(layers[2])


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"last": 1}, [3]), ({"last": 99}, [0, 1, 2, 3]), ({"layers": [0, -1]}, [0, 3]), ({"layers": [1, -3]}, [1])],
)
def test_selected_layers_are_those_that_are_asked_for(options: dict, expected: Sequence[int]) -> None:
    backbone, head = deep_backbone(), create_head("linear", 32, 1)
    (stage,) = create_strategy("selective", options).stages(backbone, head.param_groups(), RATES)
    names = {name for number in expected for name in layers_of(backbone)[number]}
    moving = {id(parameter) for parameter in stage.parameters}
    assert {name for name, parameter in backbone.named_parameters() if id(parameter) in moving} == names
    assert all(id(parameter) in moving for parameter in head.parameters())


def test_a_layer_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="layer 4 of a backbone with layers 0 to 3"):
        create_strategy("selective", {"layers": [4]}).stages(deep_backbone(), [], RATES)


def test_a_rank_that_no_matrix_has_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"rank 33; a matrix \(32, 32\) of the backbone has rank 32"):
        create_strategy("low_rank", {"rank": 33}).prepare(tiny_backbone())


@pytest.mark.parametrize("layers", ["all", "attention", "mlp"])
def test_low_rank_begins_as_the_pretrained_network_and_merges_into_what_it_became(layers: str) -> None:
    plain = said_by(tiny_backbone())
    backbone = tiny_backbone()
    strategy = create_strategy("low_rank", {"rank": 3, "layers": layers})
    strategy.prepare(backbone)
    changes = [module for module in backbone.modules() if isinstance(module, LowRankLinear)]
    assert changes
    for found, expected in zip(said_by(backbone), plain, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)
    generator = torch.Generator().manual_seed(1)
    for change in changes:
        change.up_OR.data = torch.randn(change.up_OR.shape, generator=generator, dtype=torch.float64) / 10
    adapted = said_by(backbone)
    assert (adapted[0] - plain[0]).abs().max() > 1e-2
    strategy.finish(backbone)
    assert not any(isinstance(module, LowRankLinear) for module in backbone.modules())
    assert list(backbone.state_dict()) == list(tiny_backbone().state_dict())
    for found, expected in zip(said_by(backbone), adapted, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_in_single_precision_merging_changes_what_the_network_says_by_rounding_alone() -> None:
    backbone = tiny_backbone().eval()
    strategy = create_strategy("low_rank", {"rank": 4})
    strategy.prepare(backbone)
    for module in backbone.modules():
        if isinstance(module, LowRankLinear):
            torch.nn.init.normal_(module.up_OR, std=0.02, generator=torch.Generator().manual_seed(2))
    studies = [[study] for study in studies_of(blobs(3))]
    with torch.no_grad():
        before = encode(backbone, studies, dense=True)
        strategy.finish(backbone)
        after = encode(backbone, studies, dense=True)
    torch.testing.assert_close(after.embedding_BD, before.embedding_BD, atol=3e-6, rtol=0)
    torch.testing.assert_close(after.tokens, before.tokens, atol=3e-6, rtol=0)


def test_low_rank_of_rank_zero_is_the_plain_network_and_moves_the_head_alone() -> None:
    backbone, head = tiny_backbone(), create_head("linear", 32, 1)
    strategy = create_strategy("low_rank", {"rank": 0})
    strategy.prepare(backbone)
    (stage,) = strategy.stages(backbone, head.param_groups(), RATES)
    assert {id(parameter) for parameter in stage.parameters} == {id(parameter) for parameter in head.parameters()}
    plain = said_by(tiny_backbone())
    for found, expected in zip(said_by(backbone), plain, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)
    strategy.finish(backbone)
    for found, expected in zip(said_by(backbone), plain, strict=True):
        assert torch.equal(found, expected)


def test_only_the_changes_of_low_rank_get_gradient_and_both_factors_do() -> None:
    layer = torch.nn.Linear(6, 5)
    change = LowRankLinear(layer, 2, 4.0, 0.0)
    torch.nn.init.normal_(change.up_OR)
    inputs = torch.randn(3, 6)
    weight = layer.weight + 2.0 * change.up_OR @ change.down_RI
    torch.testing.assert_close(change(inputs), inputs @ weight.T + layer.bias)
    change(inputs).square().sum().backward()
    assert change.up_OR.grad.abs().sum() > 0 and change.down_RI.grad.abs().sum() > 0


STRATEGIES = [
    ("frozen", {}, {}),
    ("selective", {"last": 1}, {"last": 1}),
    ("selective", {"layers": [0]}, {"layers": [0]}),
    ("low_rank", {"rank": 2, "layers": "mlp"}, {}),
    ("low_rank", {"rank": 0}, {}),
]


@pytest.mark.parametrize(("name", "options", "selected"), STRATEGIES)
@pytest.mark.parametrize("head", ["linear", "attention"])
def test_a_whole_fit_leaves_the_bits_of_what_does_not_move(name: str, options: dict, selected: dict, head: str) -> None:
    backbone, given = deep_backbone(), blobs(12, seed=1)
    before = copy.deepcopy(backbone.state_dict())
    fitted = FewLabelClassifier(backbone, head=head, strategy=name, strategy_options=options, **QUICK).fit(given)
    after = fitted.predictor_.members[0].backbone.state_dict()
    assert list(after) == list(before)  # buffers, too
    if name == "selective":
        (stage,) = create_strategy(name, selected).stages(backbone, [], RATES)
        ids = {id(parameter) for parameter in stage.parameters}
        may_move = {key for key, parameter in backbone.named_parameters() if id(parameter) in ids}
    elif name == "low_rank" and options["rank"]:
        may_move = {key for key in before if ".mlp.fc" in key and key.endswith("weight")}
    else:
        may_move = set()
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert moved <= may_move
    assert not may_move or len(moved) > len(may_move) / 2
    assert all(torch.equal(before[key], tensor) for key, tensor in backbone.state_dict().items())


@pytest.mark.parametrize("name", ["full", "two_stage"])
def test_a_full_fit_moves_every_layer(name: str) -> None:
    backbone = deep_backbone()
    fitted = FewLabelClassifier(backbone, strategy=name, **QUICK).fit(blobs(12, seed=1))
    after = dict(fitted.predictor_.members[0].backbone.named_parameters())
    before = dict(backbone.named_parameters())
    for names in layers_of(backbone):
        assert any(not torch.equal(before[key], after[key]) for key in names)
