"""What a head says of the instances of a case: its tokens, or its studies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

InstanceKind = Literal["token", "study"]


@dataclass(frozen=True)
class Instances:
    """Scores of the ``H`` instances of each of ``B`` cases.

    Attributes:
        scores_BHO: on the scale of the outputs of the head: what it gives for a case is pooled of them.
        weights_BH: the share of each in what is given for the case, 1 in sum; None where the pooling has none.
        present_BH: where there is an instance; None where all are.
        kind: what they are: tokens in the order of ``tokens_BTD``, or studies in that of ``studies_BSD``.
    """

    scores_BHO: Tensor
    weights_BH: Tensor | None
    present_BH: Tensor | None
    kind: InstanceKind
