"""What ``medformer shards inspect`` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from data_shards.format.manifest import ImageLayout, Manifest, SplitEntry
from data_shards.inspect.survey import SplitSurvey
from data_shards.intensity import BYTES
from data_shards.sample import MASK
from data_shards.writing.writer import SKIPPED_FILE

# Of more sizes than this only the commonest are listed.
_SIZES = 6


def describe(folder: Path, manifest: Manifest, surveys: Mapping[str, SplitSurvey]) -> str:
    """A few lines on the dataset and a table of its splits."""
    card = manifest.card
    facts = {
        "shows": ", ".join(_words(manifest, kind) for kind in ("organ", "modality", "dimensionality", "task")),
        "licence": card.licence,
        "status": "official archive" if card.official else card.note,
        "source": card.source_version,
        "checksum": ", ".join(f"{kind} {value}" for kind, value in card.source_checksum.items()) or "none",
        "split rule": card.split_rule,
        "intensity": _intensities(manifest),
        "left out": f"{manifest.skipped} items, listed in {SKIPPED_FILE}" if manifest.skipped else "nothing",
        "repeats": _repeats(manifest),
        "digest": manifest.digest[:16],
    }
    lines = [f"{folder}: {card.title}"]
    lines += [f"  {name + ':':<12}{text}" for name, text in facts.items()]
    return "\n".join([*lines, "", *_table(_rows(manifest, surveys))])


def _intensities(manifest: Manifest) -> str:
    """The rule of each image; of several images each with its name."""
    names = sorted({name for entry in manifest.splits.values() for name in entry.images if name != MASK})
    rules = manifest.intensity
    said = {name: rules[name].words if name in rules else _unruled(manifest, name) for name in names}
    return "; ".join(words if len(said) == 1 else f"{name}: {words}" for name, words in said.items())


def _unruled(manifest: Manifest, name: str) -> str:
    dtypes = {entry.images[name].dtype for entry in manifest.splits.values() if name in entry.images}
    return BYTES.words if dtypes == {"|u1"} else "no rule is given, and values are not 8 bits"


def _rows(manifest: Manifest, surveys: Mapping[str, SplitSurvey]) -> list[list[str]]:
    splits = manifest.splits
    rows = [["", *splits]]
    rows.append(["samples", *(str(entry.samples) for entry in splits.values())])
    rows.append(["subjects", *(str(entry.subjects) for entry in splits.values())])
    for value, name in manifest.card.classes.items():
        label = str(value) if name == str(value) else f"{value} {name}"
        rows.append([f"class {label}", *(str(entry.classes.get(value, 0)) for entry in splits.values())])
    found = [surveys[split] for split in splits]
    if any(survey.unlabelled for survey in found) and any(entry.classes for entry in splits.values()):
        rows.append(["without label", *(str(survey.unlabelled) for survey in found)])
    rows += _counted("organ", [survey.organs for survey in found], str)
    rows += _counted("modality", [survey.modalities for survey in found], str)
    for name in manifest.attributes:
        rows.append([name, *(_range(survey.attributes.get(name)) for survey in found)])
    for image in sorted({name for entry in splits.values() for name in entry.images}):
        rows.append([image, *(_pixels(entry.images.get(image)) for entry in splits.values())])
        sizes = [Counter({size: n for (name, size), n in survey.sizes.items() if name == image}) for survey in found]
        if len({size for counts in sizes for size in counts}) > 1:
            rows += _counted(image, sizes, lambda size: size)
        rows.append([f"{image} mean +- std", *(_intensity(entry.images.get(image)) for entry in splits.values())])
    rows.append(["shards", *(str(len(entry.shards)) for entry in splits.values())])
    rows.append(["bytes", *(_size(_bytes(entry)) for entry in splits.values())])
    return rows


def _counted(title: str, counts: list[Counter[str]], name: Callable[[str], str]) -> list[list[str]]:
    """A row for each of the commonest entries; none when there is only one entry, which the head of the page names."""
    total = sum(counts, Counter[str]())
    if len(total) < 2 and title in ("organ", "modality"):
        return []
    listed = [entry for entry, _ in sorted(total.items(), key=lambda item: (-item[1], item[0]))[:_SIZES]]
    rows = [[f"{title} {name(entry)}", *(str(each[entry]) for each in counts)] for entry in listed]
    if len(total) > len(listed):
        others = [sum(each.values()) - sum(each[entry] for entry in listed) for each in counts]
        rows.append([f"{title}, {len(total) - len(listed)} others", *map(str, others)])
    return rows


def _range(bounds: tuple[float, float] | None) -> str:
    return "-" if bounds is None else f"{bounds[0]:.4g} to {bounds[1]:.4g}"


def _table(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    first, *others = widths
    return [
        "  " + row[0].ljust(first) + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], others, strict=True))
        for row in rows
    ]


def _words(manifest: Manifest, kind: str) -> str:
    return "+".join(manifest.vocabulary[kind])


def _repeats(manifest: Manifest) -> str:
    shared = [f"{count} in {pair}" for pair, count in manifest.shared_images.items() if count]
    if shared:
        return f"identical images on both sides of a split: {', '.join(shared)}"
    within = f"{manifest.repeated_images} images repeat an earlier one" if manifest.repeated_images else "none"
    return f"{within}; no image is in two splits"


def _pixels(layout: ImageLayout | None) -> str:
    if layout is None:
        return "-"
    shape = "x".join(map(str, layout.shape)) if layout.shape else "mixed shapes"
    return f"{shape} {layout.dtype.lstrip('|<') if layout.dtype else 'mixed'}"


def _intensity(layout: ImageLayout | None) -> str:
    return "-" if layout is None else f"{layout.mean:.4g} +- {layout.std:.4g}"


def _bytes(entry: SplitEntry) -> int:
    return sum(shard.bytes + shard.index_bytes for shard in entry.shards)


def _size(count: int) -> str:
    amount, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1024 or unit == "TiB":
            break
        amount /= 1024
    return f"{amount:.4g} {unit}"
