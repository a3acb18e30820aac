"""``MLmodel``, by which MLflow's own tools know how to open a classifier."""

from __future__ import annotations

from pathlib import Path

from cluster.digests import CLASSIFIER_FILE, is_classifier
from cluster.errors import RegistryError
from data_shards.support.files import read_json

_LOADER = "medformer.serving"
"""Imported by MLflow; a module that is installed and not code that is stored, which could be anybody's."""


def write_flavour(bundle: Path, model_id: str, run_id: str | None, path: Path) -> bool:
    """Write ``MLmodel`` for a classifier that knows how files become images; whether there is one.

    Args:
        bundle: what is published.
        model_id: of the logged model.
        run_id: the run it came from.
        path: where to.
    """
    from mlflow import pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    if not is_classifier(bundle):
        return False
    record = read_json(bundle / CLASSIFIER_FILE, RegistryError).get("record")
    if not isinstance(record, dict) or record.get("recipe") is None:
        return False
    # Only what there always is; a table may have more columns, which MLflow drops where a signature does not name them.
    inputs = [ColSpec(DataType.string, "content")]
    inputs += [ColSpec(DataType.string, name, required=False) for name in _columns(record["recipe"])]
    model = Model(run_id=run_id, model_id=model_id, signature=ModelSignature(inputs=Schema(inputs)))
    pyfunc.add_to_model(model, loader_module=_LOADER)
    model.save(str(path))
    return True


def _columns(recipe: object) -> list[str]:
    """The columns that new images may come with, such as which image of which study or bag they are."""
    options = recipe.get("options", {}) if isinstance(recipe, dict) else {}
    named = options.get("columns", {}) if isinstance(options, dict) else {}
    roles = ("subject", "study", "bag", "image", "organ", "modality")
    return [str(named.get(role) or role) for role in roles] if isinstance(named, dict) else list(roles)
