"""In what two versions differ: configuration, data and metrics."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cluster.digests import CLASSIFIER_FILE
from cluster.records import PublishedModel
from cluster.registry import Registry

# What says where and how a run was made, but not what was learned.
_ELSEWHERE = ("config.out", "config.cluster.", "config_sha256", "fine_tuned.")
# What the record of a fit says of the cases.
_DATA = ("data", "given_sha256", "index_sha256", "labelled_images", "unlabelled_images", "per_class", "recipe")


@dataclass(frozen=True)
class Line:
    """One difference; None where a side does not have it."""

    section: str
    key: str
    left: str | None
    right: str | None


@dataclass(frozen=True)
class Difference:
    """Two versions side by side.

    Attributes:
        left: the first.
        right: the second.
        lines: what differs, in the order of ``model``, ``config``, ``data``, ``metrics``.
    """

    left: PublishedModel
    right: PublishedModel
    lines: tuple[Line, ...]


def difference(registry: Registry, first: str, second: str) -> Difference:
    """Compare two versions by their documents; the weights only by their digests.

    Args:
        registry: where they are.
        first: ``name@alias`` or ``name:version``.
        second: the other one; it may be of another name.

    Raises:
        RegistryError: one is not there, or damaged.
    """
    left, right = registry.resolve(first), registry.resolve(second)
    sides = [_sections(registry, each) for each in (left, right)]
    lines = []
    for section in sides[0]:
        ours, theirs = (side[section] for side in sides)
        for key in dict.fromkeys([*ours, *theirs]):
            if ours.get(key) != theirs.get(key):
                lines.append(Line(section, key, ours.get(key), theirs.get(key)))
    return Difference(left, right, tuple(lines))


def _sections(registry: Registry, model: PublishedModel) -> dict[str, dict[str, str]]:
    fitted = CLASSIFIER_FILE in model.files
    home = "backbone/" if fitted else ""
    config, provenance = (registry.document(model, f"{home}{name}.json") for name in ("config", "provenance"))
    document = registry.document(model, CLASSIFIER_FILE) if fitted else {}
    weights = {name: each.sha256[:12] for name, each in sorted(model.files.items()) if name.endswith(".safetensors")}
    settings = {key: value for key, value in provenance.items() if key != "datasets"}
    fit = {key: document[key] for key in ("kind", "params", "source", "classes") if key in document}
    record = document.get("record") or {}
    data: dict[str, Any] = {key: record[key] for key in _DATA if key in record}
    data |= {str(each.get("name", place)): each for place, each in enumerate(provenance.get("datasets", []))}
    return {
        "model": dict(_flat({"architecture": model.architecture, "network": config, "sha256": weights})),
        "config": {key: value for key, value in _flat(settings | fit) if not key.startswith(_ELSEWHERE)},
        "data": dict(_flat(data)),
        "metrics": {name: str(value) for name, value in registry.metrics(model).items()},
    }


def _flat(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of nested mappings; lists stay together, as what they hold is read together."""
    for key, value in document.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)
