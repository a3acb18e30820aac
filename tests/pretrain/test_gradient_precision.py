"""Gradients are averaged over the ranks in float32, also where the network computes in bfloat16."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.pretrain.gradient_ranks import averaged_gradients
from tests.pretrain.ranks import run_ranks

ROUNDING = 4 * torch.finfo(torch.float32).eps


@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_average_over_two_ranks_is_that_of_float32_at_every_stage(stage: int, precision: str) -> None:
    for errors in run_ranks(averaged_gradients, 2, stage, precision, {}):
        linear = [name for name in errors if name.endswith(("qkv.weight", "fc1.weight", "proj.weight"))]
        assert len(linear) >= 5
        for name, (found, in_bfloat16) in errors.items():
            assert found < ROUNDING, name
            if name in linear:
                assert in_bfloat16 > 100 * ROUNDING, f"{name}: an average in bfloat16 would not be told apart"


def test_a_section_of_the_documents_own_is_left_as_it_is() -> None:
    """The comparison can fail: by DeepSpeed's own choice linear maps and convolutions are averaged in bfloat16."""
    own: dict[str, Any] = {"torch_autocast": {"enabled": True, "dtype": "bfloat16"}}
    for errors in run_ranks(averaged_gradients, 2, 1, "bf16", own):
        assert max(found for found, _ in errors.values()) > 100 * ROUNDING
