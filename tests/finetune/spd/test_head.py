"""The head tells correlations apart that the mean cannot, ignores order and padding, and stays finite in bfloat16."""

import pytest
import torch
from sklearn.metrics import roc_auc_score

from data_shards.support.errors import DataError
from finetune.fit.network import Readout
from finetune.heads import CaseFeatures, create_head
from finetune.spd.stiefel import ManifoldAdamW, optimizer_of


def cases(count: int, seed: int) -> tuple[CaseFeatures, torch.Tensor]:
    """Means and variances are equal in both classes, the sign of the correlation of pairs of channels is not."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    tokens = torch.randn(count, 32, 8, generator=generator)
    sign = (2 * labels - 1)[:, None, None] * 0.8
    tokens = torch.cat([tokens[..., :4], sign * tokens[..., :4] + 0.6 * tokens[..., 4:]], dim=-1)
    return CaseFeatures(tokens.mean(1), tokens), labels


def scored(name: str, options: dict) -> float:
    torch.manual_seed(0)
    (train, labels), (test, truth) = cases(64, 0), cases(200, 1)
    head = create_head(name, 8, 1, options)
    optimizer = optimizer_of(Readout(head, None).groups(0.01, 0.01))
    for _ in range(100):
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(head(train)[:, 0], labels.float()).backward()
        optimizer.step()
    assert isinstance(optimizer, ManifoldAdamW) == (name == "spd")
    return float(roc_auc_score(truth, head(test)[:, 0].detach()))


@pytest.mark.parametrize("options", [{"map": "log"}, {"map": "sqrt"}, {"map": "log", "dims": [8, 6]}])
def test_only_correlations_differ(options) -> None:
    assert scored("spd", options) >= 0.95
    assert 0.35 < scored("linear", {"reads": "mean"}) < 0.65


def test_order_and_padding_change_nothing_and_one_token_is_refused() -> None:
    features, _ = cases(4, 2)
    head = create_head("spd", 8, 2)
    padded = torch.cat([features.tokens.flip(1), torch.zeros(4, 3, 8)], 1)
    weight = (torch.arange(35) < 32).float().expand(4, -1) / 32
    assert torch.allclose(head(features), head(CaseFeatures(features.embedding_BD, padded, weight)), atol=1e-5)
    with pytest.raises(DataError, match="two tokens"):
        head(CaseFeatures(features.embedding_BD, features.tokens[:, :1]))


@pytest.mark.parametrize("tokens", [torch.ones(2, 9, 8), torch.randn(2, 3, 8), 1e3 * torch.randn(2, 9, 8)])
@pytest.mark.parametrize("map_", ["log", "sqrt"])
def test_finite_under_bfloat16(tokens, map_) -> None:
    head = create_head("spd", 8, 2, {"map": map_, "dims": [6]})
    with torch.autocast("cpu", torch.bfloat16):
        outputs = head(CaseFeatures(tokens.mean(1), tokens.bfloat16()))
    outputs.float().sum().backward()
    assert outputs.isfinite().all() and all(p.grad.isfinite().all() for p in head.parameters())
