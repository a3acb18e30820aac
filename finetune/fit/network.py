"""A head with its link, and a backbone with both: what is trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data_shards.support.errors import ConfigError
from finetune.heads import CaseFeatures, Head
from finetune.objective import Objective
from finetune.per_sample import Whole, register_rule
from finetune.per_sample.rules import rule_of
from finetune.targets import Target
from pretrain.backbone import Backbone


class Readout(nn.Module):
    """A head, and what makes logits of its outputs.

    Args:
        head: reads the features.
        link: of the target; None where outputs are logits.
    """

    def __init__(self, head: Head, link: nn.Module | None) -> None:
        super().__init__()
        self.head = head
        self.link = link

    @classmethod
    def of(cls, head: Head, target: Target) -> Readout:
        """A head with the link of a target."""
        return cls(head, target.link())

    def forward(self, features: CaseFeatures) -> Tensor:
        """Logits ``(B, K)``."""
        outputs: Tensor = self.head(features)
        return outputs if self.link is None else self.link(outputs)

    def losses(self, features: CaseFeatures, objective: Objective, rows: np.ndarray) -> Tensor:
        """The loss of each case with what the head adds to it, ``(B,)``.

        Args:
            features: of the cases at ``rows``.
            objective: of all given cases.
            rows: which of them.
        """
        logits_BK: Tensor = self(features)
        loss_B = objective.per_case(logits_BK, rows)
        added_B = self.head.penalty(features, objective.values[torch.from_numpy(rows)].to(logits_BK.device))
        return loss_B if added_B is None else loss_B + added_B

    def groups(self, rate: float, weight_decay: float) -> list[dict[str, Any]]:
        """Optimizer groups with their peak rates; what the link learns does not decay."""
        found = [
            {
                "params": group["params"],
                "lr": rate * group.get("lr_scale", 1.0),
                "weight_decay": group.get("weight_decay", weight_decay),
                **({"manifold": group["manifold"]} if "manifold" in group else {}),
            }
            for group in self.head.param_groups()
        ]
        if self.link is not None:
            found.append({"params": list(self.link.parameters()), "lr": rate, "weight_decay": 0.0})
        return [group for group in found if group["params"]]


@register_rule(Readout)
class ReadoutRule(Whole):
    """A head whose weights are not all seen by rules for layers, or that adds to the loss, is run group by group."""

    names = ("forward", "losses")

    @classmethod
    def fits(cls, module: Readout) -> bool:
        """Whether a layer has weights of its own and no rule, or weights are used for what is added to the loss."""
        unseen = (
            any(True for _ in layer.parameters(recurse=False))
            and (rule_of(layer) is None or isinstance(layer, nn.ParameterDict | nn.ParameterList))
            for layer in module.modules()
            if layer is not module
        )
        return module.head.penalises or any(unseen)

    @classmethod
    def check(cls, module: Readout, name: str) -> None:
        """Refuse a head that compares the cases of a batch."""
        if module.head.compares:
            raise ConfigError(
                f"head {module.head.name}: what its options add to the loss of a case is of other cases of the batch, "
                "so there are no gradients by case"
            )


class Network(nn.Module):
    """A backbone and what follows it.

    Args:
        backbone: encodes the images.
        readout: reads what it gives.
    """

    def __init__(self, backbone: Backbone, readout: Readout) -> None:
        super().__init__()
        self.backbone = backbone
        self.readout = readout
