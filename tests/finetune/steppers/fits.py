"""Small fits by a stepper: of an estimator, and by a document."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from finetune.classifier.estimator import FewLabelClassifier, FewLabelRegressor
from pretrain.bundle import save_bundle
from tests.finetune.samples import TINY, blobs, tiny_backbone

HEADS: dict[str, dict[str, Any]] = {
    "linear": {"dropout": 0.2, "reads": "embedding"},
    "attention": {"dropout": 0.2},
    "mil": {"pooling": "log_sum_exp", "area": 0.1},
    "spd": {"channels": 4},
}


def fitted(stepper: str, cases: Any, strategy: str, head: str, **options: Any) -> FewLabelClassifier:
    """An estimator, fitted in four steps."""
    settings = {"max_steps": 4, "batch_size": 8, "learning_rate": 3e-3, "calibrate": False, **options}
    kind = FewLabelClassifier if cases.target.classifies else FewLabelRegressor
    made = kind(tiny_backbone(), strategy=strategy, head=head, head_options=HEADS[head], stepper=stepper, **settings)
    return made.fit(cases)


def fit_document(folder: Path, keys: str) -> Path:
    """A document for ``finetune`` of 16 labelled images out of 24, ten steps, with further keys."""
    bundle = save_bundle(folder / "bundle", tiny_backbone(), "medformer_nano", TINY, {}, {})
    data = folder / "data"
    data.mkdir()
    lines = ["file,label,split"]
    for index, (pixels, label) in enumerate(zip(blobs(30).images, blobs(30).targets, strict=True)):
        np.save(data / f"{index}.npy", pixels)
        lines.append(f"{index}.npy,{'ab'[label]},{'train' if index < 24 else 'test'}")
    table, document = folder / "table.csv", folder / "fit.yaml"
    table.write_text("\n".join(lines))
    document.write_text(f"model: {bundle}\ndata: {data}\ncsv: {table}\nper_class: 8\nmax_steps: 10\n{keys}")
    return document
