"""Models of the registry that a pretraining document names, as folders that its workers can read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_shards.support.files import home_folder
from pretrain.config import PretrainConfig


def with_pulled_models(config: PretrainConfig) -> PretrainConfig:
    """The same document with the folders of the models that it names as ``NAME@ALIAS`` or ``NAME:VERSION``.

    They are those of ``model.init_from`` and ``objectives.brainfuse.generator``, and are pulled into
    ``$MEDFORMER_HOME/models/NAME-VERSION``, where they stay: a run that is resumed reads them again, and says which
    version it has.

    Raises:
        RegistryError: the registry has no such model, or cannot be reached.
    """
    changed: dict[str, Any] = {}
    tracking_uri = config.cluster.tracking_uri
    if (given := config.model.init_from) is not None:
        changed["model"] = config.model.model_copy(update={"init_from": _folder(given, tracking_uri)})
    fusion = config.objectives.get("brainfuse", {})
    if (given := fusion.get("generator")) is not None:
        fusion = {**fusion, "generator": _folder(Path(given), tracking_uri)}
        changed["objectives"] = {**config.objectives, "brainfuse": fusion}
    return config.model_copy(update=changed) if changed else config


def _folder(given: Path, tracking_uri: str | None) -> Path:
    reference = str(given)
    if given.is_dir() or not set(reference) & {"@", ":"}:
        return given
    from cluster.registry import Registry  # only here: a local folder needs no registry software

    registry = Registry(tracking_uri)
    found = registry.resolve(reference)
    fixed = f"{found.name}:{found.version}"
    return registry.pull(fixed, home_folder() / "models" / fixed.replace(":", "-"))
