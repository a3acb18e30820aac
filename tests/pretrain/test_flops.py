"""Operations by closed formula are those that torch counts while the network runs."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

import pretrain.backbone  # noqa: F401  (registers the sizes)
from data_shards.support.errors import MedformerError
from medformer.cli import parse_words
from pretrain.backbone.flops import forward_cost

CASES: list[tuple[str, dict[str, Any], tuple[int, ...], int]] = [
    ("medformer_nano", {}, (28, 28), 1),
    ("medformer_nano", {"cross_attends": 2, "latents_per_entry": 0}, (30, 41), 3),
    ("medformer_nano", {"num_heads": 1}, (12, 20, 17), 2),
    ("medformer_nano", {"embedding": "reads_tokens"}, (30, 41), 1),
    ("medformer_nano", {"embedding": "pooled_tokens"}, (12, 20, 17), 1),
    ("medformer_nano", {"stem": "conv", "stride": 4}, (12, 20, 17), 2),
    ("medformer_tiny", {"img_size": 64}, (61, 70), 3),
    ("medformer_nano", {"stem": "patch", "stride": 5}, (12, 20, 17), 1),
    ("medformer_nano", {"stem": "pixel", "stride": 1}, (9, 8), 3),
    ("medformer_base", {}, (224, 224), 3),
    ("medformer_base", {}, (96, 96, 96), 1),
]


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("name, kwargs, size, channels", CASES)
def test_the_formula_counts_what_torch_counts(
    name: str, kwargs: dict[str, Any], size: tuple[int, ...], channels: int, dense: bool
) -> None:
    with torch.device("meta"):
        backbone = timm.create_model(name, num_classes=0, **kwargs).eval()
        images = torch.empty(1, channels, *size)
        with FlopCounterMode(display=False) as counter:
            features = backbone.features(images, dense=dense)
    cost = forward_cost(backbone, size, channels, dense=dense)
    assert cost.total == pytest.approx(counter.get_total_flops(), rel=1e-3)
    if features.tokens_BTD is not None:
        assert cost.tokens == features.tokens_BTD.shape[1]


@pytest.mark.parametrize("size, channels", [((28,), 1), ((0, 28), 1), ((28, 28), 0), ((2, 2, 2, 2), 1)])
def test_sizes_that_cannot_be_are_refused(size: tuple[int, ...], channels: int) -> None:
    with torch.device("meta"):
        backbone = timm.create_model("medformer_nano", num_classes=0)
    with pytest.raises(ValueError, match="expected 2 or 3 positive numbers"):
        forward_cost(backbone, size, channels)


@pytest.mark.parametrize(
    "words", [["--size", "0"], ["--size", "1", "2", "3", "4"], ["--size", "28", "--channels", "0"]]
)
def test_the_command_refuses_sizes_that_cannot_be(words: list[str]) -> None:
    arguments = parse_words(["models", "sizes", *words])
    with pytest.raises(MedformerError, match="expected 1, 2 or 3 positive numbers"):
        arguments.run(arguments)
