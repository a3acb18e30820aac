from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset

from data_shards.sources.images.dicom import find_series, is_dicom, read_series
from data_shards.support.errors import DataError
from tests.data_shards.sources.images.dicom.make import header, packaged, read, save

ROOT = Path(__file__).resolve().parents[5]
NOISE = np.random.default_rng(0).integers(-2000, 2000, (70, 112), dtype=np.int16)

# Files of one image in several encodings. The first of each row is not compressed, or compressed without loss.
TWINS = [
    *(("MR_small.dcm", name, 0) for name in ("MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_expb.dcm")),
    *(("MR_small.dcm", name, 0) for name in ("MR_small_implicit.dcm", "MR_small_padded.dcm")),
    *(("MR_small.dcm", name, 0) for name in ("MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm")),
    ("SC_rgb_small_odd.dcm", "SC_rgb_small_odd_big_endian.dcm", 0),
    ("SC_rgb_rle.dcm", "SC_rgb_jpeg_gdcm.dcm", 0),
    ("SC_rgb_rle.dcm", "SC_rgb_gdcm_KY.dcm", 3),
    ("SC_rgb_jpeg_dcmd.dcm", "SC_rgb_jpeg.dcm", 3),
    *(("SC_rgb_rle.dcm", f"SC_rgb_dcmtk_+eb+{name}.dcm", 3) for name in ("cr", "cy+n1", "cy+n2", "cy+np", "cy+s2")),
    *(("SC_rgb_rle.dcm", f"SC_rgb_{name}.dcm", 3) for name in ("dcmtk_+eb+cy+s4", "jpeg_dcmtk", "jpeg_lossy_gdcm")),
    ("SC_rgb_rle.dcm", "SC_ybr_full_422_uncompressed.dcm", 3),
]


@pytest.mark.parametrize("plain, other, most", TWINS, ids=[other for _, other, _ in TWINS])
def test_every_encoding_of_a_packaged_image_gives_the_same_pixels(plain: str, other: str, most: int) -> None:
    expected, found = read(packaged(plain)), read(packaged(other))
    difference = np.abs(found.pixels.astype(int) - expected.pixels)
    # Chroma of neighbours is shared in some: at the edges of the bars of these charts more may differ.
    assert found.pixels.shape == expected.pixels.shape and np.quantile(difference, 0.9) <= most
    assert most or (difference.max() == 0 and found.spacing_mm == expected.spacing_mm)


@pytest.mark.parametrize(
    "name",
    [
        *("693_J2KI.dcm", "CT_small.dcm", "ExplVR_BigEnd.dcm", "GDCMJ2K_TextGBR.dcm", "J2K_pixelrep_mismatch.dcm"),
        *("JPEG2000.dcm", "JPEGLSNearLossless_08.dcm", "JPEGLSNearLossless_16.dcm", "JPGExtended.dcm"),
        *("SC_jpeg_no_color_transform.dcm", "SC_jpeg_no_color_transform_2.dcm", "SC_rgb_jls_lossy_line.dcm"),
        *("SC_rgb_jls_lossy_sample.dcm", "SC_rgb_jpeg_app14_dcmd.dcm", "SC_rgb_rle_16bit.dcm", "SC_rgb_rle_32bit.dcm"),
        *("SC_rgb_rle_16bit_2frame.dcm", "SC_rgb_rle_2frame.dcm", "SC_rgb_rle_32bit_2frame.dcm"),
        *("SC_rgb_small_odd_jpeg.dcm", "examples_jpeg2k.dcm", "examples_overlay.dcm", "examples_rgb_color.dcm"),
        *("examples_ybr_color.dcm", "image_dfl.dcm"),
    ],
)
def test_packaged_images_are_what_pydicom_decodes(name: str) -> None:
    dataset = pydicom.dcmread(packaged(name))
    stored = dataset.pixel_array
    if "PixelPaddingValue" in dataset:  # takes the smallest value that is none
        stored = np.where(
            stored == dataset.PixelPaddingValue, stored[stored != dataset.PixelPaddingValue].min(), stored
        )
    expected = stored * float(dataset.get("RescaleSlope", 1)) + float(dataset.get("RescaleIntercept", 0))
    expected = np.moveaxis(expected, -1, 0) if dataset.SamplesPerPixel == 3 else expected[None]
    series, unused = find_series([packaged(name)])
    assert not unused and len(series) == int(dataset.get("NumberOfFrames", 1))
    found = np.stack([read_series(each).pixels for each in series], axis=1)
    assert np.array_equal(found, expected.astype(np.float32).reshape(found.shape))


