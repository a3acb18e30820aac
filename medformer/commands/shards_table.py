"""What ``medformer shards inspect`` prints."""

from __future__ import annotations

from pathlib import Path

from data_shards.manifest import ImageLayout, Manifest, SplitEntry


def describe(folder: Path, manifest: Manifest) -> str:
    """A few lines on the dataset and a table of its splits."""
    card = manifest.card
    facts = {
        "shows": ", ".join(_words(manifest, kind) for kind in ("organ", "modality", "dimensionality", "task")),
        "licence": card.licence,
        "status": "official archive" if card.official else card.note,
        "source": card.source_version,
        "checksum": ", ".join(f"{kind} {value}" for kind, value in card.source_checksum.items()) or "none",
        "split rule": card.split_rule,
        "repeats": _repeats(manifest),
        "digest": manifest.digest[:16],
    }
    lines = [f"{folder}: {card.title}"]
    lines += [f"  {name + ':':<12}{text}" for name, text in facts.items()]
    return "\n".join([*lines, "", *_table(_rows(manifest))])


def _rows(manifest: Manifest) -> list[list[str]]:
    splits = manifest.splits
    rows = [["", *splits]]
    rows.append(["samples", *(str(entry.samples) for entry in splits.values())])
    rows.append(["subjects", *(str(entry.subjects) for entry in splits.values())])
    for value, name in manifest.card.classes.items():
        label = str(value) if name == str(value) else f"{value} {name}"
        rows.append([f"class {label}", *(str(entry.classes.get(value, 0)) for entry in splits.values())])
    for image in sorted({name for entry in splits.values() for name in entry.images}):
        rows.append([image, *(_pixels(entry.images.get(image)) for entry in splits.values())])
        rows.append([f"{image} mean +- std", *(_intensity(entry.images.get(image)) for entry in splits.values())])
    rows.append(["shards", *(str(len(entry.shards)) for entry in splits.values())])
    rows.append(["bytes", *(_size(_bytes(entry)) for entry in splits.values())])
    return rows


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
    return f"identical images on both sides of a split: {', '.join(shared)}" if shared else "no image is in two splits"


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
