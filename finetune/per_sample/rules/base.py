"""What a rule is, and where rules are found by the kind of a layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, TypeVar

from torch import Tensor, nn

from finetune.per_sample.contributions import Contribution

Weight = TypeVar("Weight", bound=Tensor | None)


class Kept(Protocol):
    """Something that a layer saw, to be asked for after the backward pass."""

    def __call__(self) -> Tensor:
        """The tensor, without gradient."""
        ...


class Watch(Protocol):
    """What a rule is given of the recording."""

    @property
    def groups(self) -> int:
        """How many groups of samples there are."""
        ...

    def watches(self, parameter: Tensor | None) -> bool:
        """Whether gradients of this parameter are wanted."""
        ...

    def group_of(self, rows: int, module: nn.Module) -> Tensor:
        """The group of each of so many rows that a module was given, ``(B,)``."""
        ...

    def keep(self, tensor: Tensor) -> Kept:
        """A tensor for later; what changes it in place is found out then."""
        ...

    def watch(self, outputs: Tensor, seen: Callable[[Tensor], None]) -> Tensor:
        """The outputs; ``seen`` is called with what is propagated back to them."""
        ...

    def add(self, parameter: Tensor | None, contribution: Contribution) -> None:
        """What a use adds to the gradients of a parameter; nothing where they are not wanted."""
        ...

    def fixed(self, parameter: Weight) -> Weight:
        """What a layer computes with in the place of a parameter."""
        ...

    def leaves(self, module: nn.Module) -> list[dict[str, Tensor]]:
        """For each group its own leaves in the place of the watched parameters below a module."""
        ...


class Rule:
    """Has a layer of one kind tell what it sees.

    Args:
        watch: the recording.
        module: the layer.

    Attributes:
        whole: whether it is for all that is below the layer; else modules below have rules of their own.
        sees_weights: whether it sees the uses of the layer's own weights; else these are handed to other modules.
        is_handed_weights: whether it is of modules to which others hand their weights.
    """

    whole: ClassVar[bool] = False
    sees_weights: ClassVar[bool] = True
    is_handed_weights: ClassVar[bool] = False

    def __init__(self, watch: Watch, module: Any) -> None:
        self.watch, self.module = watch, module

    @classmethod
    def fits(cls, module: Any) -> bool:
        """Whether it is for this layer, of a registered kind. A rule that is not leaves it to those of its parts."""
        del module
        return True

    @classmethod
    def check(cls, module: Any, name: str) -> None:
        """Refuse a layer as it is configured.

        Raises:
            ConfigError: says what is not supported.
        """

    @property
    def transparent(self) -> bool:
        """Whether a layer that is recorded does what it does otherwise, bit for bit, its gradients included."""
        return False

    def methods(self) -> Mapping[str, Callable[..., Any]]:
        """What stands in the place of methods of the layer while it is recorded."""
        return {}


RuleClass = TypeVar("RuleClass", bound=type[Rule])
_rules: dict[type[nn.Module], tuple[type[Rule], bool]] = {}


def register_rule(*kinds: type[nn.Module], subclasses: bool = False) -> Callable[[RuleClass], RuleClass]:
    """Class decorator: the rule is for layers of these kinds.

    Args:
        kinds: of layers.
        subclasses: also for what is derived of them. Mostly it is not: it may compute something else.
    """

    def add(rule: RuleClass) -> RuleClass:
        for kind in kinds:
            _rules[kind] = (rule, subclasses)
        return rule

    return add


def rule_of(module: nn.Module) -> type[Rule] | None:
    """The rule for a layer, or None."""
    for kind in type(module).__mro__:
        rule, subclasses = _rules.get(kind, (None, False))
        if rule is not None and (subclasses or kind is type(module)) and rule.fits(module):
            return rule
    return None


def known_kinds() -> list[str]:
    """The names of the kinds of layers that have rules."""
    return sorted(kind.__name__ for kind in _rules)
