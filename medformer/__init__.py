"""Medformer: medical-imaging foundation models, pretrained on a cluster, adapted to few labels on a workstation.

The public Python API: the few things that people script with. Names are loaded on first use, so that importing the
package costs nothing; type checkers see what they are::

    from medformer import Registry, load_bundle

    folder = Registry().pull("medformer-demo@champion", Path("models/demo"))
    backbone = load_bundle(folder).backbone
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cluster.registry import Registry
    from data_shards.reading.reader import ShardedDataset
    from data_shards.writing.writer import write_dataset
    from finetune.cases import Cases
    from finetune.classifier.estimate import cross_validated
    from finetune.classifier.estimator import FewLabelClassifier, FewLabelRegressor
    from finetune.predictions import open_classifier
    from finetune.readers import read_cases, read_new
    from pretrain.bundle import load_bundle
    from pretrain.metadata import Metadata

__version__ = "0.1.0"

__all__ = [
    "Cases",
    "FewLabelClassifier",
    "FewLabelRegressor",
    "Metadata",
    "Registry",
    "ShardedDataset",
    "__version__",
    "cross_validated",
    "load_bundle",
    "open_classifier",
    "read_cases",
    "read_new",
    "write_dataset",
]

_HOMES = {
    "Cases": "finetune.cases",
    "FewLabelClassifier": "finetune.classifier.estimator",
    "FewLabelRegressor": "finetune.classifier.estimator",
    "Metadata": "pretrain.metadata",
    "Registry": "cluster.registry",
    "ShardedDataset": "data_shards.reading.reader",
    "cross_validated": "finetune.classifier.estimate",
    "load_bundle": "pretrain.bundle",
    "open_classifier": "finetune.predictions",
    "read_cases": "finetune.readers",
    "read_new": "finetune.readers",
    "write_dataset": "data_shards.writing.writer",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its home on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'medformer' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
