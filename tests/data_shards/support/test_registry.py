"""A registry: names are found, unknown and taken ones refused in one way; every registry of the system is one."""

from __future__ import annotations

from typing import ClassVar

import pytest

from data_shards.sources.base import SOURCES, registered_sources
from data_shards.support.documents import Document
from data_shards.support.errors import ConfigError, DataError, MedformerError
from data_shards.support.registry import Registry
from finetune.alignment import ALIGNMENTS
from finetune.explain.methods import METHODS
from finetune.heads import HEADS
from finetune.shift.corruptions import CORRUPTIONS
from finetune.steppers import STEPPERS
from finetune.steppers.dba.selection import SELECTIONS
from finetune.strategies import STRATEGIES
from finetune.targets import TARGETS
from pretrain.objectives import OBJECTIVES
from pretrain.views.transforms import TRANSFORMS
from tests.registries import restored

registered_sources()
ALL: tuple[Registry, ...] = (
    ALIGNMENTS, CORRUPTIONS, HEADS, METHODS, OBJECTIVES, SELECTIONS, SOURCES, STEPPERS, STRATEGIES, TARGETS, TRANSFORMS,
)  # fmt: skip


class Knife:
    """A part."""

    class Config(Document):
        """Its options."""

        length_mm: int = 200

    name: ClassVar[str]


class Fork(Knife):
    """Another."""


def drawer() -> Registry[Knife]:
    """A registry of one part."""
    parts: Registry[Knife] = Registry("part", where="drawer: ", error=DataError)
    assert parts.register("knife")(Knife) is Knife
    return parts


def test_a_part_is_found_by_its_name_with_its_options_checked() -> None:
    parts = drawer()
    assert parts.named("knife") is Knife and Knife.name == "knife"
    parts.register("fork")(Fork)
    assert parts.names() == ["fork", "knife"] and Knife.name == "knife" and Fork.name == "fork"
    assert parts.config("fork", {"length_mm": 5}).length_mm == 5 and parts.config("knife").length_mm == 200
    with pytest.raises(ConfigError, match=r"^part fork: unknown key 'lenght_mm'; did you mean 'length_mm'\?$"):
        parts.config("fork", {"lenght_mm": 5})


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(DataError, match=r"^drawer: unknown part 'knive'; did you mean 'knife'\?$"):
        drawer().named("knive")
    with pytest.raises(DataError, match=r"^drawer: unknown part 'spoon'; valid: knife$"):
        drawer().config("spoon")


def test_a_name_is_taken_once_and_again_only_by_the_same_class() -> None:
    parts = drawer()
    with pytest.raises(DataError, match=rf"^part 'knife' of {__name__} has the name of that of {__name__}; choose"):
        parts.register("knife")(Fork)
    assert parts == {"knife": Knife}
    assert drawer().register("knife", replace=True)(Fork) is Fork
    again = type("Knife", (Knife,), {"__module__": __name__, "__qualname__": "Knife"})  # as a reloaded module makes it
    assert parts.register("knife")(again) is again and parts.named("knife") is again


@pytest.mark.parametrize("registry", ALL, ids=lambda registry: registry.kind)
def test_every_registry_refuses_an_unknown_name_and_a_second_class_of_one_name(registry: Registry) -> None:
    name = registry.names()[0]
    assert registry.named(name).name == name
    with pytest.raises(MedformerError, match=f"unknown {registry.kind} '{name}_'; did you mean '{name}'"):
        registry.named(f"{name}_")
    with restored(registry), pytest.raises(MedformerError, match=f"{registry.kind} '{name}' of .* has the name of"):
        registry.register(name)(Fork)
