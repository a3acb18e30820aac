from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from data_shards.support.errors import ConfigError
from finetune import heads
from finetune.fit.features import joined
from finetune.heads import CaseFeatures, create_head
from finetune.heads.attention import AttentionHead
from finetune.heads.features import SUMMARIES, width_of

READS = [("linear", {"reads": reads}) for reads in SUMMARIES]


def features_of(cases: int, tokens: int, dim: int, seed: int = 0) -> CaseFeatures:
    generator = torch.Generator().manual_seed(seed)
    return CaseFeatures(
        torch.randn(cases, dim, generator=generator, dtype=torch.float64),
        torch.randn(cases, tokens, dim, generator=generator, dtype=torch.float64),
    )


def attention(dim: int, outputs: int, heads: int = 4) -> AttentionHead:
    head = create_head("attention", dim, outputs, {"heads": heads}).double()
    torch.nn.init.normal_(head.query_HE)
    return head


def test_heads_are_found_by_name() -> None:
    assert {"attention", "linear"} <= set(heads.HEADS)
    assert create_head("attention", 8, 2).name == "attention"
    with pytest.raises(ConfigError, match="unknown head 'lineer'; did you mean 'linear'"):
        create_head("lineer", 8, 2)
    with pytest.raises(ConfigError, match="head linear: .*raeds.*did you mean 'reads'"):
        create_head("linear", 8, 2, {"raeds": "mean"})


def test_a_head_is_known_once_its_file_is_there(tmp_path: Path) -> None:
    import finetune

    copy = tmp_path / "finetune"
    shutil.copytree(Path(finetune.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "heads" / "first.py").write_text(
        "from finetune.heads.base import Head, register_head\n"
        "@register_head('first')\nclass FirstHead(Head):\n    needs_tokens = False\n"
    )
    script = "from finetune import heads\nprint(heads.__file__, heads.create_head('first', 4, 1).name, *heads.HEADS)\n"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    file, name, *names = done.stdout.split()
    assert (file, name) == (str(copy / "heads" / "__init__.py"), "first")
    assert {"attention", "first", "linear"} <= set(names)


@pytest.mark.parametrize(("name", "options"), [*READS, ("attention", {})])
def test_every_weight_of_a_head_gets_gradient(name: str, options: dict) -> None:
    torch.manual_seed(0)
    head = create_head(name, 16, 4, options).double()
    logits = head(features_of(3, 9, 16))
    assert logits.shape == (3, 4)
    logits.square().sum().backward()
    for parameter_name, parameter in head.named_parameters():
        # Adding a constant to all keys of a softmax changes nothing, so the bias of the keys has gradient zero.
        if parameter_name != "key.bias":
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, parameter_name
    grouped = [id(parameter) for group in head.param_groups() for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in head.parameters())


@pytest.mark.parametrize(("name", "options"), [*READS, ("attention", {})])
def test_the_gradient_is_that_of_finite_differences(name: str, options: dict) -> None:
    torch.manual_seed(0)
    head = create_head(name, 8, 3, options).double()
    given = features_of(2, 5, 8)

    def outputs(embedding: Tensor, tokens: Tensor) -> Tensor:
        return head(replace(given, embedding_BD=embedding, tokens_BTD=tokens))

    assert torch.autograd.gradcheck(outputs, (given.embedding_BD.requires_grad_(), given.tokens.requires_grad_()))


def test_a_head_of_the_embedding_alone_asks_for_no_tokens() -> None:
    needs = {reads: create_head("linear", 8, 2, {"reads": reads}).needs_tokens for reads in SUMMARIES}
    assert needs == {"embedding": False, "mean": True, "mean_spread": True, "embedding_mean_spread": True}
    assert create_head("attention", 8, 2).needs_tokens


@pytest.mark.parametrize("reads", SUMMARIES)
def test_summaries_are_those_written_out_and_as_wide_as_said(reads: str) -> None:
    given = features_of(3, 7, 6)
    mean, spread = given.tokens.mean(dim=1), given.tokens.std(dim=1, correction=0)
    parts = {
        "embedding": [given.embedding_BD],
        "mean": [mean],
        "mean_spread": [mean, spread],
        "embedding_mean_spread": [given.embedding_BD, mean, spread],
    }[reads]
    found = given.summary(reads)
    torch.testing.assert_close(found, torch.cat(parts, dim=1))
    assert found.shape[1] == width_of(reads, 6)


def test_the_spread_of_equal_tokens_is_zero_and_has_a_gradient() -> None:
    tokens = torch.ones(1, 4, 3, requires_grad=True)
    spread = CaseFeatures(torch.zeros(1, 3), tokens).spread()
    spread.sum().backward()
    assert not spread.any() and tokens.grad.isfinite().all()


HEADS: list[Callable[[], torch.nn.Module]] = [
    *(lambda reads=reads: create_head("linear", 8, 3, {"reads": reads}).double() for reads in SUMMARIES),
    lambda: attention(8, 3),
]


@pytest.mark.parametrize("make", HEADS)
def test_padding_changes_nothing(make: Callable[[], torch.nn.Module]) -> None:
    torch.manual_seed(0)
    head = make()
    few, many = features_of(2, 5, 8, seed=1), features_of(3, 11, 8, seed=2)
    both = joined([few, many])
    assert both.tokens.shape == (5, 11, 8)
    torch.testing.assert_close(head(both), torch.cat([head(few), head(many)]))
    torch.testing.assert_close(head(both.take(torch.tensor([4, 0]))), torch.cat([head(many)[2:], head(few)[:1]]))


def test_attention_does_not_depend_on_the_order_of_the_tokens() -> None:
    torch.manual_seed(0)
    head, given = attention(16, 3), features_of(2, 10, 16)
    shuffled = replace(given, tokens_BTD=given.tokens[:, torch.randperm(10)])
    torch.testing.assert_close(head(shuffled), head(given))


def test_attention_pools_with_the_weights_written_out() -> None:
    torch.manual_seed(0)
    head, given = attention(12, 3, heads=3), features_of(2, 7, 12)
    normed = head.norm(given.tokens)
    keys = head.key(normed)
    pooled = []
    for index in range(3):
        part = slice(4 * index, 4 * index + 4)
        weights = (keys[..., part] @ head.query_HE[index] / 4**0.5).softmax(dim=1)
        pooled.append((weights[..., None] * normed[..., part]).sum(dim=1))
    torch.testing.assert_close(head.pool(given), torch.cat(pooled, dim=1))


def test_heads_must_divide_the_channels() -> None:
    with pytest.raises(ValueError, match="3 heads do not divide 16"):
        create_head("attention", 16, 2, {"heads": 3})
