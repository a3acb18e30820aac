"""What augmentation may do to images of an organ and a modality, and why: data of ``policies/medical.yaml``."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml
from pydantic import Field, model_validator

from data_shards.support.documents import Document, parse
from data_shards.support.errors import ConfigError, DataError
from data_shards.vocabulary import Modality, Organ, word
from pretrain.views.config import ViewConfig
from pretrain.views.transforms import TRANSFORMS, TransformConfig


def _known(enumeration: type[Modality] | type[Organ], names: Iterable[str]) -> None:
    for name in names:
        try:
            word(enumeration, name)
        except DataError as error:
            raise ValueError(str(error)) from None


class Rule(Document):
    """What one or several transforms may do.

    Attributes:
        transforms: their names.
        never: whether they are not for such images at all.
        most: the largest value of a parameter.
        modalities: of a rule of an organ, the modalities for which it counts; all where none is named.
        why: the reason, in words.
    """

    transforms: tuple[str, ...]
    never: bool = False
    most: dict[str, float] = Field(default_factory=dict)
    modalities: tuple[str, ...] = ()
    why: str

    @model_validator(mode="after")
    def _is_one(self) -> Rule:
        if self.never == bool(self.most):
            raise ValueError("a rule says that transforms are never applied, or the most that a parameter may be")
        for name in self.transforms:
            if name not in TRANSFORMS:
                raise ValueError(f"unknown transform {name!r}")
            for parameter in self.most:
                if parameter not in TRANSFORMS[name].Config.model_fields:
                    raise ValueError(f"transform {name} has no parameter {parameter!r}")
        _known(Modality, self.modalities)
        return self

    def in_words(self, transform: str) -> str:
        """For one of its transforms."""
        if self.never:
            return f"{transform}: never"
        return ", ".join(f"{transform}.{name}: at most {most:g}" for name, most in self.most.items())


class Policy(Document):
    """Rules by modality and by organ."""

    modality: dict[str, tuple[Rule, ...]]
    organ: dict[str, tuple[Rule, ...]]

    @model_validator(mode="after")
    def _in_vocabulary(self) -> Policy:
        _known(Modality, self.modality)
        _known(Organ, self.organ)
        return self

    def rules(self, organs: Collection[str], modalities: Collection[str]) -> Iterator[tuple[str, Rule]]:
        """The rules that count for images of these organs and modalities, each with whose it is."""
        for name in sorted(modalities):
            for rule in self.modality.get(name, ()):
                yield name, rule
        for name in sorted(organs):
            for rule in self.organ.get(name, ()):
                if not rule.modalities or set(rule.modalities) & set(modalities):
                    yield name, rule


@functools.cache
def policy_named(name: str) -> Policy:
    """A policy of this package by its name."""
    content = resources.files("pretrain.views.policies").joinpath(f"{name}.yaml").read_text()
    return parse(Policy, yaml.safe_load(content), f"policy {name}")


@dataclass(frozen=True)
class Ruled:
    """Views under a policy.

    Attributes:
        views: what is left of them.
        notes: what was changed of the defaults, and why.
    """

    views: ViewConfig
    notes: tuple[str, ...]


def under_policy(
    views: ViewConfig, organs: Collection[str], modalities: Collection[str], shape: tuple[int, ...]
) -> Ruled:
    """The views as the policy they name allows them for images of these organs and modalities.

    Defaults give way to the policy: what is left at its default is switched off, or lowered. What was set to something
    else is meant, and is refused where it is not allowed.

    Args:
        views: ``views.policy`` names the policy; with None they stay as they are.
        organs: what the images show, by name; for ``unknown`` there is no rule.
        modalities: how they were made, likewise.
        shape: of each image, ``C,H,W`` or ``C,D,H,W``: a transform that does nothing to such images is not refused.

    Raises:
        ConfigError: the views ask for what the policy forbids.
    """
    changes: dict[str, dict[str, Any] | None] = {}
    notes: dict[str, None] = {}
    if views.policy is None:
        return Ruled(views, ())
    for whose, rule in policy_named(views.policy).rules(organs, modalities):
        for name in rule.transforms:
            given = views.transforms.get(name)
            if given is None or not given.acts_on(shape) or (name in changes and changes[name] is None):
                continue
            default = TRANSFORMS[name].Config() if TRANSFORMS[name].on else None
            lowered = _lowered(given, default, rule)
            if lowered is given:
                continue
            reason = f"{rule.in_words(name)} ({whose}: {rule.why})"
            if lowered is _REFUSED:
                raise ConfigError(f"views.{name} is not for such images: {reason}; views.policy: null asks no policy")
            notes[reason] = None
            if lowered is None:
                changes[name] = None
            else:
                before = changes.get(name) or given.model_dump()
                changes[name] = {**before, **{key: min(before[key], most) for key, most in rule.most.items()}}
    return Ruled(views.changed(**changes) if changes else views, tuple(notes))


_REFUSED: Any = object()


def _lowered(given: TransformConfig, default: TransformConfig | None, rule: Rule) -> Any:
    """The parameters where the rule allows them, None or other ones where they are defaults, else a refusal."""
    if rule.never:
        return None if given == default else _REFUSED
    above = {name: most for name, most in rule.most.items() if getattr(given, name) > most}
    if not above:
        return given
    # Of a transform that was switched on by name, a parameter that is left out is a default likewise.
    usual = type(given)()
    if all(getattr(given, name) == getattr(usual, name) for name in above):
        return given.model_copy(update=above)
    return _REFUSED
