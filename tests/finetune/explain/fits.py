"""Small fitted classifiers with every head, on planes, volumes, bags, several images and slices."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from data_shards.vocabulary import Modality
from finetune.cases import Cases
from finetune.classifier.estimator import FewLabelClassifier, FewLabelModel, FewLabelRegressor
from finetune.images import Study
from tests.finetune.samples import Reader, blobs, plane, solid_blobs, studies_of, tiny_backbone

HEADS: dict[str, dict[str, Any]] = {
    "vote": {},
    "embedding": {"head_options": {"reads": "embedding"}},
    "mean": {"head_options": {"reads": "mean"}},
    "mean_spread": {"head_options": {"reads": "mean_spread"}},
    "tangent": {"head_options": {"reads": "tangent", "channels": 8}},
    "attention": {"head": "attention", "max_steps": 4},
    "spd": {"head": "spd", "head_options": {"channels": 6}, "max_steps": 4},
    "mil": {"head": "mil", "max_steps": 4},
    "mil, max": {"head": "mil", "head_options": {"pooling": "max"}, "max_steps": 4},
}
RAW: dict[str, Any] = {"head_options": {"reads": "raw"}}
STRATEGIES = ("full", "two_stage", "selective", "low_rank")


def fitted(cases: Cases, **params: Any) -> FewLabelModel:
    kind = FewLabelClassifier if cases.target.classifies else FewLabelRegressor
    return kind(tiny_backbone(), calibrate=False, **params).fit(cases)


def bags(count: int = 12) -> Cases:
    """Two or three planes to a case."""
    each = [index for index in range(count) for _ in range(2 + index % 2)]
    planes = blobs(len(each), seed=3)
    labels = np.arange(count)[:, None] % 2
    keys = np.array([f"bag-{index}" for index in range(count)])
    like = replace(blobs(count), labels=labels, keys=keys)
    chosen = studies_of(
        planes[np.array([2 * place + index % 2 for place, index in enumerate(range(len(each)))]) % len(each)]
    )
    return Reader(chosen).cases(like, np.array(each))


def pairs(count: int = 12) -> Cases:
    """Two images to a case, of two sizes; every third case lacks one."""
    first, second = blobs(count), blobs(count, seed=5, side=12)
    studies = []
    for index in range(count):
        images = {"t1": plane(first.images[index], Modality.mri), "t2": plane(second.images[index], Modality.mri)}
        if index % 3 == 2:
            del images["t2"]
        studies.append(Study(images))
    return Reader(studies).cases(first)


SHAPES = {"planes": lambda: blobs(12), "volumes": lambda: solid_blobs(12), "bags": bags, "pairs": pairs}


@cache
def made(head: str, shape: str) -> tuple[FewLabelModel, Cases]:
    """A classifier with a head on cases of a shape; the same one for every test that asks."""
    cases = SHAPES[shape]()
    return fitted(cases, **(RAW if head == "raw" else HEADS[head])), cases
