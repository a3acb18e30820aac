from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from data_shards.support.errors import ConfigError
from finetune.config import FinetuneConfig
from finetune.heads import create_head, head_names
from finetune.heads.attention import AttentionHead


def test_heads_are_found_by_name() -> None:
    assert {"attention", "linear"} <= set(head_names())
    with pytest.raises(ConfigError, match="did you mean 'linear'"):
        create_head("lineer", 8, 2)
    with pytest.raises(ConfigError, match="unknown head 'lineer'; did you mean 'linear'"):
        FinetuneConfig(model="medformer_nano", data=Path("images"), head="lineer")


def test_a_head_is_known_to_the_document_once_its_file_is_there(tmp_path: Path) -> None:
    import finetune

    copy = tmp_path / "finetune"
    shutil.copytree(Path(finetune.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "heads" / "first.py").write_text(
        "from finetune.heads.base import Head, register_head\n"
        "@register_head('first')\nclass FirstHead(Head):\n    reads = 'embedding'\n"
    )
    script = (
        "from finetune.config import FinetuneConfig\n"
        "print(FinetuneConfig(model='medformer_nano', data='images', head='first').head)\n"
        "from finetune import heads\nprint(heads.__file__, *heads.head_names())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    configured, file, *names = done.stdout.split()
    assert (configured, file) == ("first", str(copy / "heads" / "__init__.py"))
    assert {"attention", "first", "linear"} <= set(names)


@pytest.mark.parametrize(("name", "shape"), [("linear", (3, 16)), ("attention", (3, 9, 16))])
def test_every_weight_of_a_head_gets_gradient(name: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    head = create_head(name, 16, 4)
    logits = head(torch.randn(shape))
    assert logits.shape == (3, 4)
    logits.square().sum().backward()
    for parameter_name, parameter in head.named_parameters():
        # Adding a constant to all keys of a softmax changes nothing, so the bias of the keys has gradient zero.
        if parameter_name != "key.bias":
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize(("name", "shape"), [("linear", (2, 8)), ("attention", (2, 5, 8))])
def test_the_gradient_is_that_of_finite_differences(name: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    head = create_head(name, 8, 3).double()
    assert torch.autograd.gradcheck(head, torch.randn(shape, dtype=torch.float64, requires_grad=True))


def test_attention_does_not_depend_on_the_order_of_the_tokens() -> None:
    torch.manual_seed(0)
    head = AttentionHead(16, 3).double()
    tokens = torch.randn(2, 10, 16, dtype=torch.float64)
    torch.testing.assert_close(head(tokens[:, torch.randperm(10)]), head(tokens))


def test_attention_pools_with_the_weights_written_out() -> None:
    torch.manual_seed(0)
    head = AttentionHead(12, 3, heads=3).double()
    torch.nn.init.normal_(head.query_HE)
    tokens = torch.randn(2, 7, 12, dtype=torch.float64)
    normed = head.norm(tokens)
    keys = head.key(normed)
    pooled = []
    for index in range(3):
        part = slice(4 * index, 4 * index + 4)
        weights = (keys[..., part] @ head.query_HE[index] / 4**0.5).softmax(dim=1)
        pooled.append((weights[..., None] * normed[..., part]).sum(dim=1))
    torch.testing.assert_close(head.pool(tokens), torch.cat(pooled, dim=1))


def test_heads_must_divide_the_channels() -> None:
    with pytest.raises(ValueError, match="3 heads do not divide 16"):
        AttentionHead(16, 2, heads=3)
