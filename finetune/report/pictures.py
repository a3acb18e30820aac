"""Images of cases inside a page: a plane as it is, a volume as a strip of slices to scroll."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import PIL.Image

from finetune.images import Study
from finetune.report.markup import Markup, element

MOST_SIDE = 96
EXACT_SIDE = 32
"""Images up to this side keep every pixel; in larger ones nobody sees the difference."""

MOST_SLICES = 32
MOST_BYTES = 11 << 20
"""Of images and maps of a page, before they are written in base64; with the rest it stays under 20 MB."""
_TAILS = (0.5, 99.5)


@dataclass(frozen=True)
class Picture:
    """An image of a case.

    Attributes:
        content: WebP or PNG; of a volume its slices under each other.
        kind: ``webp`` or ``png``.
        width: of a slice, in pixels.
        height: likewise.
        slices: how many.
        told: what it is, in words.
    """

    content: bytes
    kind: str
    width: int
    height: int
    slices: int
    told: str


def picture_of(study: Study, told: str) -> Picture:
    """The first image of a study, made smaller where it is larger than a page has use for.

    A volume is shown in at most :data:`MOST_SLICES` slices across its first axis. Values that are not 8 bits lie
    between the percentiles 0.5 and 99.5 of the image.

    Args:
        study: what was shown to the network.
        told: what it is, in words.
    """
    name, image = study.sorted_images[0]
    pixels = _bytes(image.pixels)
    volume = pixels if pixels.ndim == 4 else pixels[:, None]
    count = volume.shape[1]
    places = np.unique(np.linspace(0, count - 1, min(count, MOST_SLICES)).round().astype(int))
    tiles = [_tile(volume[:, place]) for place in places]
    height, width = tiles[0].shape[:2]
    content = io.BytesIO()
    PIL.Image.fromarray(np.concatenate(tiles)).save(
        content, "WEBP", quality=85, lossless=max(height, width) <= EXACT_SIDE
    )
    more = f"{told}, {name}" * (len(study.images) > 1) or told
    return Picture(content.getvalue(), "webp", width, height, len(tiles), more)


def picture_from(content: bytes, told: str) -> Picture:
    """A PNG as it is, such as that of a map."""
    with PIL.Image.open(io.BytesIO(content)) as opened:
        width, height = opened.size
    return Picture(content, "png", width, height, 1, told)


def frame(picture: Picture, *, later: bool = False) -> Markup:
    """The picture in a window of one slice; of a volume the one in the middle, which the script of the page moves.

    Args:
        picture: what is shown.
        later: the script of the page draws it when it comes near the screen: hundreds at once would take seconds.
    """
    source = f"data:image/{picture.kind};base64,{base64.b64encode(picture.content).decode()}"
    middle = picture.slices // 2
    moved = f"transform:translateY(-{100 * middle / picture.slices:.4f}%)" if picture.slices > 1 else None
    where = {"data_src" if later else "src": source}
    image = element("img", **where, alt=picture.told, style=moved, decoding="async")
    return element(
        "span", image, class_="frame", style=f"aspect-ratio:{picture.width}/{picture.height}",
        data_slices=str(picture.slices),
    )  # fmt: skip


def scroller(picture: Picture) -> Markup:
    """The picture with a slider below it where there are slices to scroll."""
    if picture.slices == 1:
        return frame(picture)
    slider = element(
        "input", type="range", min="0", max=str(picture.slices - 1), value=str(picture.slices // 2), class_="slice",
        aria_label=f"slice of {picture.told}",
    )  # fmt: skip
    return element("span", frame(picture), slider, class_="scroller")


def within(pictures: Iterable[tuple[str, Picture]], room: int = MOST_BYTES) -> dict[str, Picture]:
    """The first of the pictures, by key, for which there is room in a page."""
    kept: dict[str, Picture] = {}
    for key, picture in pictures:
        room -= len(picture.content)
        if room < 0:
            break
        kept[key] = picture
    return kept


def _bytes(pixels: np.ndarray) -> np.ndarray:
    """Channels of grey or colour as 8 bits: three, or the first."""
    channels = pixels if len(pixels) == 3 else pixels[:1]
    if channels.dtype == np.uint8:
        return channels
    low, high = np.percentile(channels, _TAILS)
    scaled = np.clip((channels.astype(np.float64) - low) / max(high - low, 1e-12), 0, 1)
    found: np.ndarray = np.rint(255 * scaled).astype(np.uint8)
    return found


def _tile(plane_CHW: np.ndarray) -> np.ndarray:
    tile = np.moveaxis(plane_CHW, 0, -1) if len(plane_CHW) == 3 else plane_CHW[0]
    longest = max(tile.shape[:2])
    if longest <= MOST_SIDE:
        return np.ascontiguousarray(tile)
    size = [max(1, round(length * MOST_SIDE / longest)) for length in reversed(tile.shape[:2])]
    return np.asarray(PIL.Image.fromarray(np.ascontiguousarray(tile)).resize((size[0], size[1])))
