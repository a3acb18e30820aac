"""Values against pyriemann."""

import numpy as np
import torch
from pyriemann.utils.base import invsqrtm, logm, sqrtm

from finetune.spd.eigen import inverse_square_root, logarithm, square_root


def test_functions_equal_pyriemann() -> None:
    torch.manual_seed(0)
    factors = torch.randn(3, 6, 9, dtype=torch.float64)
    matrices = factors @ factors.mT
    for ours, theirs in ((logarithm, logm), (square_root, sqrtm), (inverse_square_root, invsqrtm)):
        np.testing.assert_allclose(ours(matrices).numpy(), theirs(matrices.numpy()), atol=1e-6)
