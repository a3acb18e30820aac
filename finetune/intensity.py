"""The rule by which a model reads values, and that by which images come: said where they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from data_shards.intensity import EVERY, Rule
from data_shards.support.errors import ConfigError, DataError
from finetune.cases import Cases
from finetune.config import ImagesConfig
from pretrain.intensity.trained import TrainedOn, difference

_LOOKED_AT = 16
"""So many cases are looked at for their image names; of one name all come by one rule."""

Config = TypeVar("Config", bound=ImagesConfig)


def with_rules(config: Config, trained: Mapping[str, Sequence[TrainedOn]]) -> Config:
    """The document with the rules of the model written in, where it asks for them.

    Args:
        config: with ``intensity: model`` or not.
        trained: by which rules images came that each model was trained on, by what the user calls it.

    Raises:
        ConfigError: that is asked for, and it is not one rule.
    """
    if config.intensity is not None:
        return config
    rules = {each.rule for told in trained.values() for each in told}
    if len(rules) != 1:
        said = "; ".join(sorted(rule.words for rule in rules)) or "nothing that is known"
        raise ConfigError(f"intensity: model: {', '.join(trained)} was trained with {said}; give the rule itself")
    return config.model_copy(update={"intensity": {EVERY: rules.pop()}})


def differences(cases: Cases, trained: Sequence[TrainedOn]) -> list[str]:
    """What is to be said where a network was not trained with the rules by which these cases come.

    Raises:
        DataError: their channels are not those that it was trained on.
    """
    found: dict[str, str] = {}
    for case in range(min(len(cases), _LOOKED_AT)):
        for study in cases.studies_of(case):
            for name, image in study.images.items():
                if name not in found:
                    found[name] = _said(
                        cases.name, name, image.modality.name, len(image.pixels), study.rule(name), trained
                    )
    return [f"{said}; intensity=model reads images by the rule of the model" for said in found.values() if said]


def _said(of: str, name: str, modality: str, stored: int, rule: Rule, trained: Sequence[TrainedOn]) -> str:
    try:
        said = difference(trained, modality, stored, rule)
    except DataError as error:
        raise DataError(f"{of}: {'' if name == 'image' else f'{name}: '}{error}") from None
    return f"{name}: {said}" if said and name != "image" else said
