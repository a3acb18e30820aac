"""Gradients are averaged over the ranks in float32, also where the network computes in bfloat16."""

from __future__ import annotations

import pytest
import torch

from tests.pretrain.gradient_ranks import Case, all_averaged_gradients
from tests.pretrain.ranks import run_ranks

ROUNDING = 4 * torch.finfo(torch.float32).eps
OWN = {"torch_autocast": {"enabled": True, "dtype": "bfloat16"}}
CASES: list[Case] = [
    *((stage, precision, {}) for precision in ("fp32", "bf16") for stage in (0, 1, 2)),
    (1, "bf16", OWN),
]


@pytest.fixture(scope="module")
def differences() -> list[list[dict[str, tuple[float, float]]]]:
    """Of each rank and case."""
    return run_ranks(all_averaged_gradients, 2, CASES)


@pytest.mark.parametrize("number", range(len(CASES) - 1), ids=lambda number: "ZeRO {}, {}".format(*CASES[number]))
def test_the_average_over_two_ranks_is_that_of_float32_at_every_stage(
    number: int, differences: list[list[dict[str, tuple[float, float]]]]
) -> None:
    for errors in (cases[number] for cases in differences):
        linear = [name for name in errors if name.endswith(("qkv.weight", "fc1.weight", "proj.weight"))]
        assert len(linear) >= 5
        for name, (found, in_bfloat16) in errors.items():
            assert found < ROUNDING, name
            if name in linear:
                assert in_bfloat16 > 100 * ROUNDING, f"{name}: an average in bfloat16 would not be told apart"


def test_a_section_of_the_documents_own_is_left_as_it_is(
    differences: list[list[dict[str, tuple[float, float]]]],
) -> None:
    """The comparison can fail: by DeepSpeed's own choice linear maps and convolutions are averaged in bfloat16."""
    for errors in (cases[-1] for cases in differences):
        assert max(found for found, _ in errors.values()) > 100 * ROUNDING
