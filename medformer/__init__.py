"""Medformer: medical-imaging foundation models, pretrained on a cluster, adapted to few labels on a workstation.

The public Python API. Names are loaded on first use, so that importing the package costs nothing::

    from medformer import Registry, load_bundle

    folder = Registry().pull("medformer-demo@champion", Path("models/demo"))
    backbone = load_bundle(folder).backbone
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "FewLabelClassifier": "finetune.classifier.estimator",
    "FewLabelRegressor": "finetune.classifier.estimator",
    "Cases": "finetune.cases",
    "Metadata": "pretrain.metadata",
    "Registry": "cluster.registry",
    "ShardedDataset": "data_shards.reading.reader",
    "open_classifier": "finetune.predictions",
    "read_cases": "finetune.readers",
    "load_bundle": "pretrain.bundle",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    """Load a public name from its home on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'medformer' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
