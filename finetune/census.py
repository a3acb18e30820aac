"""What a labelled dataset holds, in a few lines: how many cases each class has in each split, and warnings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from finetune.cases import Cases


def describe(splits: Mapping[str, Cases]) -> Iterator[str]:
    """Lines for whoever is about to use the data: one per class or label, or per number with its range."""
    yield from warnings_of(splits)
    first = next(iter(splits.values()))
    unlabelled = {split: len(part) for split, part in splits.items() if part.labels is None}
    labelled = {split: part for split, part in splits.items() if part.labels is not None}
    if labelled:
        target = next(iter(labelled.values())).target
        kind = "class {} " if target.classifies else "number {} "
        names = [kind.format(index) + name for index, name in enumerate(target.classes)]
        width = max(map(len, names))
        for index, name in enumerate(names):
            told = ", ".join(_told(part, index, split) for split, part in labelled.items())
            yield f"{first.name}: {name:<{width}}  {told}"
    for split, count in unlabelled.items():
        yield f"{first.name}: {count} {split} without a label"


def warnings_of(splits: Mapping[str, Cases]) -> Iterator[str]:
    """Lines on how the images were read, such as that some were left out; each once."""
    first = next(iter(splits.values()))
    for warning in dict.fromkeys(warning for part in splits.values() for warning in part.warnings):
        yield f"{first.name}: warning: {warning}"


def _told(part: Cases, index: int, split: str) -> str:
    if part.target.classifies:
        return f"{part.target.carried(part.known_labels)[:, index].sum()} {split}"
    number_N = part.known_labels[:, index]
    return f"{len(number_N)} {split} from {number_N.min():g} to {number_N.max():g}, {number_N.mean():g} in the mean"
