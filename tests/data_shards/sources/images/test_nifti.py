"""What the voxels of a NIfTI file become: scaling, frames, dtypes, colours; and what is refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest

from data_shards.sources.images.nifti import frame_count, read_nifti
from data_shards.sources.images.nifti_header import is_nifti
from data_shards.support.errors import DataError
from data_shards.vocabulary import Modality
from tests.data_shards.sources.images.make import nifti, patched, reference, stored_as


def written(path: Path, volume: np.ndarray, **fields: object) -> Path:
    data, affine = stored_as(volume, "RAS")
    return nifti(path, data, affine, **fields)


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "f4"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_without_scaling_the_dtype_of_the_file_stays(tmp_path: Path, dtype: str, order: str):
    data, affine = stored_as(reference(dtype), "RAS")
    header = nibabel.Nifti1Header(endianness=order)
    header.set_data_dtype(dtype)
    nibabel.save(nibabel.Nifti1Image(data, affine, header), tmp_path / "v.nii")
    assert (tmp_path / "v.nii").read_bytes()[0] == (0 if order == ">" else 0x5C)
    pixels = read_nifti(tmp_path / "v.nii").pixels
    np.testing.assert_array_equal(pixels[0], reference())
    assert pixels.dtype == np.dtype(dtype) and pixels.flags.c_contiguous


@pytest.mark.parametrize("dtype, expected", [("i8", np.int32), ("u8", np.uint32), ("f8", np.float32)])
def test_wide_values_become_those_of_32_bits(tmp_path: Path, dtype: str, expected: type):
    pixels = read_nifti(written(tmp_path / "v.nii", reference(dtype))).pixels
    np.testing.assert_array_equal(pixels[0], reference())
    assert pixels.dtype == expected


def test_an_integer_of_64_bits_that_does_not_fit_is_refused(tmp_path: Path):
    volume = reference("i8")
    volume[0, 0, 0] = 2**40
    with pytest.raises(DataError, match="do not fit in 32"):
        read_nifti(written(tmp_path / "v.nii", volume))


@pytest.mark.parametrize(
    "dtype, slope, inter, expected",
    [
        ("u1", 1, -1024, "i2"),
        ("i2", 2, 0, "i2"),
        ("i2", -1, 3, "i2"),
        ("i2", 546, 7, "i2"),  # 60 * 546 + 7 = 32767, the last that fits
        ("i2", 546, 8, "f4"),
        ("i2", -546, -8, "i2"),  # -32768
        ("i2", -546, -9, "f4"),
        ("u2", 0.5, 0, "f4"),
        ("i2", 1, 0.25, "f4"),
        ("f4", 2, 1, "f4"),
        ("i2", 1, 0, "i2"),
        ("u2", 1, 0, "u2"),
    ],
)
def test_slope_and_intercept_are_applied_and_whole_numbers_stay_integers(
    tmp_path: Path, dtype: str, slope: float, inter: float, expected: str
):
    path = written(tmp_path / "v.nii", reference(dtype), scl_slope=slope, scl_inter=inter)
    pixels = read_nifti(path).pixels
    assert pixels.dtype == np.dtype(expected)
    np.testing.assert_array_equal(pixels[0], (reference("f8") * slope + inter).astype(expected))
    theirs = nibabel.as_closest_canonical(nibabel.load(path)).get_fdata()  # R, A, S
    np.testing.assert_array_equal(pixels[0], theirs[::-1, ::-1].transpose(2, 1, 0).astype(expected))


@pytest.mark.parametrize("slope, inter", [(0, 5), (np.nan, np.nan), (np.inf, 0)])
def test_a_slope_that_means_none_leaves_the_values(tmp_path: Path, slope: float, inter: float):
    path = written(tmp_path / "v.nii", reference(), scl_slope=slope, scl_inter=inter)
    np.testing.assert_array_equal(read_nifti(path).pixels[0], reference())


def test_a_slope_without_a_usable_intercept_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="unusable header"):
        read_nifti(written(tmp_path / "v.nii", reference(), scl_slope=2.0, scl_inter=np.nan))


def test_scaling_that_overflows_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="not finite"):
        read_nifti(written(tmp_path / "v.nii", reference("f4"), scl_slope=3e38, scl_inter=0))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, value: float, dtype: str):
    volume = reference(dtype)
    volume[1, 2, 3] = value
    with pytest.raises(DataError, match="not finite"):
        read_nifti(written(tmp_path / "v.nii", volume))


def test_a_float_of_64_bits_that_overflows_32_is_refused(tmp_path: Path):
    volume = reference("f8")
    volume[0, 0, 0] = 1e300
    with pytest.raises(DataError, match="not finite in float32"):
        read_nifti(written(tmp_path / "v.nii", volume))


@pytest.fixture
def four(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """Three volumes in one file."""
    frames = [reference() + 100 * number for number in range(3)]
    stored = np.stack([stored_as(frame, "LAI")[0] for frame in frames], axis=-1)
    return nifti(tmp_path / "v.nii", stored, stored_as(frames[0], "LAI")[1]), np.stack(frames)


def test_several_frames_are_refused_unless_the_user_says_which(four: tuple[Path, np.ndarray]):
    with pytest.raises(DataError, match="has 3 frames; frames: first or frames: all"):
        read_nifti(four[0])


@pytest.mark.parametrize("frame", [0, 1, 2])
def test_each_frame_is_read_as_nibabel_has_it(four: tuple[Path, np.ndarray], frame: int):
    path, frames = four
    assert frame_count(path) == 3
    np.testing.assert_array_equal(read_nifti(path, frame=frame, frames="all").pixels[0], frames[frame])


@pytest.mark.parametrize("frame", [3, -1])
def test_a_frame_that_is_not_there_is_refused(four: tuple[Path, np.ndarray], frame: int):
    with pytest.raises(DataError, match=f"no frame {frame}"):
        read_nifti(four[0], frame=frame, frames="all")


def test_frames_that_are_cut_off_are_found_also_when_only_the_first_is_wanted(four: tuple[Path, np.ndarray]):
    content = four[0].read_bytes()
    four[0].write_bytes(gzip.compress(content[:-1]))
    with pytest.raises(DataError, match="cut short"):
        read_nifti(four[0], frames="first")


def test_one_frame_on_a_time_axis_is_an_ordinary_volume(tmp_path: Path):
    data, affine = stored_as(reference(), "RAS")
    path = nifti(tmp_path / "v.nii", data[..., None], affine)
    np.testing.assert_array_equal(read_nifti(path).pixels[0], reference())


@pytest.mark.parametrize("code, colours", [(128, "RGB"), (2304, "RGBA")])
def test_colours_become_three_channels(tmp_path: Path, code: int, colours: str):
    channels = [reference("u1") + 10 * number for number in range(len(colours))]
    stored = np.stack([stored_as(channel, "RPS")[0] for channel in channels], axis=-1)
    voxels = np.ascontiguousarray(stored).view([(colour, "u1") for colour in colours])[..., 0]
    nibabel.save(nibabel.Nifti1Image(voxels, stored_as(channels[0], "RPS")[1]), tmp_path / "v.nii")
    assert int(nibabel.load(tmp_path / "v.nii").header["datatype"]) == code
    np.testing.assert_array_equal(read_nifti(tmp_path / "v.nii").pixels, np.stack(channels[:3]))


@pytest.mark.parametrize("dtype", ["c8", "c16"])
def test_complex_voxels_are_refused(tmp_path: Path, dtype: str):
    with pytest.raises(DataError, match="integers, floats"):
        read_nifti(written(tmp_path / "v.nii", reference(dtype)))


def test_vectors_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="three for space and one for time"):
        read_nifti(nifti(tmp_path / "v.nii", np.zeros((3, 4, 5, 1, 2), np.uint8), np.eye(4)))


def test_nifti_2_reads_as_nifti_1(tmp_path: Path):
    data, affine = stored_as(reference(), "PIR")
    nibabel.save(nibabel.Nifti2Image(data, affine), tmp_path / "v.nii.gz")
    np.testing.assert_array_equal(read_nifti(tmp_path / "v.nii.gz").pixels[0], reference())


def test_compressed_and_plain_files_give_the_same_whatever_they_are_called(tmp_path: Path):
    content = written(tmp_path / "v.nii", reference()).read_bytes()
    (tmp_path / "w.nii").write_bytes(gzip.compress(content))
    half = len(content) // 2
    (tmp_path / "x.nii").write_bytes(gzip.compress(content[:half]) + gzip.compress(content[half:]))  # RFC 1952, 2.2
    for name in ("w.nii", "x.nii"):
        np.testing.assert_array_equal(read_nifti(tmp_path / name).pixels[0], reference())


def test_header_extensions_are_passed_over(tmp_path: Path):
    data, affine = stored_as(reference(), "RAS")
    image = nibabel.Nifti1Image(data, affine)
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"x" * 5000))
    nibabel.save(image, tmp_path / "v.nii")
    np.testing.assert_array_equal(read_nifti(tmp_path / "v.nii").pixels[0], reference())


def test_the_modality_is_the_one_that_is_given(tmp_path: Path):
    assert read_nifti(written(tmp_path / "v.nii", reference()), modality=Modality.ct).modality is Modality.ct


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"dim": [3, 0, 4, 5, 1, 1, 1, 1]}, "axes"),
        ({"dim": [3, -5, 4, 5, 1, 1, 1, 1]}, "axes"),
        ({"dim": [1, 60, 1, 1, 1, 1, 1, 1]}, "it has 1 axes"),
        ({"dim": [9, 5, 4, 3, 1, 1, 1, 1]}, "it has 9 axes"),
        ({"dim": [3, 5, 4, 4, 1, 1, 1, 1]}, "cut short"),
        ({"dim": [3, 32767, 32767, 32767, 1, 1, 1, 1]}, f"would take {2 * 32767**3} bytes"),
        ({"datatype": 3}, "unusable header|values"),
        ({"datatype": 1}, "unusable header|values"),
        ({"vox_offset": 0}, "begins -348 bytes after"),
        ({"vox_offset": np.nan}, "unusable header"),
        ({"vox_offset": 1e12}, "bytes after its header"),
        ({"magic": b"ni1"}, "in one piece"),
        ({"qform_code": 1, "sform_code": 0, "quatern_b": 5.0}, "unusable"),
    ],
)
def test_a_header_that_cannot_be_is_refused(tmp_path: Path, fields: dict[str, object], message: str):
    path = patched(written(tmp_path / "v.nii", reference()), **fields)
    with pytest.raises(DataError, match=message):
        read_nifti(path)


@pytest.mark.parametrize("kept", [0, 3, 347, 352, 400, 471])
@pytest.mark.parametrize("packed", [False, True])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, kept: int, packed: bool):
    content = written(tmp_path / "v.nii", reference()).read_bytes()
    assert len(content) == 472
    (tmp_path / "v.nii").write_bytes(gzip.compress(content[:kept]) if packed else content[:kept])
    with pytest.raises(DataError, match="cut short|damaged"):
        read_nifti(tmp_path / "v.nii")


@pytest.mark.parametrize("place", [-8, -1, 30])
def test_a_gzip_file_whose_checksum_or_content_is_wrong_is_refused(tmp_path: Path, place: int):
    content = bytearray(gzip.compress(written(tmp_path / "v.nii", reference()).read_bytes()))
    content[place] ^= 0xFF
    (tmp_path / "v.nii.gz").write_bytes(content)
    with pytest.raises(DataError, match="damaged|more bytes|cut short|NIfTI"):
        read_nifti(tmp_path / "v.nii.gz")


def test_half_a_gzip_file_is_refused(tmp_path: Path):
    content = gzip.compress(written(tmp_path / "v.nii", reference()).read_bytes())
    for kept in (10, len(content) // 2, len(content) - 9, len(content) - 4):
        (tmp_path / "v.nii.gz").write_bytes(content[:kept])
        with pytest.raises(DataError, match="damaged|cut short"):
            read_nifti(tmp_path / "v.nii.gz")


def test_only_one_file_niftis_are_recognised(tmp_path: Path):
    content = written(tmp_path / "v.nii", reference()).read_bytes()
    assert is_nifti(content) and not is_nifti(content[4:]) and not is_nifti(bytes(400))
