"""A recording of what layers see in a forward and a backward pass, of which gradients by sample are made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data_shards.support.errors import ConfigError, TrainingError
from finetune.per_sample.contributions import Contribution, Dense
from finetune.per_sample.layers import LayerGradients
from finetune.per_sample.rows import current_rows
from finetune.per_sample.rules import Rule, known_kinds, rule_of
from finetune.per_sample.rules.base import Weight
from finetune.per_sample.rules.batch_norm import BatchNormRule
from pretrain.backbone.adapters import ImageAdapter
from pretrain.backbone.attention import Attention


class Tape:
    """Gradients of a network by group of samples.

    .. code-block:: python

        tape = Tape(network, groups=4)
        with tape.recording(group_B):
            loss_B = losses(network)
            tape.backward(loss_B)
        for layer in tape.layers():
            print(layer.name, layer.norms())

    Weights are not part of the recorded graph: one backward pass takes gradients to the outputs of layers, and what the
    weights get is computed of these when it is asked for. Several recordings add up. The parameters of one module
    are a layer, and one that is used several times has the sum over its uses.

    Args:
        module: the network; its parameters that need gradients are watched.
        groups: of samples, of which each has one gradient; as many as samples for gradients by sample.
        only: parameters to watch; None for all that need gradients. While recorded, the others need none.
        attached: weights stay part of the graph, so that the backward pass gives them their ordinary gradients, too,
            those of an unrecorded pass bit for bit where the network is :attr:`transparent`. It takes longer, and a
            use of a weight that no rule sees is then not found.

    Attributes:
        attached: as given.

    Raises:
        ConfigError: a layer mixes the samples of a batch, or there is no rule for it; it is named.
    """

    def __init__(
        self, module: nn.Module, groups: int, only: Iterable[nn.Parameter] | None = None, *, attached: bool = False
    ) -> None:
        self._module, self._groups, self.attached = module, groups, attached
        wanted = None if only is None else {id(parameter) for parameter in only}
        self._layer: dict[nn.Parameter, str] = {}
        for name, owner in module.named_modules():
            for parameter in owner.parameters(recurse=False):
                if parameter.requires_grad and parameter.numel() and (wanted is None or id(parameter) in wanted):
                    self._layer.setdefault(parameter, name)
        self._watched = {id(parameter): parameter for parameter in self._layer}
        self._found: dict[nn.Parameter, list[Contribution]] = {}
        self._leaves: list[list[dict[nn.Parameter, Tensor]]] = []
        self._group_B: Tensor | None = None
        for name, each in module.named_modules():
            if isinstance(each, nn.modules.batchnorm._BatchNorm):
                BatchNormRule.check(each, name)
        self._rules = list(self._rules_below())

    @property
    def transparent(self) -> bool:
        """Whether the network does what it does unrecorded, bit for bit."""
        # These take another way, equal but for rounding, where something has taken hold of a layer.
        looks = any(isinstance(module, Attention | ImageAdapter) for module in self._module.modules())
        return not looks and all(rule.transparent for rule in self._rules)

    @property
    def groups(self) -> int:
        """How many groups of samples there are."""
        return self._groups

    @contextmanager
    def recording(self, group_B: Tensor | np.ndarray) -> Iterator[None]:
        """Within the block the network is recorded, and gives what it gives otherwise.

        Args:
            group_B: the group of each sample of this pass, from 0.
        """
        self._group_B = torch.as_tensor(group_B)
        others = [
            parameter
            for parameter in self._module.parameters()
            if parameter.requires_grad and not self.watches(parameter)
        ]
        for parameter in others:
            parameter.requires_grad_(False)
        places = []
        for rule in self._rules:
            for name, method in rule.methods().items():
                places.append((rule.module, name))
                setattr(rule.module, name, method)
        try:
            yield
        finally:
            for module, name in places:
                delattr(module, name)
            for parameter in others:
                parameter.requires_grad_()
            self._group_B = None

    def backward(self, loss_B: Tensor, share: float | None = None) -> Tensor:
        """Propagate the losses of the samples of the pass back.

        Args:
            loss_B: one for each sample.
            share: groups get the gradient of their part in ``share`` times the mean of the losses; in their sum when
                it is left out.

        Returns:
            The losses, without gradient.

        Raises:
            ConfigError: the loss is reduced already, or a parameter is used where no rule sees it.
            TrainingError: a loss is not finite.
        """
        assert self._group_B is not None, "there is no recording"
        check_unreduced(loss_B, len(self._group_B))
        loss = loss_B.sum() if share is None else loss_B.mean() * share
        if self.attached:
            loss.backward()
        else:
            self._backward_aside(loss)
        for leaves in self._leaves:
            for parameter in leaves[0]:
                gradients = [each[parameter].grad for each in leaves]
                if any(gradient is not None for gradient in gradients):
                    there = [torch.zeros_like(parameter) if each is None else each for each in gradients]
                    self._found.setdefault(parameter, []).append(Dense(torch.stack(there)))
        self._leaves = []
        return loss_B.detach()

    def _backward_aside(self, loss: Tensor) -> None:
        """A backward pass in which no watched weight takes part, unless a use of it is not seen."""
        before = {parameter: parameter.grad for parameter in self._layer}
        for parameter in before:
            parameter.grad = None
        loss.backward()
        for parameter, layer in self._layer.items():
            if parameter.grad is not None and bool(parameter.grad.any()):
                raise ConfigError(
                    f"layer {layer or 'of the network'} uses its weight {tuple(parameter.shape)} where no rule for "
                    "gradients by sample sees it"
                )
            if parameter.grad is None:
                parameter.grad = before[parameter]

    def take(self) -> list[LayerGradients]:
        """What :meth:`layers` gives, after which nothing is recorded and the tape can be used again."""
        found = self.layers()
        self._found = {}
        return found

    def settle(self) -> None:
        """Make the gradients of what was recorded so far, so that its activations can go."""
        for layer in self.layers():
            layer.settle()
            self._found.update(layer.found)

    def layers(self) -> list[LayerGradients]:
        """The gradients of every layer that was used, in the order of the network."""
        grouped: dict[str, dict[nn.Parameter, list[Contribution]]] = {}
        for parameter, layer in self._layer.items():
            if parameter in self._found:
                grouped.setdefault(layer, {})[parameter] = self._found[parameter]
        return [LayerGradients.of(layer, self._groups, found) for layer, found in grouped.items()]

    # What rules ask of it.

    def watches(self, parameter: Tensor | None) -> bool:
        """Whether gradients of this parameter are wanted."""
        return id(parameter) in self._watched

    def group_of(self, rows: int, module: nn.Module) -> Tensor:
        """The group of each of so many rows that a module was given.

        Raises:
            ConfigError: these are not the samples, nor what :func:`~finetune.per_sample.rows.rows_of` says.
        """
        assert self._group_B is not None, "there is no recording"
        cases = current_rows()
        group = self._group_B if cases is None else self._group_B[torch.from_numpy(cases)]
        if len(group) != rows:
            name = next((name for name, each in self._module.named_modules() if each is module), "")
            raise ConfigError(
                f"layer {name} ({type(module).__name__}) has {rows} rows along its first axis, and there are "
                f"{len(group)} samples: its gradients cannot be told apart by sample"
            )
        device = next((parameter.device for parameter in self._layer), torch.device("cpu"))
        return group.to(device)

    def keep(self, tensor: Tensor) -> Callable[[], Tensor]:
        """A tensor for after the backward pass."""
        version = tensor._version

        def kept() -> Tensor:
            if tensor._version != version:
                raise TrainingError("an activation was changed in place after a layer had read it")
            return tensor.detach()

        return kept

    def watch(self, outputs: Tensor, seen: Callable[[Tensor], None]) -> Tensor:
        """The outputs of a layer, part of a graph even where nothing before them is."""
        if not torch.is_grad_enabled():
            return outputs
        if not outputs.requires_grad:
            outputs = outputs.detach().requires_grad_().clone()  # a leaf could not be changed in place
        outputs.register_hook(lambda gradient: seen(gradient.detach()))
        return outputs

    def fixed(self, parameter: Weight) -> Weight:
        """The parameter, out of the graph unless it is to stay there."""
        found: Any = parameter if parameter is None or self.attached else parameter.detach()
        weight: Weight = found
        return weight

    def add(self, parameter: Tensor | None, contribution: Contribution) -> None:
        """What a use adds."""
        if parameter is not None and self.watches(parameter):
            self._found.setdefault(self._watched[id(parameter)], []).append(contribution)

    def leaves(self, module: nn.Module) -> list[dict[str, Tensor]]:
        """For each group its own leaves of one tensor."""
        names = {name: parameter for name, parameter in module.named_parameters() if self.watches(parameter)}
        made = [{each: each.detach().requires_grad_() for each in names.values()} for _ in range(self._groups)]
        self._leaves.append(made)
        return [{name: leaves[parameter] for name, parameter in names.items()} for leaves in made]

    def _rules_below(self) -> Iterator[Rule]:
        """The rules of all layers that have watched parameters, and of those that are handed some."""
        handed = self._is_handed_weights()
        stack: list[tuple[str, nn.Module]] = [("", self._module)]
        seen: set[int] = set()
        while stack:
            name, module = stack.pop()
            if id(module) in seen:
                continue
            seen.add(id(module))
            kind = rule_of(module)
            own = any(self.watches(parameter) for parameter in module.parameters(recurse=False))
            below = any(self.watches(parameter) for parameter in module.parameters())
            if kind is None and own:
                raise ConfigError(
                    f"layer {name or 'of the network'} ({type(module).__name__}): there is no rule for gradients by "
                    f"sample; there are rules for {', '.join(known_kinds())}"
                )
            if kind is not None and (own or (kind.whole and below)):
                kind.check(module, name or "of the network")
            if getattr(module, "grad_checkpointing", False):
                raise ConfigError("gradients by sample are not recorded with gradient checkpointing; turn it off")
            if kind is not None and (own or (kind.whole and below) or (handed and kind.is_handed_weights)):
                yield kind(self, module)
            if kind is None or not kind.whole or not below:
                children = [(f"{name}.{child}" if name else child, each) for child, each in module.named_children()]
                stack.extend(reversed(children))

    def _is_handed_weights(self) -> bool:
        """Whether a watched parameter belongs to a module that hands it to others."""
        owners = (owner for owner in self._module.modules() for each in owner.parameters(recurse=False)
                  if self.watches(each))  # fmt: skip
        return any((kind := rule_of(owner)) is not None and not kind.sees_weights for owner in owners)


def check_unreduced(loss_B: Tensor, count: int) -> None:
    """Refuse a loss that is not one number for each of ``count`` samples.

    Raises:
        ConfigError: it is reduced already, or of another shape.
        TrainingError: it is not finite.
    """
    if loss_B.shape != (count,):
        reduced = "is reduced already" if loss_B.ndim == 0 else f"has shape {tuple(loss_B.shape)}"
        raise ConfigError(f"the loss {reduced}; one number for each of the {count} cases is expected, ({count},)")
    if not bool(torch.isfinite(loss_B).all()):
        raise TrainingError(f"the loss of a case is {loss_B[~torch.isfinite(loss_B)][0].item()}")
