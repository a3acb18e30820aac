"""A folder of synthetic pictures with a table, so that the examples have something to run on."""

from __future__ import annotations

from pathlib import Path

import PIL.Image

from data_shards.sources.phantoms import Phantoms


def write_pictures(folder: Path, subjects: int = 40, *, name: str = "phantom-knee-mri-2d", seed: int = 0) -> Path:
    """Write a PNG for each subject, and ``labels.csv`` with the columns file, label and subject.

    Args:
        folder: is made.
        subjects: how many pictures.
        name: of a set of phantoms.
        seed: another seed is another population.

    Returns:
        The table.
    """
    folder.mkdir(parents=True, exist_ok=True)
    phantoms = Phantoms(name, seed=seed, size=32, subjects=subjects, images_per_subject=1, difficulty=0.0)
    lines = ["file,label,subject"]
    for number, sample in enumerate(phantoms):
        assert sample.label is not None
        PIL.Image.fromarray(sample.image.pixels[0]).save(folder / f"{number:03d}.png")
        lines.append(f"{number:03d}.png,{'lesion' if sample.label[0] else 'healthy'},{sample.subject}")
    table = folder / "labels.csv"
    table.write_text("\n".join(lines) + "\n")
    return table