@pytest.mark.parametrize(
    "name, message",
    [
        ("MR_truncated.dcm", "8130 bytes of pixels, expected 8192: the file was cut off"),
        ("JPEG-lossy.dcm", "cannot be decoded"),
        ("JPEG2000-embedded-sequence-delimiter.dcm", "does not start as its transfer syntax says"),
    ],
)
def test_packaged_damaged_images_are_refused(name: str, message: str) -> None:
    (series,), _ = find_series([packaged(name)])
    with pytest.raises(DataError, match=message):
        read_series(series)


@pytest.mark.parametrize(
    "syntax",
    [
        *(uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian),
        *(uid.RLELossless, uid.JPEG2000Lossless),
    ],
    ids=lambda syntax: syntax.keyword,
)
@pytest.mark.parametrize("kind", ["signed", "colour", "frames"])
def test_what_pydicom_encodes_is_read_back(syntax: uid.UID, kind: str, tmp_path: Path) -> None:
    colour = NOISE.view(np.uint8)[:, :222].reshape(70, 74, 3)
    pixels = {"signed": NOISE, "colour": colour, "frames": np.stack([NOISE, NOISE[::-1], -NOISE])}[kind]
    dataset = header(np.ascontiguousarray(pixels))
    if syntax.is_encapsulated:
        save(dataset, tmp_path / "plain")
        dataset = pydicom.dcmread(tmp_path / "plain")
        if kind == "colour" and syntax == uid.JPEG2000Lossless:
            dataset.PhotometricInterpretation = "YBR_RCT"
            dataset.compress(syntax, np.ascontiguousarray(pixels), generate_instance_uid=False)
        else:
            dataset.compress(syntax, generate_instance_uid=False)
    found = read(save(dataset, tmp_path / "a", syntax)).pixels
    assert np.array_equal(found, np.moveaxis(pixels, -1, 0) if kind == "colour" else pixels[None])


def test_big_endian_is_read_and_the_pixels_are_in_the_order_of_the_machine(tmp_path: Path) -> None:
    dataset = header(NOISE)
    dataset.PixelData = NOISE.astype(">i2").tobytes()
    image = read(save(dataset, tmp_path / "a", uid.ExplicitVRBigEndian))
    assert np.array_equal(image.pixels[0], NOISE) and image.pixels.dtype.isnative


