"""Backforward propagation: the layers of a network are updated one after the other, each by a gradient of its own.

Stoica and Simionescu, student abstract, AAAI 2023. An update of early layers changes what later layers are given
(internal covariate shift), so the gradient that these were to follow is out of date. Here it is computed anew: for
``l = 1 .. L``

    theta_l <- theta_l - eta * dLoss/dtheta_l   at   (theta_1 new, .., theta_{l-1} new, theta_l old, .., theta_L old)

which is block Gauss-Seidel in forward order where gradient descent is Jacobi. A step takes ``L`` forward passes and as
many backward passes, each of them down to its layer: it is there to analyse with, not to train with.

Where the abstract is silent, this is our reading. A forward pass also moves running statistics and draws dropout masks.
All passes of a step begin with the same buffers and the same state of the random generators, and what is kept at the
end is what the first pass left: as one step of SGD, a step moves running statistics once, by the batch as the weights
before the step see it, and the loss of a step is one function of the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from data_shards.support.errors import TrainingError
from finetune.analysis.layers import check_blocks
from finetune.analysis.state import PassState


class Backforward:
    """Takes Backforward steps.

    Args:
        module: what is trained.
        blocks: its parameters, layer by layer in forward order; :func:`~finetune.analysis.layers.layers_in_order` finds
            them.
        optimizer: makes the optimizer of one block, such as ``partial(torch.optim.SGD, lr=0.1, momentum=0.9)``; one is
            made for each, so momentum and weight decay are those of torch.

    Attributes:
        optimizers: one per block; learning rates are set there.

    Raises:
        ConfigError: a parameter is in no block or in two.
    """

    def __init__(
        self,
        module: nn.Module,
        blocks: Sequence[Sequence[nn.Parameter]],
        optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    ) -> None:
        self.module = module
        self.blocks = check_blocks(module, blocks)
        self.optimizers = [optimizer(list(block)) for block in self.blocks]

    def step(self, loss_of: Callable[[], Tensor]) -> float:
        """Update every layer once.

        The ``grad`` of each parameter is afterwards the gradient by which it moved.

        Args:
            loss_of: a forward pass of one and the same batch, with the weights as they are when it is called.

        Returns:
            The loss before the step.

        Raises:
            TrainingError: the loss is not finite; layers before the one it was computed for have moved.
        """
        before = PassState.of(self.module)
        after, first = before, 0.0
        for number, (block, optimizer) in enumerate(zip(self.blocks, self.optimizers, strict=True)):
            if number:
                before.restore(self.module)
            loss = loss_of()
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"Backforward: the loss is {loss.item()} for layer {number} of {len(self.blocks)}; "
                    "try a smaller learning rate"
                )
            if not number:
                after, first = PassState.of(self.module), loss.item()
            # A layer that this batch does not use has no gradient, and its optimizer leaves it alone.
            gradients = torch.autograd.grad(loss, block, allow_unused=True)
            for parameter, gradient in zip(block, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
        after.restore(self.module)
        return first
