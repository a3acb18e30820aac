"""What a labelled dataset holds, in a few lines: classes, how many images each has in each split, and warnings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from data_shards.vocabulary import Task
from finetune.labelled import LabelledImages


def describe(splits: Mapping[str, LabelledImages]) -> Iterator[str]:
    """Lines for whoever is about to use the data."""
    first = next(iter(splits.values()))
    for warning in dict.fromkeys(warning for part in splits.values() for warning in part.warnings):
        yield f"{first.name}: warning: {warning}"
    names = {index: f"class {index} {name}" for index, name in sorted(first.classes.items())}
    width = max(map(len, names.values()))
    for index, name in names.items():
        counts = ", ".join(f"{_count(part, index)} {split}" for split, part in splits.items())
        yield f"{first.name}: {name:<{width}}  {counts}"


def _count(part: LabelledImages, index: int) -> int:
    positive = part.labels[:, index] == 1 if part.task is Task.multilabel else part.labels[:, 0] == index
    return int(positive.sum())
