"""By which rules the images came that a network was trained on, and whether others come by the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from data_shards.intensity import BYTES, IntensityRule, Rule, Windows
from data_shards.support.documents import Document, parse
from data_shards.support.errors import CheckpointError, ConfigError, DataError


class TrainedOn(Document):
    """Images that a network was trained on; a bundle lists them.

    Attributes:
        modality: how they were made, entries of :class:`~data_shards.vocabulary.Modality` by name.
        channels: how many each had after the rule.
        rule: how their stored values became the range of the network.
    """

    modality: tuple[str, ...] = ()
    channels: int = Field(ge=1)
    rule: IntensityRule


def written(rules: Sequence[TrainedOn]) -> dict[str, Any]:
    """What the document of a network has of its rules: a key ``intensity``, where not all images had 8 bits."""
    if all(each.rule == BYTES for each in rules):
        return {}
    return {"intensity": [each.model_dump(mode="json") for each in rules]}


def read(document: Mapping[str, Any], path: str) -> tuple[TrainedOn, ...]:
    """The rules in the document of a network; that of 8 bits where it says nothing.

    Args:
        document: of the network.
        path: of its file, for messages.

    Raises:
        CheckpointError: they cannot be read.
    """
    given = document.get("intensity")
    if given is None:
        return (TrainedOn(channels=1, rule=BYTES),)
    try:
        return tuple(parse(TrainedOn, dict(each), path) for each in given)
    except (ConfigError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: intensity cannot be read: {error}") from None


def difference(trained: Sequence[TrainedOn], modality: str, stored: int, rule: Rule) -> str:
    """What is to be said where a network reads images by a rule it was not trained with; empty where it was.

    A network that was trained with several rules is held to those of the same modality, where there are any.

    Args:
        trained: of its bundle; none for a network of which nothing is known, as a fresh one.
        modality: of the images, by name.
        stored: channels of the images before the rule.
        rule: by which they come.

    Raises:
        DataError: it was trained on windows as channels, and these images have other channels.
    """
    alike = [each for each in trained if modality in each.modality] or list(trained)
    if not alike or any(each.rule == rule for each in alike):
        return ""
    rules = "; ".join(dict.fromkeys(each.rule.words for each in alike))
    said = f"the model was trained with {rules}; these images come by {rule.words}"
    channels = rule.channels(stored)
    windows = [each for each in alike if isinstance(each.rule, Windows) and len(each.rule.windows) > 1]
    if len(windows) == len(alike) and channels > 1 and all(each.channels != channels for each in windows):
        raise DataError(f"{said}, which has {channels} channels in place of {windows[0].channels}")
    return said
