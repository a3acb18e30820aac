"""A picture of what is in a folder of shards: some images of every class, with their sizes."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from data_shards.format.manifest import Manifest, read_manifest
from data_shards.inspect.shown import shown, titles
from data_shards.reading.reader import ShardedDataset
from data_shards.support.files import write_atomic

# Pixels of the sheet.
_CELL, _GAP, _TEXT, _MARGIN = 96, 6, 18, 12
COLUMNS = 10
"""Images of a line."""
_COLUMNS_OF_TEXT = 150
_ROWS_OF_A_DATASET = 12
# So many samples from the beginning of a split are looked at for the classes.
_LOOKED_AT = 1 << 16
_PAPER, _INK, _MUTED = (255, 255, 255), (20, 24, 28), (96, 104, 112)

Line = tuple[str, list[np.ndarray]]
"""A name, and up to :data:`COLUMNS` images ``C,H,W`` or ``C,D,H,W``."""
Block = tuple[str, Sequence[str], Sequence[Line]]
"""A title, words that stand below it, and the lines."""


def contact_sheet(folders: Sequence[Path], path: Path) -> None:
    """Draw a PNG with a block for every dataset and a row for every class.

    A volume is shown by its middle plane along the first axis. Images are shown by the rule that the manifest gives
    them, in a row for each window; without a rule those of eight bits are shown as they are, others between their 1st
    and 99th percentile.

    Args:
        folders: folders of shards.
        path: the PNG file to write.

    Raises:
        DataError: a dataset is damaged.
        MedformerError: the file cannot be written.
    """
    draw_sheet([(_heading(read_manifest(folder)), (), list(_rows(folder))) for folder in folders], path)


def draw_sheet(blocks: Sequence[Block], path: Path) -> None:
    """Draw a PNG with a row for every line of every block.

    Raises:
        MedformerError: the file cannot be written.
    """
    blocks = [
        (title, [part for each in words for part in textwrap.wrap(each, _COLUMNS_OF_TEXT)], lines)
        for title, words, lines in blocks
    ]
    height = sum(
        2 * _TEXT + len(words) * _TEXT + len(rows) * (_CELL + _TEXT + _GAP) + _MARGIN for _, words, rows in blocks
    )
    height, width = height + _MARGIN, 2 * _MARGIN + COLUMNS * (_CELL + _GAP)
    sheet = PIL.Image.new("RGB", (width, height), _PAPER)
    draw = PIL.ImageDraw.Draw(sheet)
    heading, small = PIL.ImageFont.load_default(15), PIL.ImageFont.load_default(12)
    top = _MARGIN
    for title, words, rows in blocks:
        draw.text((_MARGIN, top), _printable(title), _INK, heading)
        top += 2 * _TEXT - 6
        for each in words:
            draw.text((_MARGIN, top), _printable(each), _MUTED, small)
            top += _TEXT
        for name, images in rows:
            draw.text((_MARGIN, top), _printable(name), _MUTED, small)
            for column, image in enumerate(images):
                cell = _picture(image)
                left = _MARGIN + column * (_CELL + _GAP) + (_CELL - cell.width) // 2
                sheet.paste(cell, (left, top + _TEXT + (_CELL - cell.height) // 2))
            top += _CELL + _TEXT + _GAP
        top += _MARGIN + 6
    content = io.BytesIO()
    sheet.save(content, "PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, content.getvalue())


def _heading(manifest: Manifest) -> str:
    counts = ", ".join(f"{entry.samples} {split}" for split, entry in manifest.splits.items())
    return f"{manifest.card.title}: {counts}"


def _rows(folder: Path) -> Iterator[Line]:
    """For every image name of the first split: a row for each class, or one row when nothing is labelled."""
    manifest = read_manifest(folder)
    split, entry = next(iter(manifest.splits.items()))
    left = _ROWS_OF_A_DATASET
    for image in sorted(entry.images):
        dataset = ShardedDataset(folder, split, image=image)
        for name, positions in _classes(dataset, manifest):
            if left <= 0:
                return
            images = dataset.read(positions[:COLUMNS]).images
            shape = "x".join(map(str, images[0].shape))
            pictures = [shown(pixels, dataset.intensity) for pixels in images]
            for number, words in enumerate(titles(dataset.intensity)):
                left -= 1
                yield f"{split}, {image}{name}, {shape} {images[0].dtype}{words}", [each[number] for each in pictures]


def _classes(dataset: ShardedDataset, manifest: Manifest) -> Iterator[tuple[str, np.ndarray]]:
    everything = np.arange(min(len(dataset), _LOOKED_AT))
    label_BL = dataset.describe(everything).label_BL
    if not manifest.card.classes or not label_BL.shape[1]:
        yield "", _spread(everything)
        return
    multilabel = manifest.card.task == "multilabel"
    for value, name in manifest.card.classes.items():
        own = everything[label_BL[:, value] > 0] if multilabel else everything[label_BL[:, 0] == value]
        if own.size:
            yield f", {value} {name}" if name != str(value) else f", class {value}", _spread(own)


def _spread(positions: np.ndarray) -> np.ndarray:
    """A few positions, evenly taken."""
    return positions[np.unique(np.linspace(0, len(positions) - 1, COLUMNS).astype(np.int64))]


def _picture(image: np.ndarray) -> PIL.Image.Image:
    """An image as a picture that fits into a cell."""
    plane_CHW = image if image.ndim == 3 else image[:, image.shape[1] // 2]
    plane_CHW = plane_CHW[:3] if len(plane_CHW) >= 3 else plane_CHW[:1]
    if plane_CHW.dtype != np.uint8 or plane_CHW.max() < 16:
        low, high = np.percentile(plane_CHW.astype(np.float64), (1, 99))
        high = high if high > low else max(low + 1, float(plane_CHW.max()))
        plane_CHW = (np.clip((plane_CHW - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    picture = PIL.Image.fromarray(plane_CHW[0] if len(plane_CHW) == 1 else plane_CHW.transpose(1, 2, 0))
    scale = _CELL / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.convert("RGB").resize(size, PIL.Image.Resampling.NEAREST if scale > 1 else PIL.Image.Resampling.BOX)


def _printable(text: str) -> str:
    """The built-in font has Latin letters only."""
    return text.encode("latin-1", "replace").decode("latin-1")
