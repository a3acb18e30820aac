"""Damaged and hostile pictures are refused in one line, before they take memory."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile

from data_shards.sources.images.picture import picture_frames, read_picture
from data_shards.support import limits
from data_shards.support.errors import DataError
from tests.data_shards.sources.images.make import chunk, grey_png, png

RAMP = np.add.outer(np.arange(40), np.arange(50)).astype(np.uint8)


def encoded(form: str) -> bytes:
    stream = io.BytesIO()
    PIL.Image.fromarray(RAMP).save(stream, form)
    return stream.getvalue()


def refused(path: Path, content: bytes, message: str | None = None) -> None:
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_picture(path)
    assert "\n" not in str(caught.value) and str(path) not in str(caught.value)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_a_picture_that_is_cut_short_is_refused(tmp_path: Path, form: str, share: float):
    content = encoded(form)
    refused(tmp_path / "p", content[: int(len(content) * share)], "cannot be decoded")


def test_a_png_without_its_last_chunk_is_refused(tmp_path: Path):
    refused(tmp_path / "p.png", encoded("PNG")[:-12], "cannot be decoded")


@pytest.mark.parametrize("kind", [b"IHDR", b"tEXt", b"IDAT"])
def test_a_png_whose_checksum_differs_is_refused(tmp_path: Path, kind: bytes):
    content = bytearray(png(2, 2, b"\0\1\2" * 2, extra=[chunk(b"tEXt", b"Comment\0words")]))
    place = content.index(kind)
    length = struct.unpack(">I", content[place - 4 : place])[0]
    content[place + 4 + length] ^= 1  # the checksum follows the content
    refused(tmp_path / "p.png", bytes(content), "cannot be decoded")


def test_one_flipped_bit_in_the_pixels_of_a_png_is_found(tmp_path: Path):
    whole = encoded("PNG")
    place = whole.index(b"IDAT") + 4
    for offset in range(0, 40, 7):
        content = bytearray(whole)
        content[place + offset] ^= 4
        refused(tmp_path / "p.png", bytes(content), "cannot be decoded")


@pytest.mark.parametrize("width, height", [(2**31 - 1, 2**31 - 1), (100_000, 100_000), (20_000, 20_000)])
def test_a_small_png_that_claims_to_be_giant_is_refused(tmp_path: Path, width: int, height: int):
    refused(tmp_path / "p.png", png(width, height, b"\0" * 64), "DecompressionBomb")


def test_a_small_tiff_that_claims_to_be_giant_is_refused(tmp_path: Path):
    content = encoded("TIFF")
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        places = [file.pages[0].tags[name].valueoffset for name in ("ImageWidth", "ImageLength")]
        kinds = [file.pages[0].tags[name].dtype for name in ("ImageWidth", "ImageLength")]
    changed = bytearray(content)
    for place, kind in zip(places, kinds, strict=True):
        size = 2 if kind == 3 else 4
        changed[place : place + size] = (60_000).to_bytes(size, "little")
    refused(tmp_path / "p.tif", bytes(changed), "DecompressionBomb")


def test_many_pages_count_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tifffile.imwrite(tmp_path / "p.tif", np.zeros((5, 8, 8), np.uint8), photometric="minisblack")
    monkeypatch.setattr(limits, "MAX_BYTES", 5 * 64)
    assert read_picture(tmp_path / "p.tif").pixels.shape == (1, 5, 8, 8)
    monkeypatch.setattr(limits, "MAX_BYTES", 5 * 64 - 1)
    with pytest.raises(DataError, match="would take 320 bytes"):
        read_picture(tmp_path / "p.tif")


def test_a_png_of_no_width_is_refused(tmp_path: Path):
    refused(tmp_path / "p.png", png(0, 5, b"\0" * 5))


@pytest.mark.parametrize("colour, channels", [(4, 2), (2, 3), (6, 4)])  # grey with alpha, RGB, RGB with alpha
def test_colour_of_16_bits_is_refused_and_not_cut_to_8(tmp_path: Path, colour: int, channels: int):
    raw = b"".join(b"\0" + bytes(range(2 * 2 * channels)) for _ in range(2))
    refused(tmp_path / "p.png", png(2, 2, raw, depth=16, colour=colour), "channels of 16 bits")


def test_colour_tiff_of_16_bits_is_refused(tmp_path: Path):
    stream = io.BytesIO()
    tifffile.imwrite(stream, np.zeros((4, 4, 3), np.uint16), photometric="rgb")
    refused(tmp_path / "p.tif", stream.getvalue(), "16 bits|cannot be decoded")


@pytest.mark.parametrize("form", ["PNG", "GIF", "WEBP"])
def test_an_animation_is_refused_unless_the_user_says_which_frame(tmp_path: Path, form: str):
    frames = [PIL.Image.fromarray(RAMP), PIL.Image.fromarray(255 - RAMP)]
    lossless = {"lossless": True} if form == "WEBP" else {}
    frames[0].save(tmp_path / "p", form, save_all=True, append_images=frames[1:], **lossless)
    with pytest.raises(DataError, match="2 frames; frames: first or frames: all"):
        read_picture(tmp_path / "p")
    assert picture_frames(tmp_path / "p", "depth") == 2
    for number, shown in enumerate((RAMP, 255 - RAMP)):
        pixels = read_picture(tmp_path / "p", frame=number, frames="all").pixels
        assert pixels.ndim == 3 and (pixels == shown).all()


def test_a_text_chunk_that_inflates_without_end_is_refused(tmp_path: Path):
    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(200 << 20), 9))
    refused(tmp_path / "p.png", png(2, 2, b"\0\1\2" * 2, extra=[bomb]), "cannot be decoded")


@pytest.mark.parametrize("form", ["PPM", "PCX", "TGA"])
def test_other_formats_are_refused_even_under_the_name_of_a_png(tmp_path: Path, form: str):
    refused(tmp_path / "p.png", encoded(form), "cannot be decoded")


@pytest.mark.parametrize(
    "content", [b"", b"\x89PNG\r\n\x1a\n", b"II*\0", b"\xff\xd8\xff", b"%!PS-Adobe-3.0 EPSF-3.0\n"]
)
def test_only_the_start_of_a_picture_is_refused(tmp_path: Path, content: bytes):
    refused(tmp_path / "p.png", content)


def test_a_tiff_whose_pages_run_in_a_circle_ends(tmp_path: Path):
    content = bytearray(encoded("TIFF"))
    first = struct.unpack("<I", content[4:8])[0]
    count = struct.unpack("<H", content[first : first + 2])[0]
    content[first + 2 + 12 * count : first + 6 + 12 * count] = struct.pack("<I", first)
    (tmp_path / "p.tif").write_bytes(content)
    np.testing.assert_array_equal(read_picture(tmp_path / "p.tif").pixels[0], RAMP)


def test_folders_pipes_and_missing_files_are_refused_without_waiting(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    for name, message in (("", "not a regular file|cannot be opened"), ("pipe", "regular"), ("none", "No such file")):
        with pytest.raises(DataError, match=message):
            read_picture(tmp_path / name)


def test_a_picture_made_by_the_helpers_is_one(tmp_path: Path):
    assert read_picture(grey_png(tmp_path / "p.png", 7)).pixels[0, 0, 0] == 7
