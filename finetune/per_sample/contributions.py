"""What one use of a parameter adds to the gradient of every group of samples.

Shapes: ``K`` groups, ``R`` rows (samples, or tokens of samples), ``P`` inputs, ``O`` outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Dense:
    """The gradient of each group itself.

    Attributes:
        gradient_K: ``K`` and the axes of the parameter.
    """

    gradient_K: Tensor

    def numel(self) -> int:
        """Numbers that are held."""
        return self.gradient_K.numel()


@dataclass(frozen=True)
class Outer:
    """The gradient ``O, P`` of a group is the sum over its rows of gradient times activation.

    Attributes:
        inputs_RP: activations.
        outputs_RO: back-propagated gradients.
        group_R: the group of each row.
    """

    inputs_RP: Tensor
    outputs_RO: Tensor
    group_R: Tensor

    def numel(self) -> int:
        """Numbers that are held."""
        return self.inputs_RP.numel() + self.outputs_RO.numel()

    def gradient(self, count: int) -> Tensor:
        """Of each of ``count`` groups, ``(K, O, P)``."""
        places = places_of(self.group_R, count)
        if len({place.stop - place.start if isinstance(place, slice) else -1 for place in places}) == 1 and isinstance(
            places[0], slice
        ):
            inputs, outputs = (each.unflatten(0, (count, -1)) for each in (self.inputs_RP, self.outputs_RO))
            return outputs.mT @ inputs
        return torch.stack([self.outputs_RO[place].mT @ self.inputs_RP[place] for place in places])

    def gram(self, count: int) -> Tensor:
        """Inner products of the groups without their gradients, ``(K, K)``.

        Those of two rows are ``(a . a') (d . d')`` (Goodfellow, Efficient per-example gradient computations, 2015);
        with several rows to a sample they are summed.
        """
        products_RR = (self.inputs_RP @ self.inputs_RP.mT) * (self.outputs_RO @ self.outputs_RO.mT)
        if len(self.group_R) == count and torch.equal(self.group_R, torch.arange(count, device=self.group_R.device)):
            return products_RR
        rows_KR = products_RR.new_zeros(count, len(products_RR)).index_add_(0, self.group_R, products_RR)
        return products_RR.new_zeros(count, count).index_add_(1, self.group_R, rows_KR)

    def squares(self, count: int) -> Tensor:
        """The sum over groups of the squares of each number of the gradient, ``(O, P)``."""
        if len(self.group_R) == count and len(self.group_R.unique()) == count:  # one row to a group
            return self.outputs_RO.square().mT @ self.inputs_RP.square()
        return self.gradient(count).square().sum(dim=0)

    def weighted(self, weight_K: Tensor) -> Tensor:
        """The sum over groups of weight times gradient, ``(O, P)``."""
        weight_R1 = weight_K.to(self.outputs_RO.dtype)[self.group_R, None]
        taken = weight_R1[:, 0].nonzero()[:, 0]  # mostly a small part
        return (self.outputs_RO[taken] * weight_R1[taken]).mT @ self.inputs_RP[taken]

    def cheaper_by_rows(self, count: int) -> bool:
        """Whether :meth:`gram` takes fewer products than the inner products of gradients that are there already.

        Their own making is left out on both sides: the weighted sum takes as long.
        """
        rows, (inputs, outputs) = len(self.group_R), (self.inputs_RP.shape[1], self.outputs_RO.shape[1])
        return rows**2 * (inputs + outputs) <= count**2 * inputs * outputs


Contribution = Dense | Outer


def joined(found: Sequence[Contribution]) -> list[Contribution]:
    """The same with all rows of outer products in one, so that uses are added before any norm is taken."""
    outer = [each for each in found if isinstance(each, Outer)]
    dense = [each for each in found if isinstance(each, Dense)]
    one: list[Contribution] = []
    if outer:
        inputs, outputs, groups = ([getattr(each, name) for each in outer] for name in _FIELDS)
        one.append(outer[0] if len(outer) == 1 else Outer(torch.cat(inputs), torch.cat(outputs), torch.cat(groups)))
    if dense:
        total = dense[0].gradient_K
        for each in dense[1:]:
            total = total + each.gradient_K
        one.append(Dense(total))
    return one


_FIELDS = ("inputs_RP", "outputs_RO", "group_R")


def summed(values_B: Tensor, group_B: Tensor, count: int) -> Tensor:
    """The sum of the rows of each group, ``K`` and the further axes."""
    return values_B.new_zeros(count, *values_B.shape[1:]).index_add_(0, group_B, values_B)


def places_of(group_B: Tensor, count: int) -> list[slice | Tensor]:
    """Where the rows of each group stand: slices if those of every group stand side by side, in order."""
    sizes = torch.bincount(group_B, minlength=count).tolist()
    if len(group_B) < 2 or bool((group_B[1:] >= group_B[:-1]).all()):
        ends = [sum(sizes[: number + 1]) for number in range(count)]
        return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    return [(group_B == number).nonzero()[:, 0] for number in range(count)]