def test_files_without_preamble_are_recognised_and_read(tmp_path: Path) -> None:
    for number, syntax in enumerate((uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)):
        dataset = header(NOISE)
        if number == 2:
            dataset.PixelData = NOISE.astype(">i2").tobytes()
        path = tmp_path / str(number)
        pydicom.dcmwrite(path, dataset, implicit_vr=number == 0, little_endian=number < 2)
        assert path.read_bytes()[128:132] != b"DICM" and is_dicom(path), syntax.name
        assert np.array_equal(read(path).pixels[0], NOISE)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\0" * 4096, b"DICM", b"\x89PNG\r\n\x1a\n" + bytes(200), b"\xff\xd8\xff\xe0" + bytes(300)),
        b"".join(b"\x10\0" + bytes([number, 0]) + b"LO\4\0abcd" for number in range(9)),
        *(
            b"\x08\0\0\0" * 1000,
            b"\x08\0\x05\0CS\x0a\0" + b"ISO_IR 100",
            bytes(range(256)) * 8,
            b"key,label\na,1\n" * 99,
        ),
    ],
)
def test_other_content_is_not_taken_for_dicom(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(content)
    assert not is_dicom(tmp_path / "a.dcm")


def test_packaged_files_are_recognised() -> None:
    folder = packaged("CT_small.dcm").parent
    not_dicom = {"README.txt", "crayons.icc", "rtplan.dump", "rtstruct.dump", "test1.json", "test_PN.json", "zipMR.gz"}
    not_dicom |= {"no_meta.dcm"}  # its first tag is damaged
    files = [path for path in folder.iterdir() if path.is_file()]
    assert {path.name for path in files if not is_dicom(path)} == not_dicom and len(files) > 70


def deflated(dataset: Dataset, path: Path, zeros: int) -> Path:
    """A deflated file with so many zeros behind its data set."""
    save(dataset, path, uid.DeflatedExplicitVRLittleEndian)
    content = path.read_bytes()
    start = 132 + 12 + int.from_bytes(content[140:144], "little")
    plain = zlib.decompress(content[start:], -zlib.MAX_WBITS)
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    pieces = [deflater.compress(plain)] + [deflater.compress(bytes(1 << 20)) for _ in range(zeros >> 20)]
    path.write_bytes(content[:start] + b"".join(pieces) + deflater.flush())
    return path


def test_a_deflated_bomb_is_refused(tmp_path: Path) -> None:
    path = deflated(header(NOISE), tmp_path / "a", 96 << 20)
    assert path.stat().st_size < 1 << 20
    (series,), _ = find_series([path])
    with pytest.raises(DataError, match="holds more than its header describes"):
        read_series(series)


def test_a_length_beyond_the_end_of_the_file_reserves_no_memory(tmp_path: Path) -> None:
    path = save(header(NOISE), tmp_path / "a")
    content = path.read_bytes()
    place = content.index(b"\xe0\x7f\x10\x00OW\0\0") + 8
    path.write_bytes(content[:place] + b"\xf0\xff\xff\xff" + content[place + 4 :])
    (series,), _ = find_series([path])
    tracemalloc.start()
    try:
        with contextlib.suppress(DataError):
            read_series(series)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


def test_a_codestream_larger_than_its_header_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    for name, marker, offset in (("JPEG2000.dcm", b"\xff\x4f\xff\x51", 8), ("JPGExtended.dcm", b"\xff\xc1", 5)):
        content = bytearray(packaged(name).read_bytes())
        place = content.index(marker) + offset
        content[place : place + 2] = b"\x7f\xff"
        (tmp_path / name).write_bytes(content)
        (series,), _ = find_series([tmp_path / name])
        with pytest.raises(DataError, match="a compressed frame is|does not start"):
            read_series(series)


WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("pylibjpeg", "libjpeg", "openjpeg", "rle", "gdcm", "jpeg_ls"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
from pathlib import Path
from data_shards.sources.images.dicom import find_series, read_series
from data_shards.support.errors import DataError
for name in sys.argv[1:]:
    (series,), _ = find_series([Path(name)])
    try:
        print("read", read_series(series).pixels.shape)
    except DataError as error:
        print(error)
"""


def test_without_the_extra_decoders_the_message_says_what_to_install() -> None:
    names = ("MR_small_jpeg_ls_lossless.dcm", "SC_rgb_jpeg_gdcm.dcm", "JPGExtended.dcm", "MR_small_RLE.dcm")
    command = [sys.executable, "-c", WITHOUT, *(str(packaged(name)) for name in names)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ, timeout=120)
    assert result.returncode == 0 and not result.stderr, result.stderr
    lines = result.stdout.splitlines()
    for line in lines[:2]:
        assert line.startswith("no decoder of JPEG") and line.endswith("is installed: pip install medformer[dicom]")
    assert "cannot be decoded" in lines[2] and lines[2].endswith("pip install medformer[dicom]")
    assert lines[3] == "read (1, 64, 64)"


def test_video_and_private_syntaxes_are_refused_without_quoting_them(tmp_path: Path) -> None:
    for syntax, message in ((uid.MPEG2MPML, "MPEG2"), ("1.2.3.4.5678", "private")):
        path = save(header(NOISE), tmp_path / "a", uid.ExplicitVRLittleEndian)
        content = path.read_bytes()
        old = b"UI" + len(uid.ExplicitVRLittleEndian + " ").to_bytes(2, "little") + uid.ExplicitVRLittleEndian.encode()
        assert old in content
        text = str(syntax).encode() + b"\0" * (len(str(syntax)) % 2)
        content = content.replace(old + b"\0", b"UI" + len(text).to_bytes(2, "little") + text)
        path.write_bytes(content)
        series, _ = find_series([path])
        with pytest.raises(DataError, match=message) as caught:
            read_series(series[0])
        assert "5678" not in str(caught.value)
