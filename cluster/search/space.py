"""From a space of keys to documents."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import yaml

from cluster.search.document import Dimension
from cluster.search.kinds import Kind
from data_shards.support.documents import apply_overrides
from data_shards.support.errors import ConfigError

_NOT_VARIED = ("out", "cluster")


def with_values(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a document with other values at some keys, as ``key=value`` on the command line gives them.

    Raises:
        ConfigError: a key leads through what has no keys.
    """
    content = copy.deepcopy(dict(base))
    for key, value in values.items():
        # What YAML writes it reads again as it was; json would give 1e-05, which YAML takes for a word.
        apply_overrides(content, [f"{key}={yaml.safe_dump(value, default_flow_style=True, width=10**6)}"])
    return content


def check_space(base: Mapping[str, Any], space: Mapping[str, Dimension], kind: Kind, origin: str) -> None:
    """See that every key exists, and that each of its values is possible beside the first ones of the others.

    Raises:
        ConfigError: one is not; the key and the value are named, before anything is started.
    """
    if not space:
        raise ConfigError("space: nothing is varied; expected keys of the document, such as optimizer.lr")
    for key in space:
        if key.partition(".")[0] in _NOT_VARIED:
            raise ConfigError(f"{origin}: space.{key}: {' and '.join(_NOT_VARIED)} are the same for all trials")
    first = {key: dimension.examples[0] for key, dimension in space.items()}
    kind.check(with_values(base, first), f"{origin}: space")
    for key, dimension in space.items():
        for value in dimension.examples[1:]:
            kind.check(with_values(base, {**first, key: value}), f"{origin}: space.{key}={value}")


def as_tune(space: Mapping[str, Dimension]) -> dict[str, Any]:
    """The space in the words of Ray Tune."""
    from ray import tune

    found: dict[str, Any] = {}
    for key, dimension in space.items():
        if dimension.grid is not None:
            found[key] = tune.grid_search(dimension.grid)
        elif dimension.choice is not None:
            found[key] = tune.choice(dimension.choice)
        elif dimension.uniform is not None:
            found[key] = tune.uniform(*dimension.uniform)
        elif dimension.loguniform is not None:
            found[key] = tune.loguniform(*dimension.loguniform)
        else:
            assert dimension.integers is not None
            low, high = dimension.integers
            found[key] = tune.randint(low, high + 1)
    return found


def in_words(values: Mapping[str, Any]) -> str:
    """Values of a trial, for a line."""
    return ", ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in values.items()
    )
