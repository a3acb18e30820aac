from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from data_shards.support.errors import ConfigError
from finetune.cases import Cases
from finetune.fit.encoding import encode
from finetune.fit.network import Network, Readout
from finetune.heads import create_head
from finetune.objective import Objective
from finetune.per_sample import Tape
from finetune.strategies.low_rank import LowRank
from pretrain.backbone import normalise
from tests.finetune.per_sample.loop import compare
from tests.finetune.samples import blobs, of_target, solid_blobs, tiny_backbone

HEADS: dict[str, tuple[str, dict[str, object]]] = {
    "linear": ("linear", {"reads": "embedding_mean_spread"}),
    "attention": ("attention", {}),
    "mil": ("mil", {"pooling": "attention", "hidden": 4}),
    "mil, learnt pooling": ("mil", {"pooling": "log_sum_exp"}),
    "mil, scales and terms": ("mil", {"pooling": "top_bottom", "scales": (1, 2), "area": 0.5, "ranking": 0.3}),
    "spd": ("spd", {"channels": 4, "dims": [3]}),
}


def doubled(images: Tensor, numbers: np.ndarray, spacing: Tensor | None) -> Tensor:
    return normalise(images).double()


def network_of(head: str, options: dict[str, object], cases: Cases) -> Network:
    torch.manual_seed(0)
    backbone = tiny_backbone()
    readout = Readout.of(create_head(head, 32, cases.target.outputs, options), cases.target)
    network = Network(backbone, readout).double()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "maps" not in name:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def check(network: Network, cases: Cases, groups: list[int] | None = None) -> Tape:
    objective = Objective.of(cases.target, cases.known_labels, balanced=False, drawn_evenly=False, loss="nll")

    def losses(samples: list[int]) -> Tensor:
        studies = [cases.studies_of(sample) for sample in samples]
        features = encode(network.backbone, studies, dense=network.readout.head.needs_tokens, inputs=doubled)
        return network.readout.losses(features, objective, np.array(samples))

    return compare(network, losses, len(cases), groups)


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("name", HEADS)
def test_every_weight_of_backbone_and_head_has_the_gradients_of_a_loop(name: str, axes: int) -> None:
    cases = blobs(4) if axes == 2 else solid_blobs(4)
    tape = check(network_of(*HEADS[name], cases), cases)
    names = {layer.name for layer in tape.layers()}
    latents = {"backbone", "backbone.latents", "backbone.latents.collections", "backbone.adapter.stem.first"}
    assert latents <= names and ("backbone.adapter" in names) == (axes == 3)


@pytest.mark.parametrize("target", ["ordinal", "multilabel", "regression"])
def test_targets_with_weights_of_their_own_and_several_outputs(target: str) -> None:
    cases = of_target(target, 4)
    cases = replace(cases, labels=cases.known_labels.astype(np.float64) if target == "regression" else cases.labels)
    check(network_of("linear", {"reads": "embedding"}, cases), cases, [0, 0, 1, 1])


def test_bags_of_several_shapes_whose_studies_are_of_one_case() -> None:
    cases = blobs(6)
    bagged = replace(cases[:3], images=cases.images, rows=np.arange(6), bags=np.array([0, 1, 1, 2, 2, 2]))
    for head in ("mil", "attention", "spd"):
        options = {"mil": {"instances": "studies"}}.get(head, {})
        check(network_of(head, options, bagged), bagged)


def test_low_rank_changes_have_gradients_and_what_is_frozen_has_none() -> None:
    cases = blobs(4)
    network = network_of("attention", {}, cases)
    backbone = network.backbone.requires_grad_(False)
    LowRank(LowRank.Config(rank=2)).prepare(backbone)
    for name, parameter in backbone.double().named_parameters():
        if name.endswith(("down_RI", "up_OR")):
            parameter.requires_grad_()
            nn.init.normal_(parameter, std=0.1)
        else:
            parameter.requires_grad_(False)
    tape = check(network, cases, [0, 1, 1, 0])
    changed = [layer.name for layer in tape.layers() if layer.name.startswith("backbone")]
    assert len(changed) == 14  # q, kv, proj, fc1, fc2 of encoder and decoder; qkv, proj, fc1, fc2 of a layer
    assert all(name.rsplit(".", 1)[1] in ("q", "kv", "qkv", "proj", "fc1", "fc2") for name in changed)


def test_a_head_that_compares_the_cases_of_a_batch_is_refused() -> None:
    network = network_of("mil", {"ranking": 0.3, "ranking_above": "negatives"}, blobs(4))
    with pytest.raises(ConfigError, match="head mil: what its options add .* is of other cases of the batch"):
        Tape(network, 4)
